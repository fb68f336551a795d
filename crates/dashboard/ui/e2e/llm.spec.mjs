// LLM: what it costs and by whom, each request, the playground, limits, routes, prices, credentials.
import assert from 'node:assert/strict';

const SECRET = 'sk-never-to-be-seen-4821';

const byRow = (page, name) => page.getByRole('row', { name });

/** Fields of the window that is open, by their labels. */
async function fill(page, fields) {
  const form = page.getByRole('dialog');
  for (const [label, value] of Object.entries(fields)) await form.getByLabel(label, { exact: true }).fill(value);
}

async function send(page, act) {
  await page.getByRole('dialog').getByRole('button', { name: act, exact: true }).click();
  await page.getByRole('dialog').waitFor({ state: 'detached' });
}

export default {
  'usage is shown by whatever one asks, and leads to the requests behind it': async (browsing) => {
    const tab = await browsing.tab();
    const { page } = tab;
    await tab.go('/llm?span=30d');
    await page.getByRole('button', { name: 'Tokens' }).click();
    await page.getByLabel('by', { exact: true }).selectOption('user');
    await page.waitForURL(/measure=tokens.*by=user/);
    await page.getByRole('link', { name: 'Ada Okafor' }).click();
    await page.waitForURL(/\/llm\/requests\?user_id=/);
    await byRow(page, /Ada Okafor/).first().waitFor();
    assert.equal(await byRow(page, /Deniz Kaya/).count(), 0, 'only hers');
    await page.getByLabel('Outcome').selectOption('failed');
    await byRow(page, /failed/).first().waitFor();
    await page.keyboard.press('Escape');
    await page.locator('h1').click();
    await page.keyboard.press('j');
    await page.keyboard.press('Enter');
    await page.waitForURL(/\/llm\/requests\/[0-9a-f-]{36}$/);
    await tab.seen('What it was');
  },

  'the playground shows the reply as Markdown, what it took, and where it is in the log': async (browsing) => {
    const tab = await browsing.tab();
    const { page } = tab;
    await tab.go('/llm/playground?model=loom-demo');
    await page.getByLabel('Say', { exact: true }).fill('Hello');
    await page.keyboard.press('Enter');
    await tab.seen(/tokens in .* out · \$0\.00 · /);
    await tab.screenshot('llm-playground-reply');
    await page.getByRole('link', { name: 'In the log' }).click();
    await tab.seen('playground');
    await tab.seen('messages, streamed');
  },

  'a reply that takes long is stopped, and one that is refused says why': async (browsing) => {
    const tab = await browsing.tab();
    const { page } = tab;
    tab.expect(/status of 429/);
    await tab.go('/llm/playground?model=loom-demo');
    await page.route('**/v1/messages', () => {});
    await page.getByLabel('Say', { exact: true }).fill('Hello');
    await page.getByRole('button', { name: 'Send' }).click();
    await page.getByRole('button', { name: 'Stop' }).click();
    await tab.seen(/stopped/);
    await page.unroute('**/v1/messages');
    // A limit that lets nothing through, so that it is the server who refuses.
    const limit = `/api/orgs/${browsing.server.organisation}/llm/limits/model/loom-demo`;
    await browsing.server.ask('PUT', limit, { requests_per_minute: 0 });
    await page.getByRole('button', { name: 'Ask again' }).click();
    const problem = page.getByRole('alert');
    await problem.waitFor();
    assert.match(await problem.innerText(), /request\s+[0-9a-f-]{36}/);
    await browsing.server.ask('DELETE', limit);
  },

  'a limit is set, changed, taken away, and comes back': async (browsing) => {
    const tab = await browsing.tab();
    const { page } = tab;
    await tab.go('/llm/limits');
    await page.getByRole('button', { name: 'Set a limit …' }).click();
    await page.getByLabel('Whom it holds').selectOption('model');
    await fill(page, { 'Its name, or a pattern with * in it': 'claude-opus-*', 'Dollars a month': '7' });
    await send(page, 'Set');
    const row = byRow(page, /claude-opus-\*/);
    await row.getByText('of $7.00').waitFor();
    await row.getByRole('button', { name: 'Change …' }).click();
    await fill(page, { 'Requests a minute': '60' });
    await send(page, 'Set');
    await row.getByText('of 60').waitFor();
    await row.getByRole('button', { name: 'Remove' }).click();
    await row.waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Undo' }).click();
    await row.getByText('of 60').waitFor();
    const { limits } = await browsing.server.ask('GET', `/api/orgs/${browsing.server.organisation}/llm/limits`);
    assert.deepEqual(limits.filter((one) => one.subject === 'claude-opus-*').map((one) => [one.usd_per_month, one.requests_per_minute]), [[7, 60]]);
  },

  'a route is added and asked; what is wrong with one is said in its window': async (browsing) => {
    const tab = await browsing.tab();
    const { page } = tab;
    tab.expect(/status of 422/);
    await tab.go('/llm/models');
    await page.getByRole('button', { name: 'Add a route …' }).click();
    await fill(page, { Name: 'a/b', Provider: 'demo', Model: 'loom-demo' });
    await page.getByRole('dialog').getByRole('button', { name: 'Set' }).click();
    await page.getByRole('dialog').getByRole('alert').waitFor();
    await fill(page, { Name: 'quick' });
    await send(page, 'Set');
    await page.getByRole('link', { name: 'quick' }).click();
    await page.waitForURL(/\/llm\/playground\?model=quick/);
    await page.getByLabel('Say', { exact: true }).fill('Hello');
    await page.keyboard.press('Enter');
    await page.getByRole('link', { name: 'In the log' }).waitFor();
  },

  'a price of one’s own holds for its model': async (browsing) => {
    const tab = await browsing.tab();
    const { page } = tab;
    await tab.go('/llm/models');
    await page.getByRole('button', { name: 'Set a price …' }).click();
    await fill(page, { Provider: 'demo', Model: 'loom-demo', Input: '1.5', Output: '6' });
    await send(page, 'Set');
    await byRow(page, /loom-demo .*your own/).waitFor();
    await byRow(page, /loom-demo demo \$1\.50/).getByRole('button', { name: 'Remove' }).click();
    await byRow(page, /loom-demo .*your own/).waitFor({ state: 'detached' });
  },

  'a credential is added, put aside and deleted; its secret is nowhere to be read': async (browsing) => {
    const tab = await browsing.tab();
    const { page } = tab;
    const name = `team-${Date.now()}`;
    await tab.go('/llm/providers');
    await page.getByRole('region', { name: 'openai' }).getByRole('button', { name: 'Add a credential …' }).click();
    await fill(page, { Name: name, Key: SECRET });
    await send(page, 'Add');
    const row = byRow(page, name);
    await row.getByText('…4821').waitFor();
    assert.ok(!(await page.content()).includes(SECRET));
    await row.getByRole('button', { name: 'Disable' }).click();
    await row.getByText('disabled', { exact: true }).waitFor();
    await page.getByRole('button', { name: 'Undo' }).click();
    await row.getByText('available').waitFor();
    await row.getByRole('button', { name: 'Delete …' }).click();
    const button = page.getByRole('dialog').getByRole('button', { name: 'Delete' });
    assert.ok(await button.isDisabled(), 'its name is to be typed');
    await page.getByRole('dialog').getByRole('textbox').fill(name);
    await button.click();
    await row.waitFor({ state: 'detached' });
  },

  'what was said is there to be read only while it is captured': async (browsing) => {
    const tab = await browsing.tab();
    const { page } = tab;
    const { server } = browsing;
    await tab.go('/llm/settings');
    await page.getByLabel('Capture requests and replies').click();
    await page.getByRole('button', { name: 'Capture', exact: true }).click();
    await tab.seen('Requests are captured from now on');
    const question = 'what the capture holds';
    await server.ask('POST', '/v1/messages', { model: 'loom-demo', max_tokens: 50, messages: [{ role: 'user', content: question }] });
    await tab.go('/llm/requests?model=loom-demo');
    await page.locator('[data-row] a').first().click();
    await page.getByRole('button', { name: 'Read the request and its reply' }).click();
    await tab.seen(new RegExp(question));
    await tab.go('/llm/settings');
    await page.getByLabel('Capture requests and replies').click();
    await tab.seen('Capture is off');
  },
};
