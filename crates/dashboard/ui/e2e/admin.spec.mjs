// Administration of the installation.
import assert from 'node:assert/strict';

export default {
  'health says of each part how it is': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/admin');
    await tab.page.getByRole('heading', { name: 'database' }).waitFor();
    await tab.page.getByRole('button', { name: 'Look now' }).click();
    await tab.seen('looked at now');
  },

  'a user is found, made an auditor and back, disabled with the address typed, and enabled': async (browsing) => {
    const tab = await browsing.tab();
    const { users } = await browsing.server.ask('GET', '/api/admin/users?limit=50');
    const other = users.find((one) => one.email !== 'dev@localhost' && !one.disabled_at && !one.is_auditor && !one.is_system_admin);
    assert.ok(other, 'the demo data has colleagues');
    await tab.go('/admin/users');
    await tab.page.getByRole('searchbox').fill(other.email);
    await tab.page.getByRole('searchbox').press('Enter');
    const row = tab.page.getByRole('row').filter({ hasText: other.email });
    // Who says no, sees that nothing was done.
    await row.getByLabel('administer').click();
    await tab.page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click();
    assert.equal(await row.getByLabel('administer').isChecked(), false);
    await row.getByLabel('audit').click();
    await tab.seen(`${other.email} is an auditor now`);
    await tab.page.getByRole('button', { name: 'Undo' }).click();
    await tab.page.waitForFunction(() => !document.querySelectorAll('tbody input[type=checkbox]')[1]?.checked);
    await row.getByRole('button', { name: `Disable ${other.email}` }).click();
    const dialog = tab.page.getByRole('dialog');
    assert.ok(await dialog.getByRole('button', { name: 'Disable' }).isDisabled());
    await dialog.getByRole('textbox').fill(other.email);
    await dialog.getByRole('button', { name: 'Disable' }).click();
    await row.getByRole('button', { name: `Enable ${other.email}` }).click();
    await row.getByRole('button', { name: `Disable ${other.email}` }).waitFor();
  },

  'the audit log is filtered by its address, and an entry tells its details': async (browsing) => {
    const tab = await browsing.tab();
    await browsing.server.ask('PATCH', '/api/account', { name: 'Audited' });
    await browsing.server.ask('PATCH', '/api/account', { name: '' });
    await tab.go('/admin/audit');
    await tab.page.getByLabel('What was done, by its beginning').fill('user.rename');
    await tab.page.getByRole('button', { name: 'Show' }).click();
    await tab.page.waitForURL(/action=user\.rename/);
    await tab.page.locator('tbody tr').nth(1).getByRole('link', { name: 'user.rename' }).click();
    await tab.seen('"name": "Audited"');
    const actions = await tab.page.locator('tbody tr td:nth-child(3) > a').allInnerTexts();
    assert.ok(actions.length >= 2 && actions.every((one) => one === 'user.rename'), actions.join());
  },

  'a test mail is sent, and what became of it is told': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/admin/maintenance');
    await tab.page.getByLabel('To', { exact: true }).fill('ops@example.com');
    await tab.page.getByRole('button', { name: 'Send a test' }).click();
    await tab.seen('A mail to ops@example.com is on its way');
    await tab.go('/admin/deliveries?channel=mail');
    await tab.page.getByRole('row').filter({ hasText: 'ops@example.com' }).first().waitFor();
  },

  'a webhook is made, its secret shown once, switched off and deleted': async (browsing) => {
    const tab = await browsing.tab();
    await tab.go('/admin/webhooks');
    await tab.page.getByRole('button', { name: 'New webhook' }).click();
    const dialog = tab.page.getByRole('dialog');
    await dialog.getByLabel('Name').fill('pager');
    await dialog.getByLabel('Address; a public one').fill('https://example.com/hook');
    await dialog.getByRole('button', { name: 'Make the webhook' }).click();
    await tab.seen('It is shown this once');
    assert.match(await dialog.locator('pre').innerText(), /^whsec_/);
    await dialog.getByRole('button', { name: 'Close' }).click();
    await tab.page.getByRole('button', { name: 'Switch off: pager' }).click();
    await tab.page.getByRole('button', { name: 'Switch on: pager' }).waitFor();
    await tab.page.getByRole('button', { name: 'Delete pager' }).click();
    await dialog.getByRole('button', { name: 'Delete' }).click();
    await tab.seen('pager was deleted');
  },

  'every part opens, on a phone too': async (browsing) => {
    for (const size of ['desktop', 'phone']) {
      const tab = await browsing.tab({ size, theme: size === 'phone' ? 'light' : 'dark' });
      for (const part of ['health', 'users', 'audit', 'deliveries', 'webhooks', 'replicas', 'maintenance']) {
        await tab.go(`/admin/${part}`);
        await tab.page.locator('main table, main h2').first().waitFor();
        await tab.fits();
        await tab.accessible();
        await tab.screenshot(`admin-${part}`);
      }
    }
  },
};
