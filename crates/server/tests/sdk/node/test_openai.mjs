// The official OpenAI SDK for Node against Loom: `LOOM_URL=… LOOM_KEY=… LOOM_NODE_SDKS=… node test_openai.mjs`.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  all, BEFORE_BREAK, caught, CITIES, errorOf, GPT, KEY, OpenAI, OPTIONS, OUTPUT_CALL, OWN_TOKEN, OUTPUT_TEXT, OUTPUT_THINKING,
  PARALLEL, PIXEL, PROMPT, SCHEMA, SPLIT, STATUSES, TEXT, THINKING, URL,
} from "./common.mjs";

const TOOL = { type: "function", function: { name: "weather", parameters: SCHEMA } };
const RESPONSES_TOOL = { type: "function", name: "weather", parameters: SCHEMA, strict: false };

const said = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");

for (const path of ["/v1", "/openai/v1"]) {
  describe(path, { concurrency: true }, () => {
    const client = new OpenAI({ apiKey: KEY, baseURL: URL + path, ...OPTIONS, defaultHeaders: OWN_TOKEN });
    const stranger = new OpenAI({ apiKey: "loom-wrong-key", baseURL: URL + path, ...OPTIONS, defaultHeaders: OWN_TOKEN });
    const chat = (more) => client.chat.completions.create({ model: GPT, messages: PROMPT, ...more });

    test("chat", async () => {
      const answer = await chat();
      assert.equal(answer.choices[0].message.content, TEXT);
      assert.equal(answer.choices[0].finish_reason, "stop");
      assert.equal(answer.usage.prompt_tokens, 1000);
      assert.equal(answer.usage.prompt_tokens_details.cached_tokens, 400);
      assert.equal(answer.usage.completion_tokens, OUTPUT_TEXT);
      assert.ok(answer._request_id);
    });

    test("chat, streamed", async () => {
      const without = await all(chat({ stream: true }));
      assert.equal(said(without), TEXT);
      assert.ok(without.every((chunk) => chunk.choices.length && !chunk.usage));
      const chunks = await all(chat({ stream: true, stream_options: { include_usage: true } }));
      assert.equal(said(chunks), TEXT);
      assert.deepEqual(chunks.at(-1).choices, []);
      assert.equal(chunks.at(-1).usage.total_tokens, 1000 + OUTPUT_TEXT);
    });

    test("characters over several chunks", async () => {
      assert.equal(said(await all(chat({ model: "mock-split-utf8", stream: true }))), SPLIT);
    });

    test("a tool, its result, and an image", async () => {
      const { message } = (await chat({ tools: [TOOL] })).choices[0];
      const [call] = message.tool_calls;
      assert.deepEqual(JSON.parse(call.function.arguments), { city: "Zürich" });
      const result = { role: "tool", tool_call_id: call.id, content: "rain" };
      const image = { type: "image_url", image_url: { url: `data:image/png;base64,${PIXEL}` } };
      const look = { role: "user", content: [{ type: "text", text: "Look" }, image] };
      for (const messages of [[...PROMPT, message, result], [look]]) {
        const answer = await chat(messages.length > 1 ? { messages, tools: [TOOL] } : { messages });
        assert.equal(answer.choices[0].message.content, TEXT);
      }
    });

    test("parallel tools, whole and streamed", async () => {
      const asked = { model: GPT, messages: PARALLEL, tools: [TOOL] };
      const answer = await client.chat.completions.create(asked);
      assert.equal(answer.usage.completion_tokens, 2 * OUTPUT_CALL);
      const streamed = await client.chat.completions.stream(asked).finalChatCompletion();
      for (const { choices } of [answer, streamed]) {
        assert.equal(choices[0].finish_reason, "tool_calls");
        const calls = choices[0].message.tool_calls;
        assert.deepEqual(calls.map((call) => JSON.parse(call.function.arguments).city), CITIES);
      }
    });

    test("responses", async () => {
      const answer = await client.responses.create({ model: GPT, input: "Hi", reasoning: { effort: "low" } });
      assert.equal(answer.output_text, TEXT);
      assert.equal(answer.output[0].summary[0].text, THINKING);
      assert.equal(answer.usage.output_tokens_details.reasoning_tokens, OUTPUT_THINKING);
      const image = { type: "input_image", image_url: `data:image/png;base64,${PIXEL}`, detail: "auto" };
      const input = [{ role: "user", content: [{ type: "input_text", text: "Look" }, image] }];
      assert.equal((await client.responses.create({ model: GPT, input })).output_text, TEXT);
    });

    test("responses, streamed, and with parallel tools", async () => {
      const events = await all(client.responses.create({ model: GPT, input: "Hi", stream: true }));
      assert.equal(events[0].type, "response.created");
      assert.equal(events.at(-1).type, "response.completed");
      assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
      const deltas = events.filter((event) => event.type === "response.output_text.delta");
      assert.equal(deltas.map((event) => event.delta).join(""), TEXT);
      const asked = { model: GPT, input: PARALLEL, tools: [RESPONSES_TOOL] };
      const answer = await client.responses.stream(asked).finalResponse();
      assert.deepEqual(answer.output.map((item) => JSON.parse(item.arguments).city), CITIES);
    });

    test("embeddings and models", async () => {
      const asked = { model: "text-embedding-3-small", input: ["a", "b"], dimensions: 4 };
      const made = await client.embeddings.create(asked);
      assert.deepEqual(made.data[1].embedding.slice(0, 2), [2, 1]);
      const ids = (await all(client.models.list())).map((model) => model.id);
      assert.ok(ids.includes(GPT));
      assert.equal((await client.models.retrieve(GPT)).id, GPT);
      assert.ok((await caught(client.models.retrieve("no-such-model"))) instanceof OpenAI.NotFoundError);
    });

    test("each error has its class", async () => {
      for (const status of STATUSES) {
        for (const stream of [false, true]) {
          const error = await caught(chat({ model: `mock-error-${status}`, stream }));
          assert.ok(error instanceof errorOf(OpenAI, status), `${status}: ${error.constructor.name}`);
          assert.equal(error.status, status);
          assert.ok(error.error.message);
          if (status === 429) assert.equal(error.headers.get("retry-after"), "17");
        }
      }
      const error = await caught(chat({ model: "mock-insufficient-quota" }));
      assert.equal(error.code, "insufficient_quota");
    });

    test("an error in the stream", async () => {
      const chunks = [];
      const error = await caught((async () => {
        for await (const chunk of await chat({ model: "mock-midstream-error", stream: true })) chunks.push(chunk);
      })());
      assert.equal(said(chunks), BEFORE_BREAK);
      assert.ok(error instanceof OpenAI.APIError && !(error instanceof OpenAI.APIConnectionError), error);
      assert.equal(error.type, "server_error");
      for (const model of ["mock-reset", "mock-close"]) {
        assert.ok((await caught(all(chat({ model, stream: true })))) instanceof OpenAI.APIError);
      }
    });

    test("a wrong key", async () => {
      const calls = [
        () => stranger.chat.completions.create({ model: GPT, messages: PROMPT }),
        () => stranger.responses.create({ model: GPT, input: "Hi" }),
        () => stranger.models.list(),
      ];
      for (const call of calls) assert.ok((await caught(call())) instanceof OpenAI.AuthenticationError);
    });

    test("a client that leaves", async () => {
      for await (const chunk of await chat({ model: "mock-paced-20", stream: true })) {
        if (said([chunk])) break;
      }
      assert.equal((await chat()).choices[0].message.content, TEXT);
    });

    test("a request that is sent again under the same key", async () => {
      const sent = (content) => client.chat.completions
        .create({ model: GPT, messages: [{ role: "user", content }] }, { headers: { "idempotency-key": `node${path}` } })
        .withResponse();
      const first = await sent("Hi");
      const again = await sent("Hi");
      assert.equal(again.data.id, first.data.id);
      assert.equal(again.response.headers.get("x-loom-idempotent-replay"), "true");
      assert.ok((await caught(sent("Something else"))) instanceof OpenAI.UnprocessableEntityError);
    });
  });
}
