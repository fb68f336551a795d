"""An application that reports with the SDK for Python. DSN and compression are its arguments."""

import sys

dsn, compression = sys.argv[1:]
if compression == "gzip":
    sys.modules["brotli"] = None  # as where it is not installed

import sentry_sdk
from sentry_sdk.crons import capture_checkin

sentry_sdk.init(
    dsn=dsn,
    release="shop@1.2.3",
    environment="test",
    traces_sample_rate=1.0,
    auto_session_tracking=False,
)
client = sentry_sdk.get_client()
assert client.transport._compression_algo == compression, client.transport._compression_algo

scope = sentry_sdk.get_isolation_scope()
scope.start_session(session_mode="application")
with sentry_sdk.start_transaction(op="task", name="work"), sentry_sdk.new_scope() as scope:
    scope.set_tag("flavour", "python")
    scope.set_user({"id": "7"})
    scope.add_attachment(bytes=b"line one\nline two\n", filename="log.txt")
    try:
        {}["nothing"]
    except KeyError:
        print(sentry_sdk.capture_exception())
sentry_sdk.get_isolation_scope().end_session()
run = capture_checkin(
    monitor_slug="nightly",
    status="in_progress",
    monitor_config={"schedule": {"type": "crontab", "value": "0 3 * * *"}, "timezone": "UTC"},
)
capture_checkin(monitor_slug="nightly", check_in_id=run, status="ok", duration=1.5)
sentry_sdk.flush(10)
client.close(10)
