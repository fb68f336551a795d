// Jobs that report with the cron helpers of the SDK for Node. The DSN is the argument.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const load = createRequire(pathToFileURL(`${process.env.LOOM_NODE_SDKS}/`));
const Sentry = load("@sentry/node");

Sentry.init({ dsn: process.argv[2], release: "shop@1.2.3", environment: "production", tracesSampleRate: 1 });

const config = {
  schedule: { type: "crontab", value: "30 2 * * *" },
  timezone: "Europe/Berlin",
  checkinMargin: 10,
  maxRuntime: 60,
  failureIssueThreshold: 2,
  recoveryThreshold: 3,
};
Sentry.withMonitor("simple", () => 7, config);
await Sentry.withMonitor("asynchronous", async () => {}, { schedule: { type: "interval", value: 2, unit: "hour" } });
try {
  Sentry.withMonitor("failing", () => { throw new Error("the disk is full"); }, config);
} catch (error) {
  Sentry.captureException(error);
}

// A scheduler of the shape of each of the three that the SDK knows, which runs its jobs at once.
const running = [];
const now = (job) => running.push(job());
const nodeCron = Sentry.cron.instrumentNodeCron({ schedule: (_expression, job, _options) => now(job) });
nodeCron.schedule("15 3 * jan mon", async () => {}, { name: "node-cron", timezone: "Europe/Berlin" });
const nodeSchedule = Sentry.cron.instrumentNodeSchedule({ scheduleJob: (_name, _expression, job) => now(job) });
nodeSchedule.scheduleJob("node-schedule", "0 4 * * *", async () => {});
class CronJob {
  constructor(_time, onTick) { now(onTick); }
  static from({ onTick }) { now(onTick); }
}
const Job = Sentry.cron.instrumentCron(CronJob, "cron");
new Job("*/30 * * * *", async () => {}, null, false, "Europe/London");
await Promise.allSettled(running);
await Sentry.flush(10_000);
await Sentry.close(10_000);
