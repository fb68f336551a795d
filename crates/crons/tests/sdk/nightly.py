"""Jobs that report with the cron helpers of the SDK for Python. The DSN is the argument."""

import asyncio
import sys

import sentry_sdk
from sentry_sdk.crons import monitor

CONFIG = {
    "schedule": {"type": "crontab", "value": "30 2 * * *"},
    "timezone": "Europe/Berlin",
    "checkin_margin": 10,
    "max_runtime": 60,
    "failure_issue_threshold": 2,
    "recovery_threshold": 3,
}
EVERY = {"schedule": {"type": "interval", "value": 2, "unit": "hour"}}

sentry_sdk.init(dsn=sys.argv[1], release="shop@1.2.3", environment="production", traces_sample_rate=1.0)


@monitor(monitor_slug="decorated", monitor_config=CONFIG)
def decorated():
    return 7


@monitor(monitor_slug="asynchronous", monitor_config=EVERY)
async def asynchronous():
    await asyncio.sleep(0)


@monitor(monitor_slug="failing", monitor_config=CONFIG)
def failing():
    raise RuntimeError("the disk is full")


assert decorated() == 7
asyncio.run(asynchronous())
with sentry_sdk.start_transaction(op="task", name="block") as transaction:
    with monitor(monitor_slug="block", monitor_config=EVERY):
        trace = transaction.trace_id
try:
    failing()
except RuntimeError as error:
    sentry_sdk.capture_exception(error)
sentry_sdk.flush(10)
sentry_sdk.get_client().close(10)
print(trace)
