// What the scripts share: the SDKs, where the server is, and what its upstream, the mock, says. As common.py.

import { createRequire } from "node:module";
import { join } from "node:path";

// They are installed elsewhere than these scripts lie.
const require = createRequire(join(process.env.LOOM_NODE_SDKS, "package.json"));
export const OpenAI = require("openai");
export const Anthropic = require("@anthropic-ai/sdk");

export const URL = process.env.LOOM_URL.replace(/\/+$/, "");
export const KEY = process.env.LOOM_KEY;

export const CLAUDE = "claude-sonnet-4-5-20250929";
export const GPT = "gpt-4o";
export const OTHER = "other/m";
export const PROMPT = [{ role: "user", content: "Hi" }];
export const PARALLEL = [{ role: "user", content: "The weather in two places, in parallel" }];
export const CITIES = ["Zürich", "東京"];
export const PIXEL = Buffer.from("\x89PNG\r\n\x1a\n", "latin1").toString("base64");
export const TEXT = "Hello from the mock, grüß dich 👋 – done.";
export const BEFORE_BREAK = "Hello from the";
export const SPLIT = "żółć 日本語 👩‍🚀👋 ende";
export const THINKING = "Let me think about it.";
export const SIGNATURE = "EqQBCgIYAhIkbW9jay1zaWduYXR1cmUvd2l0aCtiYXNlNjQ9PQ==";
export const [OUTPUT_TEXT, OUTPUT_CALL, OUTPUT_THINKING] = [40, 60, 80];
export const SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
export const STATUSES = [400, 401, 403, 404, 413, 422, 429, 500, 503, 529];
/** By which the upstream is asked: the server's own would rest, or be disabled, after the errors that are made. */
export const OWN_TOKEN = { "x-loom-provider-token": process.env.LOOM_PROVIDER_TOKEN };
export const OPTIONS = { maxRetries: 0, timeout: 30_000 };

/** The class of an error with this status; both vendors' SDKs name them alike. */
export function errorOf(sdk, status) {
  const classes = {
    400: sdk.BadRequestError,
    401: sdk.AuthenticationError,
    403: sdk.PermissionDeniedError,
    404: sdk.NotFoundError,
    413: sdk.APIError,
    422: sdk.UnprocessableEntityError,
    429: sdk.RateLimitError,
  };
  return classes[status] ?? sdk.InternalServerError;
}

export async function all(stream) {
  const events = [];
  for await (const event of await stream) events.push(event);
  return events;
}

/** The error that a promise is rejected with. */
export async function caught(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}
