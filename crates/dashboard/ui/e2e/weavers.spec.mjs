// Weavers, on a cluster that is faked: made, looked at, entered, extended, deleted.
import assert from 'node:assert/strict';

import { Skip } from './browsing.mjs';

async function needsCluster(server) {
  const { components } = await server.ask('GET', '/health');
  if (components.kubernetes.status === 'disabled') throw new Skip('this server runs no weavers');
}

const make = (server, image) => server.ask('POST', '/api/weaver', { image, wait: false });

export default {
  'without a cluster the page says how there is one': async (browsing) => {
    const { server } = browsing;
    if (!server.isOurs) throw new Skip('the server is not ours to end');
    const before = process.env.LOOM_SERVER_WEAVER_ENABLED;
    await server.stop();
    process.env.LOOM_SERVER_WEAVER_ENABLED = 'false';
    await server.start();
    try {
      const tab = await browsing.tab({ size: 'phone' });
      await tab.go('/weavers');
      await tab.seen('This server runs no weavers');
      await tab.seen('LOOM_SERVER_WEAVER_ENABLED=true');
      assert.equal(await tab.page.getByRole('link', { name: 'New weaver' }).count(), 0);
      await tab.fits();
      await tab.accessible();
      await tab.screenshot('weavers-off');
      tab.clean();
      await browsing.close();
    } finally {
      await server.stop();
      if (before === undefined) delete process.env.LOOM_SERVER_WEAVER_ENABLED;
      else process.env.LOOM_SERVER_WEAVER_ENABLED = before;
      await server.start();
    }
  },

  'a weaver is made, and what is wrong stands at its field': async (browsing) => {
    const { server } = browsing;
    await needsCluster(server);
    const tab = await browsing.tab();
    tab.expect(/status of 422/);
    await tab.go('/weavers');
    await tab.page.getByRole('link', { name: 'New weaver' }).click();
    await tab.page.getByLabel('Image').fill('fake/agent:1.4');
    await tab.page.getByLabel('Repository', { exact: true }).fill('not a repository');
    await tab.page.getByLabel('Lives for').fill('9999');
    await tab.page.getByRole('button', { name: 'Make it' }).click();
    await tab.page.locator('label', { hasText: 'Lives for' }).getByText('is 0.01 to 48').waitFor();
    await tab.page.getByLabel('Lives for').fill('2');
    await tab.page.getByRole('button', { name: 'Make it' }).click();
    await tab.page.locator('label', { hasText: 'Repository' }).getByText('is an https URL').waitFor();
    await tab.accessible();
    await tab.page.getByLabel(/^Repository/).fill('');
    await tab.page.getByLabel('Environment').fill('MODE=fast\nAPI_TOKEN=ghp_abcdefghijklmnopqrstuvwxyz0123456789');
    await tab.page.getByText('Command, resources').click();
    await tab.page.getByLabel('Tags').fill('task: 17');
    await tab.page.getByRole('button', { name: 'Make it' }).click();
    await tab.page.waitForURL(/\/weavers\/[0-9a-f-]{36}$/);
    await tab.seen('running');
    await tab.seen('MODE=fast');
    assert.match(await tab.text('dl'), /API_TOKEN=\s*sealed/);
    await tab.page.getByText('ready', { exact: true }).waitFor();
    await tab.page.getByLabel('Lives longer').selectOption('4');
    await tab.seen(/for 6 h/);
    await tab.page.getByRole('button', { name: 'Undo' }).click();
    await tab.seen(/for 2 h/);
    await tab.page.getByLabel('What it reaches').selectOption('off');
    await tab.seen('off: nothing at all');
    await tab.accessible();
    await tab.fits();
    await tab.screenshot('weaver-running');
    await tab.page.getByRole('button', { name: 'Delete' }).click();
    await tab.page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
    await tab.page.locator('main .state', { hasText: 'deleted' }).waitFor();
  },

  'why it does not run is said, and a list shows it at once': async (browsing) => {
    const { server } = browsing;
    await needsCluster(server);
    const tab = await browsing.tab();
    await tab.go('/weavers?status=pending,running,terminating');
    const { id } = await make(server, 'fake/bad-image');
    const row = tab.page.locator('tr', { hasText: 'fake/bad-image' }).first();
    await row.getByText('cannot be pulled').waitFor();
    await row.getByRole('link').first().click();
    await tab.seen('Look whether the image is spelled right');
    await server.ask('DELETE', `/api/weaver/${id}`);
    await tab.page.locator('main .state', { hasText: 'deleted' }).waitFor();
  },

  'its log is read to the end': async (browsing) => {
    const { server } = browsing;
    await needsCluster(server);
    const tab = await browsing.tab();
    const { id } = await make(server, 'fake/done');
    await tab.go(`/weavers/${id}?tab=log`);
    await tab.seen('three');
    await tab.seen('3 lines, all of it');
    await tab.page.getByRole('button', { name: 'Copy' }).click();
    assert.equal(await tab.page.evaluate(() => navigator.clipboard.readText()), 'one\ntwo\nthree');
    const [file] = await Promise.all([tab.page.waitForEvent('download'), tab.page.getByRole('button', { name: 'Download' }).click()]);
    assert.equal(file.suggestedFilename(), `weaver-${id}.log`);
    await tab.page.getByRole('link', { name: 'Timeline' }).click();
    await tab.seen('its process has ended');
    await tab.page.getByRole('link', { name: 'Log', exact: true }).click();
    await tab.seen('3 lines, all of it');
  },

  'a terminal in the page, in colour, without a word from the policy': async (browsing) => {
    const { server } = browsing;
    await needsCluster(server);
    const tab = await browsing.tab();
    const { id } = await make(server, 'fake/agent:2');
    await tab.go(`/weavers/${id}?tab=terminal`);
    await tab.page.locator('main .state', { hasText: 'running' }).waitFor();
    await tab.page.getByRole('button', { name: 'Open it in a terminal' }).click();
    await tab.seen('Connected.');
    const rows = tab.page.locator('.xterm-rows');
    await rows.getByText(/size \d+x\d+/).first().waitFor();
    await tab.page.keyboard.type('plain \u001b[38;2;10;200;100mcoloured\u001b[0m');
    // The row is drawn anew whenever something is said.
    await tab.page.waitForFunction(() => [...document.querySelectorAll('.xterm-rows span')]
      .some((one) => one.textContent.includes('coloured') && getComputedStyle(one).color === 'rgb(10, 200, 100)'));
    await tab.accessible();
    await tab.screenshot('weaver-terminal');
    await tab.page.setViewportSize({ width: 800, height: 900 });
    await rows.getByText(/size \d\dx\d+/).first().waitFor();
    await tab.page.keyboard.press('Control+Shift+Period');
    assert.equal(await tab.page.evaluate(() => document.activeElement?.textContent), 'Disconnect');
    await tab.page.locator('.xterm-helper-textarea').focus();
    await tab.page.keyboard.press('Control+j');
    await tab.page.keyboard.type('exit 3');
    await tab.page.keyboard.press('Control+j');
    await tab.seen('It has ended with 3.');
    await tab.page.getByRole('button', { name: 'Open it in a terminal' }).click();
    await tab.seen('Connected.');
    await tab.page.getByRole('button', { name: 'Disconnect' }).click();
    await tab.seen('You have left it.');
    await server.ask('DELETE', `/api/weaver/${id}`);
  },
};
