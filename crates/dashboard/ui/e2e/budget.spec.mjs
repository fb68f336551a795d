// What a first visit costs, and that long lists stay light. Sizes are judged; times are told, and judged strictly with
// LOOM_E2E_STRICT=true.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

import { within } from './browsing.mjs';

const DIST = new URL('../dist/', import.meta.url);
const MOST_BYTES = 150 * 1024;
const MOST_LINES = 10_000;
const SLOWEST_PAINT = 1000;
/** In milliseconds, of 60 a second with a little room. */
const LONGEST_FRAME = 20;

/** The scripts that the page loads before anything else: its entry, and what that imports at once. */
function firstScripts() {
  const page = readFileSync(new URL('index.html', DIST), 'utf8');
  const found = new Set();
  const waiting = [...page.matchAll(/(?:src|href)="\/(assets\/[^"]+\.js)"/g)].map(([, path]) => path);
  while (waiting.length > 0) {
    const path = waiting.pop();
    if (found.has(path)) continue;
    found.add(path);
    const script = readFileSync(new URL(path, DIST), 'utf8');
    // Not what comes later: `import('./x.js')`.
    for (const [, file] of script.matchAll(/(?:from|import)\s*"\.\/([^"]+\.js)"/g)) waiting.push(`assets/${file}`);
  }
  return [...found];
}

export default {
  'the scripts of the first load are small': async () => {
    const scripts = firstScripts();
    assert.ok(scripts.length > 0, 'the page has a script');
    const sizes = scripts.map((path) => gzipSync(readFileSync(new URL(path, DIST)), { level: 9 }).length);
    const sum = sizes.reduce((one, other) => one + other, 0);
    console.log(`        ${(sum / 1024).toFixed(1)} KiB gzipped in ${scripts.length} scripts`);
    assert.ok(sum <= MOST_BYTES, `${sum} bytes of ${MOST_BYTES}: ${scripts.join(', ')}`);
  },

  'what a page loads is small too': async (browsing) => {
    for (const path of ['/', '/crashes', '/llm', '/threads']) {
      const tab = await browsing.tab();
      const session = await tab.page.context().newCDPSession(tab.page);
      let bytes = 0;
      const scripts = new Set();
      await session.send('Network.enable');
      session.on('Network.responseReceived', ({ requestId, type }) => { if (type === 'Script') scripts.add(requestId); });
      session.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => { if (scripts.has(requestId)) bytes += encodedDataLength; });
      await tab.go(path);
      console.log(`        ${path}: ${(bytes / 1024).toFixed(1)} KiB of ${scripts.size} scripts over the wire`);
      assert.ok(bytes > 0 && bytes <= MOST_BYTES, `${path}: ${bytes} bytes of ${MOST_BYTES}`);
    }
  },

  'the first paint on a slow machine': async (browsing) => {
    await within(SLOWEST_PAINT, async () => {
      const tab = await browsing.tab();
      const session = await tab.page.context().newCDPSession(tab.page);
      await session.send('Emulation.setCPUThrottlingRate', { rate: 4 });
      await tab.go('/');
      const { paint, largest } = await tab.page.evaluate(() => new Promise((done) => {
        const paint = performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0;
        new PerformanceObserver((list) => done({ paint, largest: list.getEntries().at(-1)?.startTime ?? 0 }))
          .observe({ type: 'largest-contentful-paint', buffered: true });
      }));
      console.log(`        first paint ${Math.round(paint)} ms, largest ${Math.round(largest)} ms, with a processor four times as slow`);
      assert.ok(paint > 0);
      return paint;
    });
  },

  'ten thousand lines of the log': async (browsing) => {
    const tab = await browsing.tab();
    const entries = Array.from({ length: MOST_LINES }, (_, n) => ({
      id: String(n + 1), timestamp: new Date(Date.now() - (MOST_LINES - n) * 10).toISOString(), level: n % 97 ? 'info' : 'error',
      target: 'loom_server::layers', message: `line ${n + 1}`, fields: { status: 200, duration_ms: n % 40 }, replica: 'a', request_id: null,
    }));
    await tab.page.route(/\/api\/admin\/logs(\?|$)/, (route) => route.fulfill({ json: { entries, last_id: null, next_cursor: null } }));
    await tab.go('/logs');
    await tab.seen(`line ${MOST_LINES}`);
    const scroll = () => tab.page.evaluate(async () => {
      const view = document.querySelector('[role=log]');
      let rows = 0;
      const pauses = [];
      let last = performance.now();
      for (let n = 0; n < 120; n += 1) {
        view.scrollTop = view.scrollHeight * (1 - n / 120);
        await new Promise((next) => requestAnimationFrame(next));
        rows = Math.max(rows, view.querySelectorAll('button').length);
        pauses.push(performance.now() - last);
        last = performance.now();
      }
      return { rows, frame: pauses.reduce((a, b) => a + b) / pauses.length, longest: Math.max(...pauses) };
    });
    await within(LONGEST_FRAME, async () => {
      const { rows, frame, longest } = await scroll();
      console.log(`        ${rows} rows in the page at most, ${(1000 / frame).toFixed(0)} frames a second, the longest ${longest.toFixed(0)} ms`);
      assert.ok(rows > 10 && rows < 150, `${rows} rows are in the page`);
      return frame;
    });
    await tab.page.locator('[role=log]').evaluate((view) => { view.scrollTop = 0; });
    await tab.seen('line 1');
  },
};
