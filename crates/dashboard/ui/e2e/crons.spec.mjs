// Crons: made and changed by hand, by a ping, paused, deleted.
import assert from 'node:assert/strict';

export default {
  'the next runs show while the schedule is typed, and a monitor is made, changed, paused and deleted': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/crons?new=1');
    const dialog = tab.page.getByRole('dialog');
    await dialog.getByLabel('In the zone').fill('UTC');
    const line = dialog.getByLabel('Minute, hour, day, month, day of the week');
    await line.fill('30 4 * * *');
    await dialog.getByText(/\d{4}-\d\d-\d\d 04:30/).first().waitFor();
    assert.equal(await dialog.getByText(/\d{4}-\d\d-\d\d 04:30/).count(), 5);
    tab.expect(/422/);
    await line.fill('30 25 * * *');
    await dialog.getByText('is no cron expression').waitFor();
    await line.fill('30 5 * * *');
    await dialog.getByText(/\d{4}-\d\d-\d\d 05:30/).first().waitFor();
    await tab.accessible();
    const slug = `by-hand-${Date.now()}`;
    await dialog.getByLabel('Short name, in its address').fill(slug);
    await dialog.getByRole('button', { name: 'Make the monitor' }).click();
    await tab.page.waitForURL(`**/crons/${slug}`);
    await tab.seen('30 5 * * *');

    await tab.page.getByRole('link', { name: 'Change' }).click();
    await dialog.getByLabel('May be so many minutes late').fill('12');
    await dialog.getByRole('button', { name: 'Save' }).click();
    await tab.seen('may be 12 min late');

    // A run shows by itself, with what it wrote.
    await browsing.server.ask('POST', `/api/crons/monitors/${slug}/checkins`, { status: 'error', output: 'disk is full', exit_code: 28 });
    await tab.page.getByRole('link', { name: 'Output' }).first().click();
    await tab.seen('disk is full');
    await tab.page.getByRole('heading', { name: 'Incidents' }).waitFor();
    await tab.seen('lasts');

    const before = await tab.text('pre');
    await tab.page.getByRole('button', { name: 'New address' }).click();
    await dialog.getByRole('button', { name: 'Make a new one' }).click();
    await tab.page.waitForFunction((old) => document.querySelector('main pre')?.textContent !== old, before);

    await tab.page.getByRole('button', { name: 'Pause' }).click();
    await tab.seen('Paused: nothing is expected');
    await tab.page.getByRole('button', { name: 'Undo' }).click();
    await tab.page.getByRole('button', { name: 'Pause' }).waitFor();
    await tab.page.getByRole('button', { name: 'Delete' }).click();
    await dialog.getByRole('textbox').fill(slug);
    await dialog.getByRole('button', { name: 'Delete' }).click();
    await tab.page.waitForURL('**/crons');
  },

  'who has no monitor gets the exact line, and it works': async (browsing) => {
    const slug = `no-crons-${Date.now()}`;
    const made = await browsing.server.ask('POST', '/api/orgs', { name: 'No crons', slug });
    const tab = await browsing.tab({ organisation: made.id });
    await tab.go('/crons');
    await tab.page.getByRole('button', { name: 'Make a ping key' }).click();
    await tab.seen('The key is in it');
    const [, url] = /'(.+)'/.exec(await tab.text('pre'));
    assert.ok((await fetch(url)).ok);
    await tab.page.getByRole('link', { name: 'nightly-backup' }).waitFor();
  },

  'of a monitor that there is not, the page says so and nothing else': async (browsing) => {
    const tab = await browsing.tab();
    tab.expect(/404/);
    await tab.go('/crons/there-is-none');
    await tab.seen('there is no such monitor');
    await tab.page.waitForTimeout(1000);
    assert.equal(await tab.page.getByRole('alert').count(), 1);
    assert.equal(await tab.page.getByText('Offline').count(), 0);
  },

  'the 90 days of a monitor are told in words, too': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/crons/nightly-backup');
    await tab.page.getByRole('img', { name: /of 90 days went well/ }).waitFor();
    assert.ok((await tab.page.locator('table caption').count()) > 0);
  },
};
