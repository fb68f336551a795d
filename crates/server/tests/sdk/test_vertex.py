"""Both official SDKs against Loom, with Gemini and Claude at Vertex: `LOOM_URL=… LOOM_KEY=… python -m unittest
test_vertex`."""

import base64
import json
import unittest

import anthropic
import openai

from common import (
    KEY, OUTPUT_CALL, OUTPUT_TEXT, OUTPUT_THINKING, SCHEMA, SIGNATURE, TEXT, THINKING, URL,
)

GEMINI, FLASH, CLAUDE = "gemini-3-pro-preview", "gemini-2.5-flash", "vertex/claude-sonnet-4-5-20250929"
MODELS = (GEMINI, FLASH, CLAUDE)
PROMPT = [{"role": "user", "content": "Hi"}]
PARALLEL = [{"role": "user", "content": "The weather in two places, in parallel"}]
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
OPTIONS = {"max_retries": 0, "timeout": 30}
CITIES = ["Zürich", "東京"]


class Chat(unittest.TestCase):
    tool = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}

    def setUp(self):
        self.client = openai.OpenAI(api_key=KEY, base_url=URL + "/v1", **OPTIONS)
        self.addCleanup(self.client.close)

    def test_plain_and_streamed(self):
        for model in MODELS:
            answer = self.client.chat.completions.create(model=model, messages=PROMPT)
            self.assertEqual(answer.choices[0].message.content, TEXT)
            self.assertEqual(answer.usage.completion_tokens, OUTPUT_TEXT)
            chunks = list(self.client.chat.completions.create(
                model=model, messages=PROMPT, stream=True, stream_options={"include_usage": True}
            ))
            pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
            self.assertEqual("".join(pieces), TEXT)
            self.assertEqual(chunks[-1].usage.completion_tokens, OUTPUT_TEXT)

    def test_tools_there_and_back(self):
        for model in MODELS:
            ask = {"model": model, "tools": [self.tool], "reasoning_effort": "low"}
            plain = self.client.chat.completions.create(messages=PARALLEL, **ask).choices[0]
            with self.client.chat.completions.stream(messages=PARALLEL, **ask) as stream:
                streamed = stream.get_final_completion().choices[0]
            for choice in (plain, streamed):
                self.assertEqual(choice.finish_reason, "tool_calls")
                calls = choice.message.tool_calls
                cities = [json.loads(call.function.arguments)["city"] for call in calls]
                self.assertEqual(cities, CITIES)
                results = [
                    {"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in calls
                ]
                history = [*PARALLEL, choice.message, *results]
                answer = self.client.chat.completions.create(messages=history, **ask)
                self.assertEqual(answer.choices[0].message.content, TEXT)

    def test_image_and_document(self):
        content = [
            {"type": "text", "text": "Look"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            {"type": "file", "file": {"filename": "a.pdf",
                                      "file_data": "data:application/pdf;base64,JVBERi0="}},
        ]
        for model in MODELS:
            answer = self.client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": content}]
            )
            self.assertEqual(answer.choices[0].message.content, TEXT)

    def test_errors(self):
        with self.assertRaises(openai.BadRequestError):
            self.client.chat.completions.create(model="vertex/a/b", messages=PROMPT)
        with self.assertRaises(openai.NotFoundError):
            self.client.chat.completions.create(model="vertex/mock-error-404", messages=PROMPT)


class Responses(unittest.TestCase):
    tool = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}

    def setUp(self):
        self.client = openai.OpenAI(api_key=KEY, base_url=URL + "/v1", **OPTIONS)
        self.addCleanup(self.client.close)

    def both(self, **more):
        for model in MODELS:
            whole = self.client.responses.create(model=model, **more)
            with self.client.responses.stream(model=model, **more) as stream:
                list(stream)
                yield model, whole, stream.get_final_response()

    def test_reasoning(self):
        reasoning = {"effort": "low", "summary": "auto"}
        for model, whole, streamed in self.both(input="Hi", reasoning=reasoning):
            for answer in (whole, streamed):
                self.assertEqual(answer.output_text, TEXT)
                self.assertEqual(answer.output[0].summary[0].text, THINKING)
                self.assertEqual(
                    answer.usage.output_tokens_details.reasoning_tokens, OUTPUT_THINKING
                )

    def test_tools_there_and_back(self):
        for model, whole, streamed in self.both(input=PARALLEL, tools=[self.tool]):
            for answer in (whole, streamed):
                calls = [item for item in answer.output if item.type == "function_call"]
                self.assertEqual([json.loads(c.arguments)["city"] for c in calls], CITIES)
                results = [
                    {"type": "function_call_output", "call_id": c.call_id, "output": "rain"}
                    for c in calls
                ]
                more = self.client.responses.create(
                    model=model, input=[*PARALLEL, *answer.output, *results], tools=[self.tool]
                )
                self.assertEqual(more.output_text, TEXT)

    def test_search(self):
        for _, whole, _ in self.both(input="Hi", tools=[{"type": "web_search"}]):
            self.assertEqual(whole.output_text, TEXT)


