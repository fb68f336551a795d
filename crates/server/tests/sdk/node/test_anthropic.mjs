// The official Anthropic SDK for Node against Loom: `LOOM_URL=… LOOM_KEY=… LOOM_NODE_SDKS=… node test_anthropic.mjs`.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  all, Anthropic, BEFORE_BREAK, caught, CITIES, CLAUDE, errorOf, KEY, OPTIONS, OUTPUT_CALL, OWN_TOKEN, OUTPUT_TEXT,
  OUTPUT_THINKING, PARALLEL, PIXEL, PROMPT, SCHEMA, SIGNATURE, SPLIT, STATUSES, TEXT, THINKING, URL,
} from "./common.mjs";

const TOOL = { name: "weather", description: "The weather somewhere", input_schema: SCHEMA };
const KINDS = {
  400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
  413: "request_too_large", 422: "invalid_request_error", 429: "rate_limit_error", 500: "api_error", 503: "api_error",
  529: "overloaded_error",
};

const text = (event) => (event.delta?.type === "text_delta" ? event.delta.text : "");
const said = (events) => events.map(text).join("");

for (const path of ["", "/anthropic"]) {
  describe(path || "/", { concurrency: true }, () => {
    const baseURL = URL + path;
    const client = new Anthropic({ apiKey: KEY, baseURL, ...OPTIONS, defaultHeaders: OWN_TOKEN });
    const bearer = new Anthropic({ apiKey: null, authToken: KEY, baseURL, ...OPTIONS, defaultHeaders: OWN_TOKEN });
    const stranger = new Anthropic({ apiKey: "loom-wrong-key", baseURL, ...OPTIONS, defaultHeaders: OWN_TOKEN });
    const asked = (more) => ({ model: CLAUDE, messages: PROMPT, max_tokens: 4096, ...more });
    const create = (more) => client.messages.create(asked(more));

    test("messages", async () => {
      for (const by of [client, bearer]) {
        const answer = await by.messages.create(asked());
        assert.equal(answer.content[0].text, TEXT);
        assert.equal(answer.stop_reason, "end_turn");
        assert.equal(answer.usage.input_tokens, 1200);
        assert.equal(answer.usage.cache_read_input_tokens, 4000);
        assert.equal(answer.usage.output_tokens, OUTPUT_TEXT);
        assert.ok(answer._request_id);
      }
    });

    test("messages, streamed", async () => {
      const events = await all(create({ stream: true }));
      assert.equal(events[0].type, "message_start");
      assert.equal(events.at(-1).type, "message_stop");
      assert.equal(said(events), TEXT);
      const answer = await client.messages.stream(asked()).finalMessage();
      assert.equal(answer.content[0].text, TEXT);
      assert.equal(said(await all(create({ model: "mock-split-utf8", stream: true }))), SPLIT);
    });

    test("a tool, its result, an image and a document", async () => {
      const answer = await create({ tools: [TOOL] });
      const call = answer.content.find((block) => block.type === "tool_use");
      assert.deepEqual(call.input, { city: "Zürich" });
      const source = (media_type, data) => ({ type: "base64", media_type, data });
      const messages = [
        ...PROMPT,
        { role: "assistant", content: answer.content },
        { role: "user", content: [
          { type: "tool_result", tool_use_id: call.id, content: "rain" },
          { type: "image", source: source("image/png", PIXEL) },
          { type: "document", source: source("application/pdf", "JVBERi0=") },
        ] },
      ];
      assert.equal((await create({ messages, tools: [TOOL] })).content[0].text, TEXT);
    });

    test("parallel tools, whole and streamed", async () => {
      const more = { messages: PARALLEL, tools: [TOOL] };
      const answer = await create(more);
      assert.equal(answer.usage.output_tokens, 2 * OUTPUT_CALL);
      const streamed = await client.messages.stream(asked(more)).finalMessage();
      for (const { content } of [answer, streamed]) {
        const calls = content.filter((block) => block.type === "tool_use");
        assert.deepEqual(calls.map((call) => call.input.city), CITIES);
      }
    });

    test("thinking", async () => {
      const thinking = { type: "enabled", budget_tokens: 1024 };
      const streamed = await client.messages.stream(asked({ thinking })).finalMessage();
      for (const { content, usage } of [await create({ thinking }), streamed]) {
        assert.deepEqual([content[0].thinking, content[0].signature], [THINKING, SIGNATURE]);
        assert.equal(content[1].text, TEXT);
        assert.equal(usage.output_tokens, OUTPUT_TEXT + OUTPUT_THINKING);
      }
    });

    test("counts and models", async () => {
      const count = await client.messages.countTokens({ model: CLAUDE, messages: PROMPT });
      assert.equal(count.input_tokens, 5700);
      const ids = (await all(client.models.list())).map((model) => model.id);
      assert.ok(ids.includes(CLAUDE));
      assert.equal((await client.models.retrieve(CLAUDE)).id, CLAUDE);
      const error = await caught(client.models.retrieve("no-such-model"));
      assert.ok(error instanceof Anthropic.NotFoundError);
    });

    test("each error has its class", async () => {
      for (const status of STATUSES) {
        for (const stream of [false, true]) {
          const error = await caught(create({ model: `mock-error-${status}`, stream }));
          assert.ok(error instanceof errorOf(Anthropic, status), `${status}: ${error.constructor.name}`);
          assert.equal(error.status, status);
          assert.equal(error.error.error.type, KINDS[status]);
          assert.ok(error.requestID);
          if (status === 429) assert.equal(error.headers.get("retry-after"), "17");
        }
      }
    });

    test("an error in the stream", async () => {
      const events = [];
      const error = await caught((async () => {
        for await (const event of await create({ model: "mock-midstream-error", stream: true })) events.push(event);
      })());
      assert.equal(said(events), BEFORE_BREAK);
      assert.ok(error instanceof Anthropic.APIError, error);
      for (const model of ["mock-reset", "mock-close"]) {
        assert.ok((await caught(all(create({ model, stream: true })))) instanceof Error);
      }
    });

    test("a wrong key", async () => {
      const calls = [
        () => stranger.messages.create(asked()),
        () => stranger.messages.countTokens({ model: CLAUDE, messages: PROMPT }),
        () => stranger.models.list(),
      ];
      for (const call of calls) assert.ok((await caught(call())) instanceof Anthropic.AuthenticationError);
    });

    test("a client that leaves", async () => {
      for await (const event of await create({ model: "mock-paced-20", stream: true })) {
        if (text(event)) break;
      }
      assert.equal((await create()).content[0].text, TEXT);
    });
  });
}
