// Crashes: found, merged, acted on, looked into.
import assert from 'node:assert/strict';

const list = async (server, query = 'is:unresolved') =>
  (await server.ask('GET', `/api/crash/projects/shop-web/issues?limit=50&query=${encodeURIComponent(query)}`)).issues;

export default {
  'several issues are chosen and merged, and it is undone': async (browsing) => {
    const [one, two] = await list(browsing.server);
    assert.ok(one && two);
    const tab = await browsing.tab();
    await tab.go('/crashes?project=shop-web');
    await tab.page.getByLabel(`Choose ${one.short_id}`, { exact: true }).check();
    await tab.page.getByLabel(`Choose ${two.short_id}`, { exact: true }).check();
    await tab.page.getByRole('button', { name: 'Merge', exact: true }).click();
    const dialog = tab.page.getByRole('dialog');
    await dialog.getByLabel('The one that stays').selectOption({ value: one.id });
    await dialog.getByRole('button', { name: 'Merge', exact: true }).click();
    await tab.seen(`Merged into ${one.short_id}`);
    await tab.page.getByLabel(`Choose ${two.short_id}`, { exact: true }).waitFor({ state: 'detached' });
    await tab.page.getByRole('button', { name: 'Undo' }).click();
    await tab.page.getByLabel(`Choose ${two.short_id}`, { exact: true }).waitFor();
  },

  'what is undone of many is again what each was': async (browsing) => {
    const all = await list(browsing.server, '');
    assert.ok(all.some((one) => one.assigned_to) && all.some((one) => !one.assigned_to), 'somebody has some of them');
    const held = (issues) => issues.map((one) => `${one.short_id} ${one.assigned_to?.id ?? 'nobody'}`).sort();
    const tab = await browsing.tab();
    await tab.go('/crashes?project=shop-web&query=+');
    await tab.page.getByLabel('Choose all').click();
    await tab.page.getByRole('button', { name: 'Take' }).click();
    await tab.seen('are yours');
    await tab.page.getByRole('button', { name: 'Undo' }).click();
    await tab.seen('Undone');
    assert.deepEqual(held(await list(browsing.server, '')), held(all));
  },

  'a frame shows what its variables held, and markup is text everywhere': async (browsing) => {
    const { number, dsn } = await browsing.server.ask('GET', '/api/crash/projects/shop-web');
    const markup = `<img src=x onerror="document.title='acted'"> ${Date.now()}`;
    const frames = [{ function: 'total', filename: 'cart.py', lineno: 7, in_app: true, context_line: 'return sum(prices)', vars: { label: markup, prices: [1, 2] } }];
    const event = {
      platform: 'python', exception: { values: [{ type: 'MarkupError', value: markup, stacktrace: { frames } }] }, tags: { markup }, user: { id: '7', username: markup },
      breadcrumbs: [{ category: 'http', data: { method: 'GET', url: 'https://example.com/prices', status_code: 503 } }, { category: markup, message: markup }],
    };
    const sent = await fetch(`${browsing.server.url}/api/${number}/store/?sentry_key=${new URL(dsn).username}`, { method: 'POST', body: JSON.stringify(event) });
    assert.ok(sent.ok);
    const tab = await browsing.tab({ size: 'phone' });
    await tab.go('/crashes?project=shop-web&query=MarkupError');
    await tab.page.getByRole('link', { name: 'MarkupError' }).click();
    await tab.page.getByLabel('Variables of total').getByText(markup).waitFor();
    await tab.seen('GET https://example.com/prices [503]');
    await tab.fits();
    assert.ok((await tab.page.title()).includes('MarkupError'));
    assert.equal(await tab.page.locator('main img').count(), 0);
  },

  'an issue that was merged leads to the one that has its events': async (browsing) => {
    const [one, two] = await list(browsing.server);
    const path = `/api/crash/projects/shop-web/issues/${one.short_id}`;
    await browsing.server.ask('POST', `${path}/merge`, { issues: [two.id] });
    const tab = await browsing.tab();
    tab.expect(/404/);
    await tab.go(`/crashes/shop-web/${two.short_id}`);
    await tab.page.getByRole('link', { name: 'another issue' }).click();
    await tab.page.getByRole('button', { name: `Take out ${two.short_id}` }).click();
    await tab.seen('is an issue of its own again');
  },

  'searches lie ready, and one is kept on this browser': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/crashes');
    await tab.page.getByRole('link', { name: 'Resolved', exact: true }).click();
    await tab.page.waitForURL(/query=is%3Aresolved/);
    await tab.page.getByRole('searchbox').fill('is:unresolved level:error');
    await tab.page.getByRole('searchbox').press('Enter');
    await tab.page.getByRole('button', { name: 'Keep this search' }).click();
    await tab.go('/crashes');
    await tab.page.getByRole('link', { name: 'is:unresolved level:error' }).click();
    await tab.page.waitForURL(/level%3Aerror/);
    await tab.page.getByRole('button', { name: 'Forget is:unresolved level:error' }).click();
  },

  'an issue is resolved, opened, ignored, assigned, given a priority and a comment': async (browsing) => {
    const issue = (await list(browsing.server)).at(-1);
    const tab = await browsing.tab();
    await tab.go(`/crashes/shop-web/${issue.short_id}`);
    await tab.page.getByRole('button', { name: 'Resolve', exact: true }).click();
    await tab.page.getByRole('button', { name: 'Open again' }).waitFor();
    await tab.page.getByRole('button', { name: 'Undo' }).click();
    await tab.page.getByLabel('Ignore').selectOption({ label: 'for a day' });
    await tab.page.getByRole('button', { name: 'Open again' }).click();
    await tab.page.getByLabel('Has it').selectOption({ label: 'me' });
    await tab.seen('Assigned');
    await tab.page.getByLabel('Priority').selectOption('low');
    await tab.seen('Its priority is low');
    const word = `since ${Date.now()}`;
    await tab.page.getByLabel('A comment').fill(`The price comes as text ${word}.`);
    await tab.page.getByRole('button', { name: 'Comment', exact: true }).click();
    await tab.page.locator('.comment', { hasText: word }).waitFor();
    await tab.page.getByLabel('More').selectOption('reprocess');
    await tab.seen(/processed again/);
    const now = await browsing.server.ask('GET', `/api/crash/projects/shop-web/issues/${issue.short_id}`);
    assert.equal(now.status, 'unresolved');
    assert.equal(now.priority, 'low');
    await browsing.server.ask('POST', `/api/crash/projects/shop-web/issues/${issue.short_id}/assign`, { assigned_to: null });
  },

  'the events of an issue are gone through, and its tags lead to a search': async (browsing) => {
    const issue = (await list(browsing.server)).find((one) => one.event_count > 3);
    const tab = await browsing.tab();
    await tab.go(`/crashes/shop-web/${issue.short_id}`);
    const id = () => tab.page.locator('#event code').innerText();
    const newest = await id();
    await tab.page.getByRole('link', { name: 'Previous', exact: true }).click();
    await tab.page.waitForFunction((old) => document.querySelector('#event code')?.textContent !== old, newest);
    await tab.page.getByRole('link', { name: 'Next', exact: true }).click();
    await tab.page.waitForFunction((old) => document.querySelector('#event code')?.textContent === old, newest);
    await tab.page.getByRole('link', { name: '24 hours' }).click();
    await tab.page.waitForURL(/span=24h/);
    await tab.page.getByText('Why these are one issue').waitFor();
    await tab.page.locator('section[aria-labelledby=tags] ul a').first().click();
    await tab.page.waitForURL(/\/crashes\?project=shop-web&query=/);
    await tab.page.locator('[data-row]').first().waitFor();
  },

  'an issue that is deleted needs its name, and is gone': async (browsing) => {
    const project = await browsing.server.ask('GET', '/api/crash/projects/shop-web');
    const { protocol, host, username, pathname } = new URL(project.dsn);
    const message = `to be deleted ${Date.now()}`;
    await fetch(`${protocol}//${host}/api${pathname}/store/?sentry_key=${username}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ message, fingerprint: [message], level: 'error', platform: 'other' }) });
    const tab = await browsing.tab();
    await tab.go('/crashes?project=shop-web');
    await tab.page.getByRole('link', { name: message }).click();
    await tab.page.getByLabel('More').selectOption('delete');
    const dialog = tab.page.getByRole('dialog');
    const name = await dialog.locator('code').innerText();
    await dialog.getByRole('textbox').fill(name);
    await dialog.getByRole('button', { name: 'Delete' }).click();
    await tab.seen(`${name} was deleted`);
    await tab.page.waitForURL('**/crashes?project=shop-web');
  },
};