class Messages(unittest.TestCase):
    tool = {"name": "weather", "input_schema": SCHEMA}

    def setUp(self):
        self.client = anthropic.Anthropic(api_key=KEY, base_url=URL, **OPTIONS)
        self.addCleanup(self.client.close)

    def both(self, messages=PROMPT, **more):
        for model in MODELS:
            asked = {"model": model, "messages": messages, "max_tokens": 4096, **more}
            whole = self.client.messages.create(**asked)
            with self.client.messages.stream(**asked) as stream:
                list(stream)
                yield model, whole, stream.get_final_message()

    def test_thinking_and_its_signature(self):
        think = {"type": "enabled", "budget_tokens": 1024}
        for model, whole, streamed in self.both(thinking=think):
            for answer in (whole, streamed):
                self.assertEqual(answer.content[0].thinking, THINKING)
                self.assertEqual(answer.content[1].text, TEXT)
                history = [*PROMPT, {"role": "assistant", "content": answer.content}, *PROMPT]
                more = self.client.messages.create(
                    model=model, messages=history, max_tokens=4096, thinking=think
                )
                self.assertEqual(more.usage.output_tokens, OUTPUT_TEXT + OUTPUT_THINKING)
            # As it came with the text, if not with the thinking.
            self.assertIn(SIGNATURE, streamed.model_dump_json())

    def test_tools_there_and_back(self):
        for model, whole, streamed in self.both(PARALLEL, tools=[self.tool]):
            for answer in (whole, streamed):
                self.assertEqual(answer.stop_reason, "tool_use")
                calls = [block for block in answer.content if block.type == "tool_use"]
                self.assertEqual([call.input["city"] for call in calls], CITIES)
                self.assertEqual(answer.usage.output_tokens, 2 * OUTPUT_CALL)
                results = [
                    {"type": "tool_result", "tool_use_id": call.id, "content": [
                        {"type": "text", "text": "rain"},
                        {"type": "image", "source": {
                            "type": "base64", "media_type": "image/png", "data": PIXEL}},
                    ]}
                    for call in calls
                ]
                history = [
                    *PARALLEL,
                    {"role": "assistant", "content": answer.content},
                    {"role": "user", "content": results},
                ]
                more = self.client.messages.create(
                    model=model, messages=history, tools=[self.tool], max_tokens=4096
                )
                self.assertEqual(more.content[0].text, TEXT)

    def test_count(self):
        counts = [
            self.client.messages.count_tokens(model=model, messages=PROMPT).input_tokens
            for model in MODELS
        ]
        self.assertEqual(counts, [800, 800, 5700])

    def test_refused_field(self):
        with self.assertRaises(anthropic.BadRequestError) as told:
            self.client.messages.create(
                model=GEMINI, messages=PROMPT, max_tokens=9, stop_sequences=list("abcdef")
            )
        self.assertIn("stop_sequences", str(told.exception))


if __name__ == "__main__":
    unittest.main()
