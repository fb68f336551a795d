"""The official Anthropic SDK against Loom: `LOOM_URL=… LOOM_KEY=… python -m unittest
test_anthropic`."""

import asyncio
import unittest

import anthropic
import httpx2

from common import (
    BEFORE_BREAK, KEY, OWN_TOKEN, OUTPUT_CALL, OUTPUT_TEXT, OUTPUT_THINKING, SCHEMA, SIGNATURE, SPLIT,
    STATUSES, TEXT, THINKING, URL,
)

MODEL = "claude-sonnet-4-5-20250929"
PROMPT = [{"role": "user", "content": "Hi"}]
PARALLEL = [{"role": "user", "content": "The weather in two places, in parallel"}]
TOOL = {"name": "weather", "description": "The weather somewhere", "input_schema": SCHEMA}
THINK = {"type": "enabled", "budget_tokens": 1024}
ERRORS = {
    400: anthropic.BadRequestError,
    401: anthropic.AuthenticationError,
    403: anthropic.PermissionDeniedError,
    404: anthropic.NotFoundError,
    413: anthropic.APIStatusError,
    422: anthropic.UnprocessableEntityError,
    429: anthropic.RateLimitError,
    500: anthropic.InternalServerError,
    503: anthropic.InternalServerError,
    529: anthropic.InternalServerError,
}
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    503: "api_error",
    529: "overloaded_error",
}


def said(event):
    is_text = event.type == "content_block_delta" and event.delta.type == "text_delta"
    return event.delta.text if is_text else ""


