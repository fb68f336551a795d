"""Limits as the official SDKs see them: `LOOM_URL=… LOOM_KEY=… python -m unittest test_limits`."""

import json
import unittest
import urllib.request

import anthropic
import openai

from common import KEY, URL

PROMPT = [{"role": "user", "content": "Hi"}]
CLAUDE, GPT = "claude-sonnet-4-5", "gpt-4o"


class Limits(unittest.TestCase):
    def setUp(self):
        self.org = json.loads(self.call("GET", "/auth/me"))["org_id"]
        self.openai = openai.OpenAI(api_key=KEY, base_url=URL + "/v1", max_retries=2, timeout=30)
        self.anthropic = anthropic.Anthropic(api_key=KEY, base_url=URL, max_retries=0, timeout=30)
        self.addCleanup(self.openai.close)
        self.addCleanup(self.anthropic.close)

    def call(self, method, path, body=None):
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(URL + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def limit(self, subject, **caps):
        self.call("PUT", f"/api/orgs/{self.org}/llm/limits/model/{subject}", caps)
        self.addCleanup(self.call, "DELETE", f"/api/orgs/{self.org}/llm/limits/model/{subject}")

    def chat(self, **more):
        return self.openai.chat.completions.create(model=GPT, messages=PROMPT, max_tokens=10, **more)

    def message(self):
        return self.anthropic.messages.create(model=CLAUDE, messages=PROMPT, max_tokens=10)

    def test_openai_rate(self):
        self.limit("gpt-*", requests_per_minute=1, tokens_per_minute=1_000_000)
        answer = self.openai.chat.completions.with_raw_response.create(
            model=GPT, messages=PROMPT, max_tokens=10
        )
        self.assertEqual(answer.headers["x-ratelimit-limit-requests"], "1")
        self.assertEqual(answer.headers["x-ratelimit-remaining-requests"], "0")
        self.assertRegex(answer.headers["x-ratelimit-reset-requests"], r"^(\d+m)?[\d.]+m?s$")
        self.assertEqual(answer.headers["x-ratelimit-limit-tokens"], "1000000")
        self.assertLess(int(answer.headers["x-ratelimit-remaining-tokens"]), 1_000_000)
        patient = self.openai.with_options(max_retries=0)
        for stream in (False, True):
            with self.assertRaises(openai.RateLimitError) as raised:
                patient.chat.completions.create(model=GPT, messages=PROMPT, stream=stream)
            self.assertEqual(raised.exception.code, "rate_limit_exceeded")
            self.assertIn("1 requests per minute", raised.exception.message)
            headers = raised.exception.response.headers
            self.assertTrue(1 <= int(headers["retry-after"]) <= 60)
            self.assertEqual(headers["x-ratelimit-remaining-requests"], "0")

    def test_openai_budget(self):
        self.limit("gpt-*", usd_per_day=0)
        # Trying again changes nothing, and the SDK is told so.
        with self.assertRaises(openai.RateLimitError) as raised:
            self.chat()
        self.assertEqual(raised.exception.code, "insufficient_quota")
        self.assertEqual(raised.exception.response.headers["x-should-retry"], "false")
        self.assertTrue(1 <= int(raised.exception.response.headers["retry-after"]) <= 86400)

    def test_anthropic_rate(self):
        self.limit("claude-*", requests_per_minute=1)
        answer = self.anthropic.messages.with_raw_response.create(
            model=CLAUDE, messages=PROMPT, max_tokens=10
        )
        self.assertEqual(answer.headers["anthropic-ratelimit-requests-limit"], "1")
        self.assertEqual(answer.headers["anthropic-ratelimit-requests-remaining"], "0")
        self.assertRegex(answer.headers["anthropic-ratelimit-requests-reset"], r"^\d{4}-.*Z$")
        with self.assertRaises(anthropic.RateLimitError) as raised:
            self.message()
        self.assertEqual(raised.exception.body["error"]["type"], "rate_limit_error")
        headers = raised.exception.response.headers
        self.assertTrue(1 <= int(headers["retry-after"]) <= 60)
        self.assertEqual(headers["anthropic-ratelimit-requests-remaining"], "0")

    def test_anthropic_budget(self):
        self.limit("claude-*", usd_per_month=0)
        with self.assertRaises(anthropic.RateLimitError) as raised:
            self.message()
        self.assertIn("US dollars per month", raised.exception.message)


if __name__ == "__main__":
    unittest.main()
