// Runs the tests of one area in a real browser: `node e2e/run.mjs <area>`, see docs/contributing.md.
//
// LOOM_E2E_SERVER   the server's program, which is started (and ended) here; or
// LOOM_E2E_URL      a server in development mode that runs already
// LOOM_E2E_OUT      where screenshots go; LOOM_E2E_ONLY  part of the name of a test
import { mkdirSync } from 'node:fs';

import { chromium } from 'playwright-core';

import { Browsing, Skip } from './browsing.mjs';
import { chromiumProgram, serverOf } from './server.mjs';

const [area] = process.argv.slice(2);
if (!area) {
  console.error('usage: node e2e/run.mjs <area>, as `pages` for e2e/pages.spec.mjs');
  process.exit(2);
}
const tests = (await import(`./${area}.spec.mjs`)).default;
const out = process.env.LOOM_E2E_OUT ?? 'screenshots';
mkdirSync(out, { recursive: true });
const server = await serverOf();
const browser = await chromium.launch({
  executablePath: chromiumProgram(),
  // Root, as in most CI, has no sandbox.
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking'],
});
const failed = [];
try {
  for (const [name, test] of Object.entries(tests)) {
    if (process.env.LOOM_E2E_ONLY && !name.includes(process.env.LOOM_E2E_ONLY)) continue;
    const browsing = new Browsing(browser, server, out);
    const begun = performance.now();
    try {
      await test(browsing);
      await browsing.end();
      console.log(`ok      ${name} (${((performance.now() - begun) / 1000).toFixed(1)} s)`);
    } catch (error) {
      if (error instanceof Skip) {
        console.log(`skipped ${name}: ${error.message}`);
      } else {
        failed.push(name);
        console.log(`FAILED  ${name}\n${error.stack ?? error}\n`);
        await browsing.showFailure(`failed-${area}-${failed.length}`);
      }
      await browsing.close();
    }
  }
} finally {
  await browser.close();
  await server.stop();
}
if (failed.length > 0) {
  console.log(`${failed.length} failed: ${failed.join('; ')}\n${server.log().split('\n').slice(-30).join('\n')}`);
  process.exitCode = 1;
}
