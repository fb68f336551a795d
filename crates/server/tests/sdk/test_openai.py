"""The official OpenAI SDK against Loom: `LOOM_URL=… LOOM_KEY=… python -m unittest test_openai`."""

import asyncio
import json
import unittest

import openai

from common import (
    BEFORE_BREAK, KEY, OWN_TOKEN, OUTPUT_CALL, OUTPUT_TEXT, OUTPUT_THINKING, SCHEMA, SPLIT, STATUSES, TEXT,
    THINKING, URL,
)

MODEL = "gpt-4o"
PROMPT = [{"role": "user", "content": "Hi"}]
PARALLEL = [{"role": "user", "content": "The weather in two places, in parallel"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
RESPONSES_TOOL = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}
ERRORS = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    413: openai.APIStatusError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
    529: openai.InternalServerError,
}


def said(chunk):
    return (chunk.choices[0].delta.content or "") if chunk.choices else ""


class Base:
    """All tests; the classes at the end run them under each base URL."""

    path = ""

    def setUp(self):
        options = {"base_url": URL + self.path, "max_retries": 0, "timeout": 30, "default_headers": OWN_TOKEN}
        self.client = openai.OpenAI(api_key=KEY, **options)
        self.stranger = openai.OpenAI(api_key="loom-wrong-key", **options)
        self.make_async = lambda: openai.AsyncOpenAI(api_key=KEY, **options)
        self.addCleanup(self.client.close)
        self.addCleanup(self.stranger.close)

    def chat(self, model=MODEL, messages=PROMPT, **more):
        return self.client.chat.completions.create(model=model, messages=messages, **more)

    def test_plain(self):
        answer = self.chat()
        self.assertEqual(answer.choices[0].message.content, TEXT)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual(answer.usage.prompt_tokens, 1000)
        self.assertEqual(answer.usage.prompt_tokens_details.cached_tokens, 400)
        self.assertEqual(answer.usage.completion_tokens, OUTPUT_TEXT)
        self.assertTrue(answer._request_id)

    def test_reasoning_usage(self):
        usage = self.chat(reasoning_effort="low").usage
        self.assertEqual(usage.completion_tokens, OUTPUT_TEXT + OUTPUT_THINKING)
        self.assertEqual(usage.completion_tokens_details.reasoning_tokens, OUTPUT_THINKING)

    def test_stream_without_usage(self):
        chunks = list(self.chat(stream=True))
        self.assertEqual("".join(map(said, chunks)), TEXT)
        self.assertEqual([chunk for chunk in chunks if not chunk.choices], [])
        self.assertTrue(all(chunk.usage is None for chunk in chunks))
        self.assertEqual(chunks[-1].choices[0].finish_reason, "stop")

    def test_stream_with_usage(self):
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        without_choices = [chunk for chunk in chunks if not chunk.choices]
        self.assertEqual(len(without_choices), 1)
        self.assertIs(without_choices[0], chunks[-1])
        self.assertEqual(chunks[-1].usage.total_tokens, 1000 + OUTPUT_TEXT)
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))

    def test_stream_of_an_upstream_that_refuses_stream_options(self):
        chunks = list(self.chat("mock-refuse-stream-options", stream=True))
        self.assertEqual("".join(map(said, chunks)), TEXT)

    def test_async_stream(self):
        async def run():
            async with self.make_async() as client:
                stream = await client.chat.completions.create(
                    model=MODEL, messages=PROMPT, stream=True
                )
                return "".join([said(chunk) async for chunk in stream])

        self.assertEqual(asyncio.run(run()), TEXT)

    def test_split_characters(self):
        text = "".join(map(said, self.chat("mock-split-utf8", stream=True)))
        self.assertEqual(text, SPLIT)
        self.assertEqual(self.chat("mock-split-utf8").choices[0].message.content, SPLIT)

    def test_tool_and_its_result(self):
        message = self.chat(tools=[TOOL]).choices[0].message
        (call,) = message.tool_calls
        self.assertEqual(json.loads(call.function.arguments), {"city": "Zürich"})
        result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
        answer = self.chat(messages=[*PROMPT, message, result], tools=[TOOL])
        self.assertEqual(answer.choices[0].message.content, TEXT)

    def test_parallel_tools(self):
        answer = self.chat(messages=PARALLEL, tools=[TOOL])
        self.assertEqual(answer.choices[0].finish_reason, "tool_calls")
        self.assertEqual(len({call.id for call in answer.choices[0].message.tool_calls}), 2)
        self.assertEqual(answer.usage.completion_tokens, 2 * OUTPUT_CALL)

    def test_parallel_tools_streamed(self):
        with self.client.chat.completions.stream(
            model=MODEL, messages=PARALLEL, tools=[TOOL]
        ) as stream:
            message = stream.get_final_completion().choices[0].message
        cities = [json.loads(call.function.arguments)["city"] for call in message.tool_calls]
        self.assertEqual(cities, ["Zürich", "東京"])

    def test_responses(self):
        answer = self.client.responses.create(model=MODEL, input="Hi", reasoning={"effort": "low"})
        self.assertEqual(answer.output_text, TEXT)
        self.assertEqual(answer.output[0].summary[0].text, THINKING)
        self.assertEqual(answer.usage.output_tokens_details.reasoning_tokens, OUTPUT_THINKING)
        self.assertEqual(answer.usage.input_tokens_details.cached_tokens, 400)

    def test_responses_streamed(self):
        events = list(self.client.responses.create(model=MODEL, input="Hi", stream=True))
        self.assertEqual(events[0].type, "response.created")
        self.assertEqual(events[-1].type, "response.completed")
        self.assertEqual([event.sequence_number for event in events], list(range(len(events))))
        deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
        self.assertEqual("".join(deltas), TEXT)
        self.assertEqual(events[-1].response.usage.output_tokens, OUTPUT_TEXT)

    def test_responses_helper_with_parallel_tools(self):
        with self.client.responses.stream(
            model=MODEL, input=PARALLEL, tools=[RESPONSES_TOOL]
        ) as stream:
            answer = stream.get_final_response()
        cities = [json.loads(item.arguments)["city"] for item in answer.output]
        self.assertEqual(cities, ["Zürich", "東京"])

    def test_responses_async(self):
        async def run():
            async with self.make_async() as client:
                stream = await client.responses.create(model=MODEL, input="Hi", stream=True)
                return [event.type async for event in stream][-1]

        self.assertEqual(asyncio.run(run()), "response.completed")

    def test_embeddings(self):
        for encoding in ({}, {"encoding_format": "float"}):
            made = self.client.embeddings.create(
                model="text-embedding-3-small", input=["a", "b"], dimensions=4, **encoding
            )
            self.assertEqual(made.data[1].embedding[:2], [2.0, 1.0])
            self.assertEqual(made.usage.prompt_tokens, 16)

    def test_models(self):
        ids = [model.id for model in self.client.models.list()]
        self.assertIn(MODEL, ids)
        self.assertEqual(self.client.models.retrieve(MODEL).id, MODEL)
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("no-such-model")

    def test_headers(self):
        raw = self.client.chat.completions.with_raw_response.create(model=MODEL, messages=PROMPT)
        self.assertTrue(raw.headers["x-request-id"])
        self.assertEqual(raw.parse()._request_id, raw.headers["x-request-id"])
        self.assertEqual(raw.headers["x-ratelimit-remaining-tokens"], "199000")
        self.assertEqual(raw.headers["x-ratelimit-reset-tokens"], "6m0s")
        self.assertEqual(raw.headers["openai-processing-ms"], "42")
        self.assertEqual(raw.headers["x-vendor-new"], "1")

    def test_errors(self):
        for status in STATUSES:
            for stream in (False, True):
                with self.subTest(status=status, stream=stream):
                    with self.assertRaises(ERRORS[status]) as caught:
                        self.chat(f"mock-error-{status}", stream=stream)
                    self.assertEqual(caught.exception.status_code, status)
                    self.assertTrue(caught.exception.body["message"])
                    if status == 429:
                        headers = caught.exception.response.headers
                        self.assertEqual(headers["retry-after"], "17")
                        self.assertEqual(headers["x-ratelimit-remaining-requests"], "0")
                        self.assertEqual(caught.exception.code, "rate_limit_exceeded")

    def test_no_quota(self):
        with self.assertRaises(openai.RateLimitError) as caught:
            self.chat("mock-insufficient-quota")
        self.assertEqual(caught.exception.code, "insufficient_quota")

    def test_error_in_the_stream(self):
        text = ""
        with self.assertRaises(openai.APIError) as caught:
            for chunk in self.chat("mock-midstream-error", stream=True):
                text += said(chunk)
        self.assertEqual(text, BEFORE_BREAK)
        self.assertNotIsInstance(caught.exception, openai.APIConnectionError)
        self.assertEqual(caught.exception.type, "server_error")

    def test_error_in_the_stream_of_responses(self):
        stream = self.client.responses.create(
            model="mock-midstream-error", input="Hi", stream=True
        )
        self.assertEqual([event.type for event in stream][-1], "error")

    def test_upstream_reset_in_the_stream(self):
        for model in ("mock-reset", "mock-close"):
            with self.subTest(model), self.assertRaises(openai.APIError):
                list(self.chat(model, stream=True))

    def test_wrong_key(self):
        calls = {
            "chat": lambda: self.stranger.chat.completions.create(model=MODEL, messages=PROMPT),
            "responses": lambda: self.stranger.responses.create(model=MODEL, input="Hi"),
            "models": lambda: self.stranger.models.list(),
        }
        for name, call in calls.items():
            with self.subTest(name), self.assertRaises(openai.AuthenticationError):
                call()

    def test_client_that_leaves(self):
        with self.chat("mock-paced-20", stream=True) as stream:
            for chunk in stream:
                if said(chunk):
                    break
        self.assertEqual(self.chat().choices[0].message.content, TEXT)


class AtRoot(Base, unittest.TestCase):
    path = "/v1"


class AtVendor(Base, unittest.TestCase):
    path = "/openai/v1"


if __name__ == "__main__":
    unittest.main()
