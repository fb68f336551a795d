// The main things that people do, on each page.
import assert from 'node:assert/strict';

import { Skip } from './browsing.mjs';

const main = (tab) => tab.page.locator('main');
const button = (tab, name) => main(tab).getByRole('button', { name, exact: typeof name === 'string' }).first();

async function firstIssue(server, query) {
  const { issues } = await server.ask('GET', `/api/crash/projects/checkout-api/issues?query=${encodeURIComponent(query)}`);
  assert.ok(issues.length > 0, `no issue for ${query}`);
  return issues[0];
}

export default {
  'the palette goes anywhere, and the theme stays chosen': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/');
    await tab.page.keyboard.press('Control+k');
    const dialog = tab.page.getByRole('dialog');
    await dialog.getByRole('combobox').or(dialog.locator('input')).first().fill('crashes');
    await tab.page.keyboard.press('Enter');
    await tab.page.waitForURL('**/crashes');
    await tab.page.locator('#theme').selectOption('light');
    await tab.page.reload();
    await tab.settled();
    assert.equal(await tab.page.evaluate(() => document.documentElement.dataset.theme), 'light');
  },

  'by keyboard alone one gets past the navigation, and through the palette': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/crashes');
    await tab.page.keyboard.press('Tab');
    await tab.page.keyboard.press('Enter');
    assert.equal(await tab.page.evaluate(() => document.activeElement?.id), 'content');
    await tab.page.keyboard.press('Control+k');
    await tab.page.locator('#commands').waitFor();
    for (let n = 0; n < 18; n += 1) await tab.page.keyboard.press('ArrowDown');
    const inSight = () => {
      const [list, chosen] = ['#commands', '#commands [aria-selected=true]'].map((one) => document.querySelector(one)?.getBoundingClientRect());
      return chosen.top >= list.top - 1 && chosen.bottom <= list.bottom + 1;
    };
    await tab.page.waitForFunction(inSight);
    await tab.page.keyboard.type('nightly-b');
    await tab.page.locator('#commands [role=option]', { hasText: 'monitor' }).first().waitFor();
    assert.equal(await tab.page.locator('#commands [role=option]', { hasText: 'monitor' }).count(), 1);
    await tab.page.keyboard.press('Enter');
    await tab.page.waitForURL('**/crons/nightly-backup');
  },

  'filters are gone back through': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/llm?span=30d');
    await tab.page.locator('#by').selectOption('user');
    await tab.page.waitForURL(/by=user/);
    await tab.seen('Ada Okafor');
    await tab.page.goBack();
    await tab.page.waitForURL((url) => !url.search.includes('by='));
    await tab.seen('claude-sonnet-4-5');
    assert.equal(await tab.page.locator('#by').inputValue(), 'model');
  },

  'a link names its organisation': async (browsing) => {
    const { server } = browsing;
    const tab = await browsing.tab({ organisation: null });
    await tab.go('/crons/nightly-backup?org=acme-shop');
    await tab.seen('nightly-backup');
    assert.equal(await tab.page.evaluate(() => localStorage.getItem('loom.org')), server.organisation);
    assert.equal(new URL(tab.page.url()).search, '');
  },

  'what is copied can be pasted where the address is not https': async (browsing) => {
    const tab = await browsing.tab();
    await tab.page.addInitScript(() => Object.defineProperty(navigator, 'clipboard', { value: undefined }));
    await tab.go('/logs');
    await button(tab, 'Copy').click();
    await tab.seen(/lines are copied/);
    await tab.page.locator('#q').focus();
    await tab.page.keyboard.press('Control+v');
    assert.match(await tab.page.locator('#q').inputValue(), /INFO/);
  },

  'who only belongs to an organisation sees nothing that is refused': async (browsing) => {
    const { server } = browsing;
    const tab = await browsing.tab();
    await tab.page.route('**/auth/me', async (route) => {
      const answer = await route.fetch();
      const me = await answer.json();
      await route.fulfill({ response: answer, json: { ...me, role: 'member', user: { ...me.user, is_system_admin: false, is_auditor: false } } });
    });
    const asked = [];
    tab.page.on('request', (request) => asked.push(new URL(request.url()).pathname));
    for (const path of ['/', '/llm', '/llm/requests', '/llm/models', '/llm/limits', '/llm/settings', '/llm/providers']) await tab.go(path);
    const admins = new RegExp(`^/api/(admin/|orgs/${server.organisation}/(llm/(prices|settings)|invitations))|^/api/llm/(providers|credentials)`);
    assert.deepEqual(asked.filter((path) => admins.test(path)), []);
    await tab.seen('There is no such part here');
    assert.equal(await tab.page.getByRole('link', { name: 'Jobs' }).count(), 0);
  },

  'j and k go through a list, and / to its search': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/crashes');
    await tab.seen('CHECKOUT-API-');
    await tab.page.keyboard.press('j');
    const first = await tab.page.evaluate(() => document.activeElement?.getAttribute('href'));
    await tab.page.keyboard.press('j');
    const second = await tab.page.evaluate(() => document.activeElement?.getAttribute('href'));
    assert.ok(first && second && first !== second, `${first}, ${second}`);
    await tab.page.keyboard.press('k');
    assert.equal(await tab.page.evaluate(() => document.activeElement?.getAttribute('href')), first);
    await tab.page.keyboard.press('/');
    assert.ok(await tab.page.evaluate(() => document.activeElement?.matches('[data-search]')));
    await tab.page.keyboard.press('Escape');
  },

  'issues are searched, and the search is in the address': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/crashes');
    await tab.page.locator('[data-search]').fill('is:resolved OperationalError');
    await tab.page.keyboard.press('Enter');
    await tab.page.waitForURL(/query=/);
    await tab.seen('OperationalError');
    const again = await browsing.tab();
    await again.go(new URL(tab.page.url()).pathname + new URL(tab.page.url()).search);
    await again.seen('OperationalError');
    assert.equal(await again.page.getByText('IntegrityError').count(), 0);
  },

  'an issue is resolved, and opened again': async (browsing) => {
    const { server } = browsing;
    const issue = await firstIssue(server, 'is:unresolved KeyError');
    const tab = await browsing.tab();
    await tab.go(`/crashes/checkout-api/${issue.short_id}`);
    const state = async () => (await server.ask('GET', `/api/crash/projects/checkout-api/issues/${issue.id}`)).status;
    await button(tab, 'Resolve').click();
    await button(tab, 'Open again').waitFor();
    assert.equal(await state(), 'resolved');
    await button(tab, 'Open again').click();
    await button(tab, 'Resolve').waitFor();
    assert.match(await state(), /unresolved|regressed/);
  },

  'an issue tells what broke': async (browsing) => {
    const issue = await firstIssue(browsing.server, 'IntegrityError');
    const tab = await browsing.tab();
    await tab.go(`/crashes/checkout-api/${issue.short_id}`);
    for (const text of ['create_payment', 'async with session.begin():', 'What came before', 'production', 'checkout-api@']) await tab.seen(text);
  },

  'a job is run': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/jobs?job=delivery-cleanup');
    const row = main(tab).locator('tr', { hasText: 'Delivery clean-up' });
    const runs = main(tab).locator('section[aria-labelledby=history] tbody tr', { hasText: 'manual' });
    const before = await runs.count();
    await row.getByRole('button', { name: 'Run now' }).click();
    await tab.page.waitForFunction(
      (least) => [...document.querySelectorAll('section[aria-labelledby=history] tbody tr')].filter((one) => one.textContent.includes('manual')).length > least, before,
    );
  },

  'a job is switched off, and on again': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/jobs');
    const row = main(tab).locator('tr', { hasText: 'Search drift check' });
    await row.getByRole('button', { name: 'Switch off' }).click();
    await row.getByRole('button', { name: 'Switch on' }).waitFor();
    await tab.page.getByRole('button', { name: 'Undo' }).click();
    await row.getByRole('button', { name: 'Switch off' }).waitFor();
    await row.getByRole('link').click();
    await tab.page.locator('#history').waitFor();
    assert.ok(await tab.page.evaluate(() => document.querySelector('#history').getBoundingClientRect().bottom < innerHeight), 'its runs are in sight');
  },

  'a monitor is paused, and goes on': async (browsing) => {
    const { server } = browsing;
    const tab = await browsing.tab();
    await server.ask('POST', '/api/crons/monitors/sitemap/resume', {}).catch(() => {});
    await tab.go('/crons/sitemap');
    await button(tab, 'Pause').click();
    await button(tab, /resume|go on/i).waitFor();
    assert.equal((await server.ask('GET', '/api/crons/monitors/sitemap')).status, 'paused');
    await button(tab, /resume|go on/i).click();
    await button(tab, 'Pause').waitFor();
  },

  'the log is filtered by level': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/logs');
    await tab.page.locator('#level').selectOption('error');
    await tab.page.waitForURL(/level=error/);
    await tab.page.waitForFunction(() => document.querySelectorAll('[role=log] .line.info').length === 0);
  },

  'the log is paused, and a request followed': async (browsing) => {
    const { server } = browsing;
    const tab = await browsing.tab({ size: 'phone' });
    await tab.go('/logs?target=loom_server');
    await button(tab, 'Pause').click();
    const id = `followed-${process.pid}`;
    await fetch(`${server.url}/api/threads/search?q=followed`, { headers: { 'x-request-id': id } });
    await button(tab, /^Go on \([1-9]/).click();
    const line = tab.page.locator('[role=log] .line', { hasText: '/api/threads/search' }).last();
    await line.waitFor();
    // A line that moves on is hard to point at.
    await button(tab, 'Pause').click();
    await line.click();
    const chosen = tab.page.getByRole('region', { name: 'The chosen line' });
    await chosen.waitFor();
    const { top, bottom } = await chosen.evaluate((section) => section.getBoundingClientRect().toJSON());
    assert.ok(top > 0 && bottom <= 844, `the chosen line is at ${top} to ${bottom}`);
    await chosen.getByRole('link', { name: id }).click();
    await tab.page.waitForURL(/request_id=/);
    await tab.seen(/^Lines of the request/);
    const [file] = await Promise.all([tab.page.waitForEvent('download'), button(tab, 'Download').click()]);
    assert.match(file.suggestedFilename(), /^loom-.*\.log$/);
  },

  'threads are searched, and read': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/threads');
    await tab.page.locator('[data-search]').fill('payments_idempotency_key');
    await tab.page.keyboard.press('Enter');
    await tab.page.waitForURL(/q=/);
    await tab.page.locator('main mark').first().waitFor();
    await main(tab).locator('[data-row] a').first().click();
    await tab.page.waitForURL(/\/threads\/T-/);
    await tab.seen('payments_idempotency_key');
    await tab.accessible();
  },

  'a model is tried out, and its reply comes piece by piece': async (browsing) => {
    const { server } = browsing;
    const { models } = await server.ask('GET', '/api/llm/models');
    if (!models.some((one) => one.model === 'loom-demo')) throw new Skip('the server has no built-in model');
    const tab = await browsing.tab();
    await tab.go('/llm/playground?model=loom-demo');
    await tab.page.locator('#say').fill('Say hello to the browser');
    await button(tab, /send|ask/i).click();
    await tab.page.waitForFunction(() => /first token/.test(document.querySelector('main')?.textContent ?? ''));
  },

  'releases show their health, and are compared': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/releases?project=mobile-app');
    await tab.seen('mobile-app@');
    await tab.seen(/9\d\.\d+ ?%/);
  },

  'a project shows its DSN and how it is set up': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/settings/projects/shop-web');
    const { projects } = await browsing.server.ask('GET', '/api/crash/projects');
    await tab.seen(projects.find((one) => one.slug === 'shop-web').dsn);
  },

  'a key is made, and shown once': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/settings/keys');
    await tab.seen('nightly-agents');
  },

  'the administration knows users and what was done': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/admin/users');
    await tab.seen('ada.okafor@example.com');
    await tab.go('/settings/audit');
    await main(tab).getByText('dev@localhost').first().waitFor();
  },

  'an error of the dashboard becomes an event of its own project': async (browsing) => {
    const { server } = browsing;
    const internal = (await server.ask('GET', '/auth/me')).organisations.find((one) => one.slug.startsWith('loom-internal'));
    if (!internal) throw new Skip('the user does not see the internal organisation');
    const tab = await browsing.tab();
    const word = `DashboardError${process.pid}`;
    tab.expect(new RegExp(word));
    await tab.go('/');
    await tab.page.evaluate((name) => { setTimeout(() => { const error = new Error(`${name}: thrown by a test`); error.name = name; throw error; }, 0); }, word);
    const until = Date.now() + 30_000;
    let found = [];
    while (found.length === 0 && Date.now() < until) {
      const answer = await fetch(`${server.url}/api/crash/projects/loom-web/issues?query=${word}`, { headers: { 'x-loom-org': internal.id } });
      found = (await answer.json()).issues ?? [];
      await new Promise((done) => setTimeout(done, 200));
    }
    assert.equal(found.length, 1, 'the error is an issue of loom-web');
  },
};
