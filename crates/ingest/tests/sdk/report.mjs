// An application that reports with the SDK for Node. Its DSN is the argument.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const load = createRequire(pathToFileURL(`${process.env.LOOM_NODE_SDKS}/`));
const Sentry = load("@sentry/node");

Sentry.init({
  dsn: process.argv[2],
  release: "shop@1.2.3",
  environment: "test",
  tracesSampleRate: 1,
});
Sentry.setTag("flavour", "node");
Sentry.startSession();
const small = Sentry.captureException(new TypeError("small"));
// Above 32 KiB this SDK compresses.
const large = Sentry.captureMessage("large", { extra: { text: "x".repeat(40_000) } });
Sentry.startSpan({ name: "work" }, () => {});
Sentry.captureCheckIn({ monitorSlug: "nightly", status: "ok", duration: 2 });
Sentry.captureFeedback({ message: "It broke", name: "Ada", email: "ada@example.com", associatedEventId: small });
Sentry.endSession();
await Sentry.flush(10_000);
console.log(`${small} ${large}`);
await Sentry.close(10_000);
