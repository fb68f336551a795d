// What a test does with the browser: tabs of a signed-in user that note all that goes wrong in the page.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
/** How long something may take to be seen. */
export const PATIENCE = 15_000;
export const SIZES = { desktop: { width: 1360, height: 900 }, phone: { width: 390, height: 844 } };
export const THEMES = ['dark', 'light'];

/** How much more than its limit something may take: on a machine that does other things only what is badly wrong is judged. */
const SLACK = process.env.LOOM_E2E_STRICT === 'true' ? 1 : 20;

/** Judges the least that `measure` gives, of up to five times, by a limit in milliseconds. */
export async function within(limit, measure) {
  let best = Infinity;
  for (let turn = 0; turn < 5 && best > limit * SLACK; turn += 1) best = Math.min(best, await measure());
  assert.ok(best <= limit * SLACK, `${Math.round(best)} ms of ${limit * SLACK}`);
  return best;
}

/** Thrown by a test that has nothing to look at. */
export class Skip extends Error {}

export class Browsing {
  #contexts = [];
  #tabs = [];

  constructor(browser, server, out) {
    this.browser = browser;
    this.server = server;
    this.out = out;
  }

  /** A tab of a browser of its own, in the organisation of the demo data. */
  async tab({ theme = 'dark', size = 'desktop', organisation = this.server.organisation } = {}) {
    const context = await this.browser.newContext({
      viewport: SIZES[size], colorScheme: theme, reducedMotion: 'reduce', hasTouch: size === 'phone', permissions: ['clipboard-read', 'clipboard-write'],
    });
    this.#contexts.push(context);
    await context.addInitScript((chosen) => {
      if (chosen) localStorage.setItem('loom.org', chosen);
      document.addEventListener('securitypolicyviolation', (event) => {
        console.error(`CSP: ${event.effectiveDirective} forbids ${event.blockedURI || event.sample} (${event.sourceFile}:${event.lineNumber})`);
      });
    }, organisation);
    const tab = new Tab(await context.newPage(), this, `${theme}-${size}`);
    this.#tabs.push(tab);
    return tab;
  }

  /** Nothing may have gone wrong in any tab. */
  async end() {
    for (const tab of this.#tabs) tab.clean();
    await this.close();
  }

  async close() {
    for (const context of this.#contexts.splice(0)) await context.close().catch(() => {});
    this.#tabs = [];
  }

  async showFailure(name) {
    const tab = this.#tabs.at(-1);
    await tab?.page.screenshot({ path: join(this.out, `${name}.png`) }).catch(() => {});
    if (tab) console.log(`at ${tab.page.url()}; ${tab.faults.join('\n')}`);
  }
}

export class Tab {
  /** Errors of the console, exceptions, and what the policy forbade. */
  faults = [];
  /** Faults that a test brings about; and what the browser says of a server that is not well, which the page shows, and of
   *  this machine's own interfaces. */
  #expected = [/503 .*\/health\)$/, /ERR_NETWORK_CHANGED/];

  constructor(page, browsing, kind) {
    this.page = page;
    this.browsing = browsing;
    this.kind = kind;
    page.setDefaultTimeout(PATIENCE);
    page.on('pageerror', (error) => this.faults.push(`exception: ${error.message}`));
    page.on('console', (message) => {
      if (message.type() === 'error') this.faults.push(`console: ${message.text()} (${message.location().url})`);
    });
  }

  /** What matches will be no fault. */
  expect(pattern) {
    this.#expected.push(pattern);
  }

  clean() {
    const faults = this.faults.filter((fault) => !this.#expected.some((pattern) => pattern.test(fault)));
    assert.ok(faults.length === 0, `${this.page.url()}: ${faults.join('; ')}`);
  }

  /** Opens a page, and waits until it shows what it has. */
  async go(path) {
    await this.page.goto(this.browsing.server.url + path);
    await this.settled();
  }

  /** Until the page has its heading, and nothing on it says that it is still loading. */
  async settled() {
    await this.page.locator('main h1').first().waitFor();
    await this.page.waitForFunction(() => ![...document.querySelectorAll('main [role=status], main [aria-busy=true]')]
      .some((element) => element.getAttribute('aria-busy') === 'true' || /loading/i.test(element.textContent ?? '')));
  }

  /** Until a text is to be seen. */
  async seen(text) {
    const found = this.page.getByText(text).filter({ visible: true }).first();
    await found.waitFor({ state: 'visible' });
    return found;
  }

  text(selector = 'main') {
    return this.page.locator(selector).first().innerText();
  }

  /** Milliseconds until a text is there, after `act` was done. */
  async until(text, act) {
    const found = this.page.getByText(text).first().waitFor({ state: 'attached', timeout: PATIENCE }).then(() => performance.now());
    const begun = performance.now();
    await act();
    return Math.round((await found) - begun);
  }

  /** The same until a condition in the page holds. */
  async untilTrue(condition, argument, act) {
    const holds = this.page.waitForFunction(condition, argument, { timeout: PATIENCE }).then(() => performance.now());
    const begun = performance.now();
    await act();
    return Math.round((await holds) - begun);
  }

  async screenshot(name) {
    await this.page.screenshot({ path: join(this.browsing.out, `${name}-${this.kind}.png`) });
  }

  /** As WebP, which is a third as large. */
  async picture(name) {
    const session = await this.page.context().newCDPSession(this.page);
    const { data } = await session.send('Page.captureScreenshot', { format: 'webp', quality: 86 });
    const picture = Buffer.from(data, 'base64');
    writeFileSync(join(this.browsing.out, `${name}.webp`), picture);
    return picture.length;
  }

  /** A page is never wider than its window. */
  async fits() {
    const wide = await this.page.evaluate(() => {
      const over = document.documentElement.scrollWidth - innerWidth;
      if (over <= 0) return '';
      const widest = [...document.querySelectorAll('body *')].filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
        .map((element) => `${element.tagName.toLowerCase()}.${[...element.classList].join('.')}`);
      return `${over} px too wide: ${widest.slice(0, 5).join(', ')}`;
    });
    assert.ok(wide === '', wide);
  }

  /** What axe finds that keeps people out. */
  async accessible() {
    await this.page.evaluate(AXE);
    const found = await this.page.evaluate(async () => {
      const { violations } = await window.axe.run(document, { resultTypes: ['violations'] });
      return violations.filter((one) => one.impact === 'serious' || one.impact === 'critical')
        .map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => `${node.target.join(' ')} ${(node.failureSummary ?? '').split('\n')[1] ?? ''}`).join(' | ')}`);
    });
    assert.ok(found.length === 0, found.join('; '));
  }
}
