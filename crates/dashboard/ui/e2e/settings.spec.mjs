// Settings: what belongs to oneself, to the organisation, to its projects.
import assert from 'node:assert/strict';

/** Says yes to the question that is open, with the name typed if it asks for one. */
async function yes(tab, act, name) {
  const dialog = tab.page.getByRole('dialog');
  if (name) await dialog.getByRole('textbox').fill(name);
  await dialog.getByRole('button', { name: act, exact: true }).click();
}

const secretOf = (tab) => tab.page.getByRole('dialog').locator('pre').first().innerText();

export default {
  'the name that one gives oneself is shown everywhere': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/settings/profile');
    const before = (await browsing.server.ask('GET', '/auth/me')).user.name;
    await tab.page.getByLabel('Name, as others see it').fill('Dana Scully');
    await tab.page.getByRole('button', { name: 'Save' }).click();
    await tab.page.locator('header').getByText('Dana Scully').waitFor({ state: 'attached' });
    await browsing.server.ask('PATCH', '/api/account', { name: before });
  },

  'a key is made, shown once, works, and is revoked': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/settings/keys?new=1');
    const dialog = tab.page.getByRole('dialog');
    await dialog.getByLabel('Name').fill('a laptop');
    await dialog.getByLabel('It ends').selectOption('30 days');
    await tab.accessible();
    await dialog.getByRole('button', { name: 'Make the key' }).click();
    await tab.seen('It is shown this once');
    const secret = await secretOf(tab);
    assert.match(secret, /^loom_pat_/);
    await dialog.getByRole('button', { name: 'Copy the key', exact: true }).click();
    assert.equal(await tab.page.evaluate(() => navigator.clipboard.readText()), secret);
    const me = () => fetch(`${browsing.server.url}/auth/me`, { headers: { authorization: `Bearer ${secret}` } });
    assert.equal((await me()).status, 200);
    await dialog.getByRole('button', { name: 'I have it' }).click();
    assert.ok(!(await tab.text()).includes(secret), 'it is gone from the page');
    await tab.page.getByRole('button', { name: 'Revoke a laptop' }).click();
    await yes(tab, 'Revoke');
    await tab.seen('a laptop was revoked');
    assert.equal((await me()).status, 401);
  },

  'an organisation is made, a colleague invited and the invitation withdrawn, and it is deleted with its name': async (browsing) => {
    const known = async (slug) => (await browsing.server.ask('GET', '/auth/me')).organisations.find((one) => one.slug === slug);
    const slug = `night-shift-${Date.now()}`;
    const before = await browsing.tab();
    await before.go('/settings/organisation');
    await before.page.getByLabel('Its name').fill('Night Shift');
    await before.page.getByLabel('Its short name').fill(slug);
    await before.page.getByRole('button', { name: 'Make it' }).click();
    await before.page.waitForURL('**/settings/members');
    const made = await known(slug);
    assert.equal(made?.role, 'owner');

    const tab = await browsing.tab({ organisation: made.id });
    await tab.go('/settings/members');
    await tab.page.getByLabel('E-mail address').fill('mulder@example.com');
    await tab.page.getByRole('combobox', { name: /^As/ }).selectOption('admin');
    await tab.page.getByRole('button', { name: 'Invite' }).click();
    await tab.seen('A mail is on its way to mulder@example.com');
    assert.match(await tab.text('pre'), /\/invitations\/accept\?token=\w+$/);
    await tab.page.getByRole('button', { name: 'Withdraw the invitation of mulder@example.com' }).click();
    await tab.seen('The invitation of mulder@example.com is void');
    await tab.page.getByRole('link', { name: 'Organisation', exact: true }).click();
    await tab.page.getByRole('button', { name: 'Delete the organisation' }).click();
    const act = tab.page.getByRole('dialog').getByRole('button', { name: 'Delete' });
    assert.ok(await act.isDisabled(), 'not before the name is typed');
    const gone = tab.page.waitForResponse((answer) => answer.request().method() === 'DELETE');
    await yes(tab, 'Delete', slug);
    assert.equal((await gone).status(), 204);
    assert.equal(await known(slug), undefined);
    // The tab still names it, as an open one would: it falls back to another by itself.
    tab.expect(/404/);
    await tab.page.getByRole('heading', { name: 'Another organisation' }).waitFor();
  },

  'a project is made, its first event comes by the line that is copied, and it is deleted with its name': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/settings/projects?new=1');
    const name = `Till ${Date.now()}`;
    await tab.page.getByLabel('Name of the application').fill(name);
    await tab.page.getByLabel('Platform').selectOption('rust');
    await tab.page.getByRole('button', { name: 'Make the project' }).click();
    await tab.seen('cargo add sentry');
    await tab.seen('Waiting for the first event');
    const dsn = await tab.text('pre');
    for (const [platform, text] of [['python', 'sentry_sdk.init('], ['java', 'options.setDsn('], ['go', 'sentry.Init(']]) {
      await tab.page.getByLabel('Platform').selectOption(platform);
      await tab.seen(text);
      assert.ok((await tab.text()).includes(dsn), `${platform} has the DSN`);
    }
    const { protocol, host, username, pathname } = new URL(dsn);
    const sent = await fetch(`${protocol}//${host}/api${pathname}/store/?sentry_key=${username}`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ message: 'A first event', level: 'error', platform: 'other' }),
    });
    assert.equal(sent.status, 200);
    await tab.seen('Events arrive.');

    await tab.page.getByRole('link', { name: 'Keys', exact: true }).click();
    await tab.page.getByRole('button', { name: 'Switch off: Default' }).click();
    await tab.seen('Default is switched off');
    await tab.page.getByRole('button', { name: 'Undo' }).click();
    await tab.page.getByRole('button', { name: 'Switch off: Default' }).waitFor();

    await tab.page.getByRole('link', { name: 'General' }).click();
    await tab.page.getByLabel('Days that events are kept').fill('14');
    await tab.page.getByRole('button', { name: 'Save' }).click();
    await tab.seen('Saved');
    await tab.page.getByRole('button', { name: 'Delete the project' }).click();
    await yes(tab, 'Delete', name.toLowerCase().replace(' ', '-'));
    await tab.seen(`${name} was deleted`);
  },

  'a rule of alerts is made, tested, silenced, undone and deleted': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/settings/projects/shop-web?part=alerts&rule=new');
    const dialog = tab.page.getByRole('dialog');
    await dialog.getByLabel('Name').fill('Many at once');
    await dialog.getByLabel('It speaks when').selectOption('frequency');
    await dialog.getByLabel('Events', { exact: true }).fill('500');
    await tab.accessible();
    await dialog.getByRole('button', { name: 'Make the rule' }).click();
    await tab.seen('When 500 events in 10 min of one issue');
    await tab.page.getByRole('button', { name: 'Test Many at once' }).click();
    await tab.seen('A test is on its way');
    await tab.page.getByLabel('Silence Many at once').selectOption('60');
    await tab.seen('Many at once is silent for 1 h');
    await tab.page.getByRole('button', { name: 'Undo' }).click();
    await tab.page.getByLabel('Silence Many at once').waitFor();
    await tab.page.getByRole('button', { name: 'Delete Many at once' }).click();
    await yes(tab, 'Delete');
    await tab.seen('Many at once was deleted');
  },

  'every part opens, on a phone too': async (browsing) => {
    for (const size of ['desktop', 'phone']) {
      const tab = await browsing.tab({ size, theme: size === 'phone' ? 'light' : 'dark' });
      for (const part of ['profile', 'sessions', 'keys', 'organisation', 'members', 'projects', 'crons', 'repositories', 'privacy', 'audit']) {
        await tab.go(`/settings/${part}`);
        await tab.page.locator('main h2, main table').first().waitFor();
        await tab.fits();
        await tab.accessible();
        await tab.screenshot(`settings-${part}`);
      }
      for (const part of ['setup', 'keys', 'alerts', 'sessions', 'artifacts', 'dropped', 'general']) {
        await tab.go(`/settings/projects/shop-web?part=${part}`);
        await tab.page.locator('main h3, main form').first().waitFor();
        await tab.fits();
        await tab.accessible();
        await tab.screenshot(`project-${part}`);
      }
    }
  },

  'the first steps tick themselves, and can be put away and brought back': async (browsing) => {
    const me = await browsing.server.ask('GET', '/auth/me');
    const slug = `first-steps-${Date.now()}`;
    const made = await (await fetch(`${browsing.server.url}/api/orgs`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ name: 'First steps', slug }) })).json();
    assert.ok(me.user && made.id);
    const ask = async (method, path, body) => {
      const answer = await fetch(browsing.server.url + path, { method, headers: { 'content-type': 'application/json', 'x-loom-org': made.id }, body: body && JSON.stringify(body) });
      assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
      return answer.status === 204 ? null : answer.json();
    };
    const tab = await browsing.tab({ organisation: made.id });
    await tab.go('/');
    await tab.seen('First steps');
    await tab.page.getByRole('link', { name: 'Add a cron' }).waitFor();
    await ask('POST', '/api/crons/monitors', { slug: 'nightly', schedule: { type: 'crontab', expression: '0 3 * * *' } });
    await ask('POST', '/api/crons/monitors/nightly/checkins', { status: 'ok' });
    await tab.page.locator('li.done', { hasText: 'Add a cron' }).waitFor();
    await tab.page.getByRole('button', { name: 'Put away', exact: true }).first().click();
    await tab.page.getByRole('link', { name: 'Invite a colleague' }).waitFor({ state: 'detached' });
    await tab.page.getByRole('button', { name: 'Undo' }).click();
    await tab.page.getByRole('link', { name: 'Invite a colleague' }).click();
    await tab.seen('Invite somebody');
    await ask('DELETE', '/api/crons/monitors/nightly');
  },
};
