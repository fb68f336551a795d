// Every page, in both themes and on both sizes: it shows what there is, without an error, wide as its window, and
// without what keeps people out.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { SIZES, THEMES } from './browsing.mjs';
import { addresses } from './addresses.mjs';

const table = readFileSync(new URL('../src/lib/pages.ts', import.meta.url), 'utf8');

const tests = {
  'every page of the table is looked at': async ({ server }) => {
    const all = await addresses(server);
    const patterns = [...table.matchAll(/path: \/(.+?)\/, (?:at|name):/g)].map(([, pattern]) => new RegExp(pattern));
    assert.ok(patterns.length > 10, 'the table of pages is read');
    const missed = patterns.filter((pattern) => pattern.source !== '^' && !all.some(({ path }) => pattern.test(path.split('?')[0])));
    assert.deepEqual(missed, [], 'pages that e2e/addresses.mjs has no address of');
  },
};

/** Those of the README, in docs/images. */
const PICTURES = ['overview', 'issue'];

tests['the pictures of the README are small'] = async (browsing) => {
  const tab = await browsing.tab();
  const all = await addresses(browsing.server);
  for (const { name, path } of all.filter((one) => PICTURES.includes(one.name))) {
    await tab.go(path);
    const bytes = await tab.picture(name);
    assert.ok(bytes > 10_000 && bytes < 150_000, `${name}: ${bytes} bytes`);
  }
};

for (const theme of THEMES) {
  for (const size of Object.keys(SIZES)) {
    tests[`each page in ${theme} on the ${size}`] = async (browsing) => {
      const tab = await browsing.tab({ theme, size });
      const problems = [];
      for (const { name, path, shows } of await addresses(browsing.server)) {
        const step = async (what, check) => {
          try {
            await check();
          } catch (error) {
            problems.push(`${name} ${path}: ${what}: ${error.message}`);
          }
        };
        tab.faults = [];
        await step('opens', () => tab.go(path));
        for (const text of shows ?? []) await step(`shows ${text}`, () => tab.seen(text));
        await step('fits', () => tab.fits());
        await step('is accessible', () => tab.accessible());
        await step('has no fault', () => tab.clean());
        await tab.screenshot(name);
      }
      tab.faults = [];
      assert.ok(problems.length === 0, `\n${problems.join('\n')}`);
    };
  }
}

export default tests;
