"""When cron jobs run, by cronsim: reads expression, zone, from, to (seconds); writes the seconds of each run."""

import json
import sys
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

from cronsim import CronSim

for line in sys.stdin:
    expression, zone, start, end = json.loads(line)
    runs = []
    sim = CronSim(expression, datetime.fromtimestamp(start, ZoneInfo(zone)))
    while True:
        at = int(next(sim).astimezone(timezone.utc).timestamp())
        if at > end:
            break
        runs.append(at)
    print(json.dumps(runs), flush=True)
