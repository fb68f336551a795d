// Both official SDKs for Node against Loom, each with models of providers that speak another wire. The provider
// `other` only knows chat.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  all, Anthropic, caught, CITIES, CLAUDE, GPT, KEY, OpenAI, OPTIONS, OTHER, OUTPUT_TEXT, OWN_TOKEN, PARALLEL, PIXEL, PROMPT,
  SCHEMA, SIGNATURE, TEXT, THINKING, URL,
} from "./common.mjs";

const openai = new OpenAI({ apiKey: KEY, baseURL: `${URL}/v1`, ...OPTIONS });
const anthropic = new Anthropic({ apiKey: KEY, baseURL: URL, ...OPTIONS });

describe("chat with Claude", { concurrency: true }, () => {
  const tools = [{ type: "function", function: { name: "weather", parameters: SCHEMA } }];
  const asked = (more) => ({ model: CLAUDE, messages: PROMPT, ...more });
  const chat = (more, options) => openai.chat.completions.create(asked(more), options);

  test("whole and streamed", async () => {
    const answer = await chat();
    assert.equal(answer.choices[0].message.content, TEXT);
    assert.equal(answer.usage.completion_tokens, OUTPUT_TEXT);
    const chunks = await all(chat({ stream: true, stream_options: { include_usage: true } }));
    assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), TEXT);
    assert.equal(chunks.at(-1).usage.completion_tokens, OUTPUT_TEXT);
  });

  test("parallel tools and their results", async () => {
    const more = { messages: PARALLEL, tools };
    const streamed = await openai.chat.completions.stream(asked(more)).finalChatCompletion();
    for (const { choices: [{ message, finish_reason }] } of [await chat(more), streamed]) {
      assert.equal(finish_reason, "tool_calls");
      const calls = message.tool_calls;
      assert.deepEqual(calls.map((call) => JSON.parse(call.function.arguments).city), CITIES);
      const results = calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: "rain" }));
      const answer = await chat({ messages: [...PARALLEL, message, ...results], tools });
      assert.equal(answer.choices[0].message.content, TEXT);
    }
  });

  test("an image and thinking", async () => {
    const image = { type: "image_url", image_url: { url: `data:image/png;base64,${PIXEL}` } };
    const content = [{ type: "text", text: "Look" }, image];
    const answer = await chat({ messages: [{ role: "user", content }] });
    assert.equal(answer.choices[0].message.content, TEXT);
    const { message } = (await chat({ reasoning_effort: "low" })).choices[0];
    assert.equal(message.reasoning_content, THINKING);
    assert.equal(message.reasoning_details[0].signature, SIGNATURE);
  });

  test("errors", async () => {
    const refused = await caught(chat({ logit_bias: { 50256: -100 } }));
    assert.ok(refused instanceof OpenAI.BadRequestError);
    assert.equal(refused.param, "logit_bias");
    const limited = await caught(chat({ model: "anthropic/mock-error-429" }, { headers: OWN_TOKEN }));
    assert.ok(limited instanceof OpenAI.RateLimitError);
    assert.equal(limited.headers.get("retry-after"), "17");
    const broken = await caught(all(chat({ model: "anthropic/mock-midstream-error", stream: true })));
    assert.ok(broken instanceof OpenAI.APIError, broken);
  });
});

for (const model of [CLAUDE, OTHER]) {
  describe(`responses with ${model}`, { concurrency: true }, () => {
    const tools = [{ type: "function", name: "weather", parameters: SCHEMA, strict: false }];

    test("whole and streamed", async () => {
      const asked = { model, input: "Hi", instructions: "Be short." };
      const streamed = await openai.responses.stream(asked).finalResponse();
      for (const answer of [await openai.responses.create(asked), streamed]) {
        assert.equal(answer.output_text, TEXT);
        assert.equal(answer.usage.output_tokens, OUTPUT_TEXT);
      }
      const events = await all(openai.responses.create({ ...asked, stream: true }));
      assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
      assert.equal(events.at(-1).type, "response.completed");
    });

    test("parallel tools, their results, and an image", async () => {
      const asked = { model, input: PARALLEL, tools };
      const streamed = await openai.responses.stream(asked).finalResponse();
      for (const { output } of [await openai.responses.create(asked), streamed]) {
        const calls = output.filter((item) => item.type === "function_call");
        assert.deepEqual(calls.map((call) => JSON.parse(call.arguments).city), CITIES);
        const results = calls.map(({ call_id }) => ({ type: "function_call_output", call_id, output: "rain" }));
        const input = [...PARALLEL, ...calls, ...results];
        assert.equal((await openai.responses.create({ model, input, tools })).output_text, TEXT);
      }
      const image = { type: "input_image", image_url: `data:image/png;base64,${PIXEL}`, detail: "auto" };
      const input = [{ role: "user", content: [{ type: "input_text", text: "Look" }, image] }];
      assert.equal((await openai.responses.create({ model, input })).output_text, TEXT);
    });
  });
}

for (const model of [GPT, OTHER]) {
  describe(`messages with ${model}`, { concurrency: true }, () => {
    const tools = [{ name: "weather", input_schema: SCHEMA }];
    const asked = (more) => ({ model, messages: PROMPT, max_tokens: 4096, ...more });
    const create = (more, options) => anthropic.messages.create(asked(more), options);

    test("whole and streamed", async () => {
      const streamed = await anthropic.messages.stream(asked()).finalMessage();
      for (const answer of [await create(), streamed]) {
        assert.equal(answer.content[0].text, TEXT);
        assert.equal(answer.stop_reason, "end_turn");
        assert.equal(answer.usage.output_tokens, OUTPUT_TEXT);
      }
      const events = await all(create({ stream: true }));
      assert.deepEqual([events[0].type, events.at(-1).type], ["message_start", "message_stop"]);
    });

    test("parallel tools, their results, and an image", async () => {
      const more = { messages: PARALLEL, tools };
      const streamed = await anthropic.messages.stream(asked(more)).finalMessage();
      for (const { content } of [await create(more), streamed]) {
        const calls = content.filter((block) => block.type === "tool_use");
        assert.deepEqual(calls.map((call) => call.input.city), CITIES);
        const results = calls.map(({ id }) => ({ type: "tool_result", tool_use_id: id, content: "rain" }));
        const messages = [...PARALLEL, { role: "assistant", content }, { role: "user", content: results }];
        assert.equal((await create({ messages, tools })).content[0].text, TEXT);
      }
      const image = { type: "image", source: { type: "base64", media_type: "image/png", data: PIXEL } };
      const messages = [{ role: "user", content: [{ type: "text", text: "Look" }, image] }];
      assert.equal((await create({ messages })).content[0].text, TEXT);
    });

    test("errors", async () => {
      const refused = await caught(create({ top_k: 3 }));
      assert.ok(refused instanceof Anthropic.BadRequestError);
      assert.match(refused.message, /top_k/);
      const limited = await caught(create({ model: "openai/mock-error-429" }, { headers: OWN_TOKEN }));
      assert.ok(limited instanceof Anthropic.RateLimitError);
      assert.equal(limited.headers.get("retry-after"), "17");
      const broken = await caught(all(create({ model: "openai/mock-midstream-error", stream: true })));
      assert.ok(broken instanceof Anthropic.APIError, broken);
    });
  });
}
