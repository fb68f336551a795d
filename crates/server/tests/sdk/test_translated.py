"""Both official SDKs against Loom, each with models of providers that speak another wire: `LOOM_URL=…
LOOM_KEY=… python -m unittest test_translated`. The provider `other` only knows chat."""

import base64
import json
import unittest

import anthropic
import openai

from common import (
    KEY, OUTPUT_CALL, OUTPUT_TEXT, OUTPUT_THINKING, OWN_TOKEN, SCHEMA, SIGNATURE, TEXT, THINKING, URL,
)

CLAUDE, GPT, OTHER = "claude-sonnet-4-5-20250929", "gpt-4o", "other/m"
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

    def chat(self, messages=PROMPT, **more):
        return self.client.chat.completions.create(model=CLAUDE, messages=messages, **more)

    def test_plain(self):
        answer = self.chat()
        self.assertEqual(answer.choices[0].message.content, TEXT)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual(answer.usage.prompt_tokens, 1200 + 500 + 4000)
        self.assertEqual(answer.usage.prompt_tokens_details.cached_tokens, 4000)
        self.assertEqual(answer.usage.completion_tokens, OUTPUT_TEXT)
        self.assertTrue(answer._request_id)

    def test_stream(self):
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        self.assertEqual("".join(pieces), TEXT)
        self.assertEqual(chunks[-1].usage.completion_tokens, OUTPUT_TEXT)
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))
        chunks = list(self.chat(stream=True))
        self.assertTrue(all(chunk.choices for chunk in chunks))

    def test_parallel_tools_and_their_results(self):
        plain = self.chat(PARALLEL, tools=[self.tool]).choices[0]
        with self.client.chat.completions.stream(
            model=CLAUDE, messages=PARALLEL, tools=[self.tool]
        ) as stream:
            streamed = stream.get_final_completion().choices[0]
        for choice in (plain, streamed):
            self.assertEqual(choice.finish_reason, "tool_calls")
            calls = choice.message.tool_calls
            cities = [json.loads(call.function.arguments)["city"] for call in calls]
            self.assertEqual(cities, CITIES)
            results = [
                {"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in calls
            ]
            answer = self.chat([*PARALLEL, choice.message, *results], tools=[self.tool])
            self.assertEqual(answer.choices[0].message.content, TEXT)

    def test_image_and_document(self):
        content = [
            {"type": "text", "text": "Look"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
            {"type": "file", "file": {"filename": "a.pdf",
                                      "file_data": "data:application/pdf;base64,JVBERi0="}},
        ]
        answer = self.chat([{"role": "user", "content": content}])
        self.assertEqual(answer.choices[0].message.content, TEXT)

    def test_thinking(self):
        message = self.chat(reasoning_effort="low").choices[0].message
        self.assertEqual(message.reasoning_content, THINKING)
        self.assertEqual(message.reasoning_details[0]["signature"], SIGNATURE)
        chunks = list(self.chat(reasoning_effort="low", stream=True))
        thought = [getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in chunks]
        self.assertEqual("".join(thought), THINKING)
        answer = self.chat([*PROMPT, message, *PROMPT], reasoning_effort="low")
        self.assertEqual(answer.usage.completion_tokens, OUTPUT_TEXT + OUTPUT_THINKING)

    def test_as_an_agent_asks(self):
        history = [
            {"role": "developer", "content": [{"type": "text", "text": "You are an agent."}]},
            {"role": "user", "content": [{"type": "text", "text": "Look"}]},
            {"role": "assistant", "content": "", "refusal": None, "audio": None,
             "function_call": None, "annotations": [], "tool_calls": [
                 {"id": "c1", "type": "function", "index": 0,
                  "function": {"name": "weather", "arguments": ""}}]},
            {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": ""},
        ]
        chunks = list(self.chat(
            history, stream=True, stream_options={"include_usage": True}, temperature=0, top_p=1,
            max_completion_tokens=4096, parallel_tool_calls=True, tool_choice="auto", n=1,
            presence_penalty=0, frequency_penalty=0, store=False, user="u", metadata={"a": "b"},
            prompt_cache_key="k", service_tier="auto", verbosity="medium",
            tools=[{"type": "function", "function": {
                "name": "weather", "parameters": {}, "strict": False}}],
        ))
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        ends = [c.choices[0].finish_reason for c in chunks if c.choices]
        self.assertEqual(ends, [None] * (len(ends) - 1) + ["stop"])
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(len({chunk.id for chunk in chunks}), 1)

    def test_refused_field(self):
        with self.assertRaises(openai.BadRequestError) as told:
            self.chat(logit_bias={"50256": -100})
        self.assertEqual(told.exception.param, "logit_bias")

    def test_models(self):
        ids = {model.id for model in self.client.models.list()}
        self.assertLessEqual({CLAUDE, GPT}, ids)
        self.assertEqual(self.client.models.retrieve(CLAUDE).owned_by, "anthropic")


class Responses(unittest.TestCase):
    tool = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}

    def setUp(self):
        self.client = openai.OpenAI(api_key=KEY, base_url=URL + "/v1", **OPTIONS)
        self.addCleanup(self.client.close)

    def both(self, **more):
        for model in (CLAUDE, OTHER):
            whole = self.client.responses.create(model=model, **more)
            with self.client.responses.stream(model=model, **more) as stream:
                events = list(stream)
                yield model, whole, events, stream.get_final_response()

    def test_plain_and_streamed(self):
        for model, whole, events, streamed in self.both(input="Hi", instructions="Be short."):
            with self.subTest(model):
                for answer in (whole, streamed):
                    self.assertEqual(answer.output_text, TEXT)
                    self.assertEqual(answer.status, "completed")
                    self.assertEqual(answer.usage.output_tokens, OUTPUT_TEXT)
                    self.assertEqual(answer.instructions, "Be short.")
                numbers = [event.sequence_number for event in events]
                self.assertEqual(numbers, list(range(len(events))))
                self.assertEqual(events[0].type, "response.created")
                self.assertEqual(events[-1].type, "response.completed")

    def test_parallel_tools_and_their_results(self):
        for model, whole, _, streamed in self.both(input=PARALLEL, tools=[self.tool]):
            for answer in (whole, streamed):
                calls = [item for item in answer.output if item.type == "function_call"]
                self.assertEqual([json.loads(c.arguments)["city"] for c in calls], CITIES)
                results = [
                    {"type": "function_call_output", "call_id": c.call_id, "output": "rain"}
                    for c in calls
                ]
                history = [*PARALLEL, *answer.output, *results]
                more = self.client.responses.create(
                    model=model, input=history, tools=[self.tool]
                )
                self.assertEqual(more.output_text, TEXT)

    def test_as_a_coding_agent_asks(self):
        tool = {**self.tool, "parameters": {}}
        ask = {
            "instructions": "You are an agent.",
            "tools": [tool],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
            "reasoning": {"effort": "medium", "summary": "auto"},
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": "k",
            "text": {"verbosity": "medium"},
            "service_tier": "auto",
            "metadata": {"a": "b"},
            "stream_options": {"include_obfuscation": False},
        }
        history = [
            {"type": "message", "role": "developer",
             "content": [{"type": "input_text", "text": "Sandboxed."}]},
            {"role": "user", "content": [{"type": "input_text", "text": "Look"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": ""},
        ]
        for model in (CLAUDE, OTHER):
            events = list(
                self.client.responses.create(model=model, input=history, stream=True, **ask)
            )
            self.assertEqual([e.sequence_number for e in events], list(range(len(events))))
            self.assertEqual([e.type for e in events[:2]],
                             ["response.created", "response.in_progress"])
            done = events[-1].response
            self.assertEqual(done.output_text, TEXT)
            # Each item is told from its beginning to its end, under one id.
            for at, item in enumerate(done.output):
                of = [e for e in events if getattr(e, "output_index", None) == at]
                self.assertEqual(of[0].type, "response.output_item.added")
                self.assertEqual(of[-1].type, "response.output_item.done")
                ids = {getattr(e, "item_id", None) or e.item.id for e in of}
                self.assertEqual(ids, {item.id})

    def test_reasoning(self):
        reasoning = {"effort": "low", "summary": "auto"}
        whole = self.client.responses.create(model=CLAUDE, input="Hi", reasoning=reasoning)
        with self.client.responses.stream(
            model=CLAUDE, input="Hi", reasoning=reasoning
        ) as stream:
            streamed = stream.get_final_response()
        for answer in (whole, streamed):
            thought = answer.output[0]
            self.assertEqual(thought.summary[0].text, THINKING)
            self.assertIn(SIGNATURE, thought.encrypted_content)
            self.assertEqual(answer.usage.output_tokens_details.reasoning_tokens, OUTPUT_THINKING)

    def test_image(self):
        content = [
            {"type": "input_text", "text": "Look"},
            {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"},
        ]
        for _, whole, _, _ in self.both(input=[{"role": "user", "content": content}]):
            self.assertEqual(whole.output_text, TEXT)


class Messages(unittest.TestCase):
    tool = {"name": "weather", "input_schema": SCHEMA}

    def setUp(self):
        self.client = anthropic.Anthropic(api_key=KEY, base_url=URL, **OPTIONS)
        self.addCleanup(self.client.close)

    def both(self, messages=PROMPT, models=(GPT, OTHER), **more):
        for model in models:
            asked = {"model": model, "messages": messages, "max_tokens": 4096, **more}
            whole = self.client.messages.create(**asked)
            with self.client.messages.stream(**asked) as stream:
                yield model, whole, list(stream), stream.get_final_message()

    def test_plain_and_streamed(self):
        for model, whole, events, streamed in self.both(system="Be short."):
            with self.subTest(model):
                for answer in (whole, streamed):
                    self.assertEqual(answer.content[0].text, TEXT)
                    self.assertEqual(answer.stop_reason, "end_turn")
                    self.assertEqual(answer.usage.output_tokens, OUTPUT_TEXT)
                    self.assertEqual(answer.usage.input_tokens, 500)
                    self.assertEqual(answer.usage.cache_read_input_tokens, 400)
                self.assertEqual(events[0].type, "message_start")
                self.assertEqual(events[-1].type, "message_stop")

    def test_parallel_tools_and_their_results(self):
        for model, whole, _, streamed in self.both(PARALLEL, tools=[self.tool]):
            for answer in (whole, streamed):
                self.assertEqual(answer.stop_reason, "tool_use")
                calls = [block for block in answer.content if block.type == "tool_use"]
                self.assertEqual([call.input["city"] for call in calls], CITIES)
                self.assertEqual(answer.usage.output_tokens, 2 * OUTPUT_CALL)
                results = [
                    {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
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

    def test_thinking(self):
        think = {"type": "enabled", "budget_tokens": 1024}
        for _, whole, _, streamed in self.both(models=(GPT,), thinking=think):
            for answer in (whole, streamed):
                self.assertEqual(answer.content[0].thinking, THINKING)
                self.assertEqual(answer.content[1].text, TEXT)

    def test_image_document_and_cache_control(self):
        content = [
            {"type": "text", "text": "Look", "cache_control": {"type": "ephemeral"}},
            {"type": "image",
             "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
            {"type": "document", "title": "a.pdf",
             "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}},
        ]
        for _, whole, _, _ in self.both([{"role": "user", "content": content}]):
            self.assertEqual(whole.content[0].text, TEXT)

    def test_as_a_coding_agent_asks(self):
        cache = {"type": "ephemeral"}
        ask = {
            "max_tokens": 32000,
            "system": [{"type": "text", "text": "You are an agent.", "cache_control": cache}],
            "metadata": {"user_id": "user_" + 70 * "0"},
            "tools": [{"name": "list", "input_schema": {"type": "object"}, "cache_control": cache}],
            "extra_body": {
                "temperature": 1,
                "context_management": {"edits": [{"type": "clear_thinking_20251015"}]},
                "output_config": {"effort": "high"},
                "thinking": {"type": "adaptive"},
            },
            "extra_headers": {"anthropic-beta": "context-management-2025-06-27"},
            "extra_query": {"beta": "true"},
        }
        history = [
            {"role": "user", "content": [{"type": "text", "text": "Look", "cache_control": cache}]},
            {"role": "assistant", "content": [
                {"type": "text", "text": "\n\n"},
                {"type": "tool_use", "id": "t1", "name": "list", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "", "cache_control": cache}]},
        ]
        for _, whole, events, streamed in self.both(history, **ask):
            for answer in (whole, streamed):
                self.assertEqual(answer.content[-1].text, TEXT)
            told = [e for e in events if e.type.startswith(("content_block_start", "content_block_stop"))]
            indices = [(event.type, event.index) for event in told]
            wanted = [(f"content_block_{kind}", at)
                      for at in range(len(streamed.content)) for kind in ("start", "stop")]
            self.assertEqual(indices, wanted)

    def test_a_probe_of_one_token(self):
        for _, whole, _, _ in self.both(max_tokens=1):
            self.assertEqual(whole.content[0].text, TEXT)

    def test_refused_field(self):
        with self.assertRaises(anthropic.BadRequestError) as told:
            list(self.both(extra_body={"top_k": 3}))
        self.assertIn("top_k", str(told.exception))

    def test_rate_limit(self):
        with self.assertRaises(anthropic.RateLimitError) as told:
            list(self.both(models=("openai/mock-error-429",), extra_headers=OWN_TOKEN))
        self.assertEqual(told.exception.response.headers["retry-after"], "17")

    def test_models(self):
        ids = {model.id for model in self.client.models.list()}
        self.assertLessEqual({CLAUDE, GPT}, ids)


if __name__ == "__main__":
    unittest.main()