class Base:
    """All tests; the classes at the end run them under each base URL."""

    path = ""

    def setUp(self):
        options = {"base_url": URL + self.path, "max_retries": 0, "timeout": 30, "default_headers": OWN_TOKEN}
        self.client = anthropic.Anthropic(api_key=KEY, **options)
        self.stranger = anthropic.Anthropic(api_key="loom-wrong-key", **options)
        self.bearer = anthropic.Anthropic(auth_token=KEY, **options)
        self.make_async = lambda: anthropic.AsyncAnthropic(api_key=KEY, **options)
        for client in (self.client, self.stranger, self.bearer):
            self.addCleanup(client.close)

    def create(self, model=MODEL, messages=PROMPT, **more):
        more.setdefault("max_tokens", 4096)
        return self.client.messages.create(model=model, messages=messages, **more)

    def test_plain(self):
        answer = self.create()
        self.assertEqual(answer.content[0].text, TEXT)
        self.assertEqual(answer.stop_reason, "end_turn")
        self.assertEqual(answer.usage.input_tokens, 1200)
        self.assertEqual(answer.usage.cache_creation.ephemeral_5m_input_tokens, 300)
        self.assertEqual(answer.usage.cache_creation.ephemeral_1h_input_tokens, 200)
        self.assertEqual(answer.usage.cache_read_input_tokens, 4000)
        self.assertEqual(answer.usage.output_tokens, OUTPUT_TEXT)
        self.assertTrue(answer._request_id)

    def test_bearer(self):
        answer = self.bearer.messages.create(model=MODEL, messages=PROMPT, max_tokens=10)
        self.assertEqual(answer.content[0].text, TEXT)

    def test_stream(self):
        events = list(self.create(stream=True))
        self.assertEqual(events[0].type, "message_start")
        self.assertEqual(events[-1].type, "message_stop")
        self.assertEqual("".join(map(said, events)), TEXT)
        self.assertEqual(events[0].message.usage.cache_creation.ephemeral_1h_input_tokens, 200)
        self.assertEqual(events[-2].usage.output_tokens, OUTPUT_TEXT)

    def test_stream_helper(self):
        with self.client.messages.stream(
            model=MODEL, messages=PROMPT, max_tokens=4096
        ) as stream:
            self.assertEqual("".join(stream.text_stream), TEXT)
            self.assertEqual(stream.get_final_message().usage.output_tokens, OUTPUT_TEXT)
            self.assertTrue(stream.request_id)

    def test_async_stream(self):
        async def run():
            async with self.make_async() as client:
                stream = await client.messages.create(
                    model=MODEL, messages=PROMPT, max_tokens=4096, stream=True
                )
                return "".join([said(event) async for event in stream])

        self.assertEqual(asyncio.run(run()), TEXT)

    def test_split_characters(self):
        text = "".join(map(said, self.create("mock-split-utf8", stream=True)))
        self.assertEqual(text, SPLIT)
        self.assertEqual(self.create("mock-split-utf8").content[0].text, SPLIT)

    def test_tool_and_its_result(self):
        answer = self.create(tools=[TOOL])
        self.assertEqual(answer.stop_reason, "tool_use")
        (call,) = [block for block in answer.content if block.type == "tool_use"]
        self.assertEqual(call.input, {"city": "Zürich"})
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
        history = [
            *PROMPT,
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": [result]},
        ]
        self.assertEqual(self.create(messages=history, tools=[TOOL]).content[0].text, TEXT)

    def test_parallel_tools(self):
        answer = self.create(messages=PARALLEL, tools=[TOOL])
        calls = [block for block in answer.content if block.type == "tool_use"]
        self.assertEqual(len({call.id for call in calls}), 2)
        self.assertEqual(answer.usage.output_tokens, 2 * OUTPUT_CALL)

    def test_parallel_tools_streamed(self):
        with self.client.messages.stream(
            model=MODEL, messages=PARALLEL, tools=[TOOL], max_tokens=4096
        ) as stream:
            answer = stream.get_final_message()
        cities = [block.input["city"] for block in answer.content if block.type == "tool_use"]
        self.assertEqual(cities, ["Zürich", "東京"])

    def test_thinking(self):
        with self.client.messages.stream(
            model=MODEL, messages=PROMPT, max_tokens=4096, thinking=THINK
        ) as stream:
            streamed = stream.get_final_message()
        for answer in (self.create(thinking=THINK), streamed):
            thought, text = answer.content
            self.assertEqual(thought.thinking, THINKING)
            self.assertEqual(thought.signature, SIGNATURE)
            self.assertEqual(text.text, TEXT)
            self.assertEqual(answer.usage.output_tokens, OUTPUT_TEXT + OUTPUT_THINKING)

    def test_count_tokens(self):
        count = self.client.messages.count_tokens(model=MODEL, messages=PROMPT)
        self.assertEqual(count.input_tokens, 5700)

    def test_models(self):
        ids = [model.id for model in self.client.models.list()]
        self.assertIn(MODEL, ids)
        self.assertEqual(self.client.models.retrieve(MODEL).id, MODEL)
        with self.assertRaises(anthropic.NotFoundError):
            self.client.models.retrieve("no-such-model")

    def test_beta_path(self):
        answer = self.client.beta.messages.create(
            model=MODEL, messages=PROMPT, max_tokens=10, betas=["interleaved-thinking-2025-05-14"]
        )
        self.assertEqual(answer.content[0].text, TEXT)

    def test_headers(self):
        raw = self.client.messages.with_raw_response.create(
            model=MODEL, messages=PROMPT, max_tokens=10
        )
        self.assertTrue(raw.headers["request-id"])
        self.assertEqual(raw.parse()._request_id, raw.headers["request-id"])
        self.assertTrue(raw.headers["anthropic-organization-id"])
        self.assertEqual(raw.headers["anthropic-ratelimit-input-tokens-remaining"], "399000")
        reset = raw.headers["anthropic-ratelimit-requests-reset"]
        self.assertEqual(reset, "2030-01-01T00:00:01Z")
        self.assertEqual(raw.headers["x-vendor-new"], "1")

    def test_errors(self):
        for status in STATUSES:
            for stream in (False, True):
                with self.subTest(status=status, stream=stream):
                    with self.assertRaises(ERRORS[status]) as caught:
                        self.create(f"mock-error-{status}", stream=stream)
                    self.assertEqual(caught.exception.status_code, status)
                    self.assertEqual(caught.exception.body["error"]["type"], KINDS[status])
                    self.assertTrue(caught.exception.request_id)
                    if status == 429:
                        headers = caught.exception.response.headers
                        self.assertEqual(headers["retry-after"], "17")
                        self.assertEqual(headers["anthropic-ratelimit-tokens-remaining"], "0")

    def test_error_in_the_stream(self):
        text = ""
        with self.assertRaises(anthropic.APIStatusError) as caught:
            for event in self.create("mock-midstream-error", stream=True):
                text += said(event)
        self.assertEqual(text, BEFORE_BREAK)
        self.assertEqual(caught.exception.body["error"]["type"], "overloaded_error")

    def test_upstream_reset_in_the_stream(self):
        # Passed through, the break reaches the transport; told by the server, it is an event.
        for model in ("mock-reset", "mock-close"):
            with self.subTest(model):
                with self.assertRaises((anthropic.APIError, httpx2.TransportError)):
                    list(self.create(model, stream=True))

    def test_wrong_key(self):
        calls = {
            "messages": lambda: self.stranger.messages.create(
                model=MODEL, messages=PROMPT, max_tokens=10
            ),
            "count": lambda: self.stranger.messages.count_tokens(model=MODEL, messages=PROMPT),
            "models": lambda: self.stranger.models.list(),
        }
        for name, call in calls.items():
            with self.subTest(name), self.assertRaises(anthropic.AuthenticationError):
                call()

    def test_client_that_leaves(self):
        with self.create("mock-paced-20", stream=True) as stream:
            for event in stream:
                if said(event):
                    break
        self.assertEqual(self.create().content[0].text, TEXT)


class AtRoot(Base, unittest.TestCase):
    path = ""


class AtVendor(Base, unittest.TestCase):
    path = "/anthropic"


if __name__ == "__main__":
    unittest.main()
