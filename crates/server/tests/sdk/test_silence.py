"""Both SDKs with a server that speaks up while its upstream does not: a sign of life each second, and an upstream
that is given up after three."""

import unittest

import anthropic
import openai

from common import KEY, TEXT, URL

SLOW, HANG = "mock-slow-first-2300", "mock-hang"
PROMPT = [{"role": "user", "content": "Hi"}]


class Anthropic(unittest.TestCase):
    def setUp(self):
        self.client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)

    def test_signs_of_life_are_no_part_of_a_reply(self):
        for model in (SLOW, f"openai/{SLOW}"):
            ask = {"model": model, "max_tokens": 100, "messages": PROMPT}
            with self.client.messages.stream(**ask) as stream:
                self.assertEqual("".join(stream.text_stream), TEXT)
            events = list(self.client.messages.create(stream=True, **ask))
            self.assertEqual(events[0].type, "message_start")
            self.assertEqual(events[-1].type, "message_stop")

    def test_a_late_error_is_one(self):
        with self.assertRaises(anthropic.APIError) as raised:
            with self.client.messages.stream(model=HANG, max_tokens=9, messages=PROMPT) as stream:
                list(stream)
        self.assertIn("did not begin to answer", str(raised.exception))


class OpenAI(unittest.TestCase):
    def setUp(self):
        self.client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)

    def test_signs_of_life_are_no_part_of_a_chat(self):
        for model in (SLOW, f"anthropic/{SLOW}"):
            chunks = self.client.chat.completions.create(model=model, messages=PROMPT, stream=True)
            told = [chunk.choices[0].delta.content or "" for chunk in chunks]
            self.assertEqual("".join(told), TEXT)

    def test_signs_of_life_are_no_part_of_a_response(self):
        for model in (SLOW, f"anthropic/{SLOW}"):
            with self.client.responses.stream(model=model, input="Hi") as stream:
                events = list(stream)
                self.assertEqual(stream.get_final_response().output_text, TEXT)
            self.assertEqual(events[0].type, "response.created")

    def test_a_late_error_is_one(self):
        with self.assertRaises(openai.APIError) as raised:
            list(self.client.chat.completions.create(model=HANG, messages=PROMPT, stream=True))
        self.assertIn("did not begin to answer", str(raised.exception))
        events = list(self.client.responses.create(model=HANG, input="Hi", stream=True))
        self.assertEqual(events[-1].type, "error")
        self.assertIn("did not begin to answer", events[-1].message)


if __name__ == "__main__":
    unittest.main()
