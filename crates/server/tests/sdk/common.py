"""What the scripts share: where the server is, and what its upstream, the mock, says.

But for test_demo, LOOM_URL and LOOM_KEY name a server whose providers for both wires are the mock LLM upstream of
loom-testkit. Models named mock-* misbehave there; the server has to route them like any other.
"""

import os

URL = os.environ["LOOM_URL"].rstrip("/")
KEY = os.environ["LOOM_KEY"]
# The caller's own token for the provider: what happens to it concerns nobody else.
OWN_TOKEN = {"x-loom-provider-token": os.environ["LOOM_PROVIDER_TOKEN"]}

TEXT = "Hello from the mock, grüß dich 👋 – done."
BEFORE_BREAK = "Hello from the"
SPLIT = "żółć 日本語 👩‍🚀👋 ende"
THINKING = "Let me think about it."
SIGNATURE = "EqQBCgIYAhIkbW9jay1zaWduYXR1cmUvd2l0aCtiYXNlNjQ9PQ=="
OUTPUT_TEXT, OUTPUT_CALL, OUTPUT_THINKING = 40, 60, 80
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
STATUSES = (400, 401, 403, 404, 413, 422, 429, 500, 503, 529)
