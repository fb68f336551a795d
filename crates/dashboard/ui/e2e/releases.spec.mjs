// Releases: how each does, two of them side by side, what belongs to one, and that it is live.
import assert from 'node:assert/strict';

import { PATIENCE } from './browsing.mjs';

const OF = '/releases?project=shop-web&span=30d';

export default {
  'two releases that are picked stand side by side, and the address says so': async (browsing) => {
    const tab = await browsing.tab();
    const { page } = tab;
    await tab.go(OF);
    await page.getByLabel('Compare shop-web@2.15.0').check();
    await tab.seen('Pick one more to compare.');
    await page.getByLabel('Compare shop-web@2.14.1').check();
    await page.getByRole('link', { name: 'Compare', exact: true }).click();
    await page.waitForURL(/\/releases\/shop-web\/shop-web%402\.15\.0\?with=shop-web%402\.14\.1/);
    const row = page.getByRole('row', { name: /Sessions without a crash/ });
    assert.match(await row.innerText(), /points|the same/);
    await tab.seen(/with 95 % confidence/);
    await page.getByLabel('Compare with').selectOption('');
    await row.waitFor({ state: 'detached' });
    assert.ok(!page.url().includes('with='));
  },

  'a filter is a part of the address, and holds for numbers and charts': async (browsing) => {
    const tab = await browsing.tab();
    const { page } = tab;
    const environment = `preview-${Date.now()}`;
    await browsing.server.ask('POST', '/api/app-sessions/start', { project_id: 'shop-web', release: 'shop-web@2.15.0', environment, distinct_id: 'user-1' });
    await tab.go(OF);
    const row = (version) => page.getByRole('row', { name: new RegExp(`Compare ${version}`) });
    await row('shop-web@2.14.1').waitFor();
    await page.getByLabel('Environment').fill(environment);
    await page.keyboard.press('Enter');
    await page.waitForURL(new RegExp(`environment=${environment}`));
    await row('shop-web@2.14.1').waitFor({ state: 'detached' });
    assert.equal((await row('shop-web@2.15.0').getByRole('cell').nth(5).innerText()).trim(), '1');
    await page.getByLabel('Time').selectOption('24h');
    await page.waitForURL(/span=24h/);
  },

  'a release leads to its issues, deploys and commits, and to the threads that made it': async (browsing) => {
    const tab = await browsing.tab();
    const { page } = tab;
    await tab.go('/releases/shop-web/shop-web%402.14.1');
    await tab.seen('New issues');
    await page.getByRole('link', { name: /Hydration failed/ }).waitFor();
    await tab.seen('production');
    await page.getByRole('row', { name: /Retry what the payment provider did not answer/ }).waitFor();
    await page.locator('section', { hasText: 'Threads that made it' }).getByRole('link').first().click();
    await page.waitForURL(/\/threads\/T-/);
  },

  'sessions are counted as they begin': async (browsing) => {
    const tab = await browsing.tab();
    const { page } = tab;
    const version = `shop-web@9.${Date.now()}.0`;
    await tab.go(OF);
    const begin = (id) => browsing.server.ask('POST', '/api/app-sessions/start', { project_id: 'shop-web', release: version, environment: 'production', distinct_id: id });
    const took = await tab.until(version, () => begin('user-1'));
    assert.ok(took < PATIENCE, `seen after ${took} ms`);
    console.log(`a new release is seen ${took} ms after its first session`);
  },

  'a release without sessions is there, and can be marked as released': async (browsing) => {
    const tab = await browsing.tab();
    const { page } = tab;
    const version = `shop-web@3.0.0-rc.${Date.now()}`;
    await browsing.server.ask('POST', '/api/crash/projects/shop-web/releases', { version });
    await tab.go(OF);
    await page.getByRole('link', { name: version }).click();
    await tab.seen(/how it does is not known/);
    await page.getByRole('button', { name: 'Mark as released' }).click();
    await tab.seen(`${version} is released`);
    const made = await browsing.server.ask('GET', `/api/crash/projects/shop-web/releases/${encodeURIComponent(version)}`);
    assert.ok(made.released_at);
  },
};
