"""Both official SDKs against a Loom that was started with `--demo`: `LOOM_URL=… LOOM_KEY=… python -m
unittest test_demo`.

The demo lets everybody on this machine in without a key, but an SDK always sends one, and a wrong
credential is a 401 there as everywhere: LOOM_KEY must be a real key of that Loom. The last class
shows how to make the SDKs send none.
"""

import json
import unittest

import anthropic
import openai

from common import KEY, SCHEMA, URL

MODEL = "loom-demo"
PROMPT = [{"role": "user", "content": "Hi there"}]
OPTIONS = {"max_retries": 0, "timeout": 30}


def openai_client(**more):
    return openai.OpenAI(**{"api_key": KEY, "base_url": URL + "/v1", **OPTIONS, **more})


def anthropic_client(**more):
    return anthropic.Anthropic(**{"api_key": KEY, "base_url": URL, **OPTIONS, **more})


class OpenAI(unittest.TestCase):
    tool = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}

    def setUp(self):
        self.client = openai_client()
        self.addCleanup(self.client.close)

    def chat(self, messages=PROMPT, **more):
        return self.client.chat.completions.create(model=MODEL, messages=messages, **more)

    def test_chat_and_stream(self):
        answer = self.chat()
        text = answer.choices[0].message.content
        self.assertIn("Hi there", text)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertGreater(answer.usage.completion_tokens, 0)
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        self.assertEqual("".join(pieces), text)
        self.assertGreater(len(pieces), 10)
        self.assertEqual(chunks[-1].usage, answer.usage)

    def test_tool_and_its_result(self):
        message = self.chat(tools=[self.tool]).choices[0].message
        (call,) = message.tool_calls
        self.assertIn("city", json.loads(call.function.arguments))
        with self.client.chat.completions.stream(
            model=MODEL, messages=PROMPT, tools=[self.tool]
        ) as stream:
            choice = stream.get_final_completion().choices[0]
        self.assertEqual(choice.finish_reason, "tool_calls")
        streamed = choice.message.tool_calls[0].function
        self.assertEqual(streamed.arguments, call.function.arguments)
        result = {"role": "tool", "tool_call_id": call.id, "content": "it rains"}
        answer = self.chat([*PROMPT, message, result], tools=[self.tool])
        self.assertIn("it rains", answer.choices[0].message.content)

    def test_responses(self):
        answer = self.client.responses.create(model=MODEL, input="Hi there")
        self.assertIn("Hi there", answer.output_text)
        with self.client.responses.stream(model=MODEL, input="Hi there") as stream:
            self.assertEqual(stream.get_final_response().output_text, answer.output_text)

    def test_embeddings(self):
        made = self.client.embeddings.create(model=MODEL, input=["a", "b"])
        self.assertEqual([len(item.embedding) for item in made.data], [256, 256])

    def test_it_says_that_it_is_a_demo(self):
        raw = self.client.chat.completions.with_raw_response.create(model=MODEL, messages=PROMPT)
        self.assertEqual(raw.headers["x-loom-demo"], "true")
        (model,) = [model for model in self.client.models.list() if model.id == MODEL]
        self.assertIs(model.demo, True)
        self.assertIs(self.client.models.retrieve(MODEL).demo, True)

    def test_wrong_key(self):
        with openai_client(api_key="sk-anything") as client:
            with self.assertRaises(openai.AuthenticationError):
                client.chat.completions.create(model=MODEL, messages=PROMPT)


class Anthropic(unittest.TestCase):
    tool = {"name": "weather", "input_schema": SCHEMA}

    def setUp(self):
        self.client = anthropic_client()
        self.addCleanup(self.client.close)

    def create(self, messages=PROMPT, **more):
        return self.client.messages.create(model=MODEL, messages=messages, max_tokens=500, **more)

    def test_messages_and_stream(self):
        answer = self.create()
        (block,) = answer.content
        self.assertIn("Hi there", block.text)
        self.assertEqual(answer.stop_reason, "end_turn")
        with self.client.messages.stream(model=MODEL, messages=PROMPT, max_tokens=500) as stream:
            pieces = list(stream.text_stream)
            final = stream.get_final_message()
        self.assertEqual("".join(pieces), block.text)
        self.assertGreater(len(pieces), 10)
        self.assertEqual(final.content[0].text, block.text)
        self.assertEqual(final.usage.output_tokens, answer.usage.output_tokens)

    def test_tool_and_its_result(self):
        asked = self.create(tools=[self.tool])
        (call,) = asked.content
        self.assertEqual((call.name, asked.stop_reason), ("weather", "tool_use"))
        self.assertIn("city", call.input)
        with self.client.messages.stream(
            model=MODEL, messages=PROMPT, max_tokens=500, tools=[self.tool]
        ) as stream:
            self.assertEqual(stream.get_final_message().content[0].input, call.input)
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "it rains"}
        turns = [
            {"role": "assistant", "content": asked.content},
            {"role": "user", "content": [result]},
        ]
        answer = self.create([*PROMPT, *turns], tools=[self.tool])
        self.assertIn("it rains", answer.content[0].text)

    def test_count_tokens(self):
        count = self.client.messages.count_tokens(model=MODEL, messages=PROMPT)
        self.assertEqual(count.input_tokens, self.create().usage.input_tokens)

    def test_it_says_that_it_is_a_demo(self):
        raw = self.client.messages.with_raw_response.create(
            model=MODEL, messages=PROMPT, max_tokens=500
        )
        self.assertEqual(raw.headers["x-loom-demo"], "true")
        (model,) = [model for model in self.client.models.list() if model.id == MODEL]
        self.assertIs(model.demo, True)

    def test_wrong_key(self):
        with anthropic_client(api_key="sk-ant-anything") as client:
            with self.assertRaises(anthropic.AuthenticationError):
                client.messages.create(model=MODEL, messages=PROMPT, max_tokens=500)


class WithoutAKey(unittest.TestCase):
    """What the SDKs would send as a credential is taken out."""

    def test_openai(self):
        headers = {"Authorization": openai.Omit()}
        with openai_client(api_key="not sent") as client:
            answer = client.chat.completions.create(
                model=MODEL, messages=PROMPT, extra_headers=headers
            )
        self.assertIn("Hi there", answer.choices[0].message.content)

    def test_anthropic(self):
        headers = {"Authorization": anthropic.Omit(), "X-Api-Key": anthropic.Omit()}
        with anthropic_client(api_key="not sent") as client:
            answer = client.messages.create(
                model=MODEL, messages=PROMPT, max_tokens=500, extra_headers=headers
            )
        self.assertIn("Hi there", answer.content[0].text)


if __name__ == "__main__":
    unittest.main()
