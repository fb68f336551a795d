// What happens on the server is seen without asking again, also after the server was away. How long it takes is told,
// and judged strictly with LOOM_E2E_STRICT=true.
import assert from 'node:assert/strict';

import { Skip, within } from './browsing.mjs';

let count = 0;
const unique = (word) => `${word}-${process.pid}-${(count += 1)}`;

const SOON = 500;
/** What must be seen so soon; of the rest it is told. */
const JUDGED = ['a line of the log', 'a message of a thread', 'a run of a job', 'a state of a weaver'];

/** Things that are done, and where they are seen. */
const acts = {
  'a line of the log': async (tab, { server }) => {
    const id = unique('probe');
    await tab.go(`/logs?request_id=${id}`);
    return () => tab.until(/duration_ms/, () => fetch(`${server.url}/auth/me`, { headers: { 'x-request-id': id } }));
  },
  'a message of a thread': async (tab, { server }) => {
    const { threads } = await server.ask('GET', '/api/threads?owner=me&limit=1');
    const text = unique('Live message');
    await tab.go(`/threads/${threads[0].id}`);
    const messages = [{ id: text, role: 'user', content: `${text} of the test` }];
    return () => tab.until(text, () => server.ask('POST', `/api/threads/${threads[0].id}/messages`, { messages }));
  },
  'a new thread in the list': async (tab, { server }) => {
    const title = unique('Live thread');
    const id = `T-0199${Date.now().toString(16).padStart(12, '0').slice(-4)}-${Math.random().toString(16).slice(2, 6)}-7000-8000-${Date.now().toString(16).padStart(12, '0')}`;
    await tab.go('/threads');
    const thread = { title, messages: [{ id: 'm1', role: 'user', content: 'Hello' }] };
    return () => tab.until(title, () => server.ask('PUT', `/api/threads/${id}`, thread));
  },
  'a run of a job': async (tab, { server }) => {
    await tab.go('/jobs?job=delivery-cleanup');
    const rows = () => [...document.querySelectorAll('section[aria-labelledby=history] tbody tr')]
      .filter((row) => row.textContent.includes('manual')).length;
    const before = await tab.page.evaluate(rows);
    return () => tab.untilTrue(
      (least) => [...document.querySelectorAll('section[aria-labelledby=history] tbody tr')]
        .filter((row) => row.textContent.includes('manual')).length > least,
      before, () => server.ask('POST', '/api/admin/jobs/delivery-cleanup/run'),
    );
  },
  'an issue that is new': async (tab, { server }) => {
    const project = (await server.ask('GET', '/api/crash/projects')).projects.find((one) => one.slug === 'shop-web');
    const dsn = new URL(project.dsn);
    const type = unique('LiveError').replaceAll('-', '');
    const event = { event_id: crypto.randomUUID().replaceAll('-', ''), platform: 'javascript', exception: { values: [{ type, value: 'seen at once' }] } };
    await tab.go('/crashes');
    return () => tab.until(type, () => fetch(`${server.url}/api/${project.number}/store/`, {
      method: 'POST', headers: { 'content-type': 'application/json', 'x-sentry-auth': `Sentry sentry_version=7, sentry_key=${dsn.username}` }, body: JSON.stringify(event),
    }));
  },
  'a run of a monitor': async (tab, { server }) => {
    await tab.go('/crons/exchange-rates');
    const output = unique('live-output');
    const rows = tab.page.locator('section[aria-labelledby=runs] tbody tr').first();
    await rows.waitFor();
    return () => tab.until(/exit 7\b/, () => server.ask('POST', '/api/crons/monitors/exchange-rates/checkins', { status: 'error', exit_code: 7, output }));
  },
  'a request to a model': async (tab, { server }) => {
    const tag = unique('live-request');
    await tab.go(`/llm/requests?tag=${tag}`);
    const rows = (count) => document.querySelectorAll('main tbody tr').length === count;
    return () => tab.untilTrue(rows, 1, () => fetch(`${server.url}/v1/chat/completions`, {
      method: 'POST', headers: { 'content-type': 'application/json', 'x-loom-org': server.organisation, 'x-loom-tags': tag },
      body: JSON.stringify({ model: 'loom-demo', messages: [{ role: 'user', content: 'Hello' }] }),
    }));
  },
  'a state of a weaver': async (tab, { server }) => {
    await tab.go('/weavers');
    const made = await server.ask('POST', '/api/weaver', { image: 'agent', tags: { live: unique('weaver') } })
      .catch((error) => { throw new Skip(error.message); });
    await tab.go(`/weavers/${made.id}`);
    await tab.seen(/running/i);
    return () => tab.until(/terminating|deleted/i, () => server.ask('DELETE', `/api/weaver/${made.id}`));
  },
};

const tests = {};
for (const [name, prepare] of Object.entries(acts)) {
  tests[`${name} is seen`] = async (browsing) => {
    const tab = await browsing.tab();
    const once = async () => (await prepare(tab, browsing))();
    const took = JUDGED.includes(name) ? await within(SOON, once) : await once();
    console.log(`        ${name}: ${took} ms`);
  };
}

tests['after a restart of the server all goes on by itself'] = async (browsing) => {
  const { server } = browsing;
  if (!server.isOurs) throw new Skip('the server is not ours to end');
  const acting = [];
  for (const name of JUDGED) {
    const tab = await browsing.tab();
    // While the server is away nothing can be asked of it.
    tab.expect(/Failed to load resource|ERR_|503/);
    acting.push([name, tab, await acts[name](tab, browsing)]);
  }
  const overview = await browsing.tab();
  overview.expect(/Failed to load resource|ERR_|503/);
  await overview.go('/');
  await server.stop('SIGKILL');
  for (const [, tab] of acting) await tab.seen(/Offline; what you see is from (now|\d+ sec)/);
  await overview.seen(/Offline/);
  assert.equal(await overview.page.locator('main [role=alert]').count(), 0, 'it is said once');
  await server.start();
  for (const [name, tab, act] of acting) {
    await tab.page.getByText(/^Offline/).first().waitFor({ state: 'detached' });
    let next = act;
    const took = await within(SOON, async () => {
      next ??= await acts[name](tab, browsing);
      const once = next;
      next = null;
      return once();
    });
    console.log(`        ${name}: ${took} ms`);
  }
  await overview.page.getByText(/^Offline/).first().waitFor({ state: 'detached' });
};

tests['what there is not is said, and is no outage'] = async (browsing) => {
  const tab = await browsing.tab();
  tab.expect(/404/);
  let asked = 0;
  tab.page.on('request', (request) => { if (request.url().includes('/api/live')) asked += 1; });
  await tab.go('/threads/T-01970c5e-7a3b-7c1d-9e2f-3a4b5c6d7e8f');
  await tab.seen(/no such thread/);
  await tab.seen(/^request /);
  await tab.page.waitForTimeout(2_500);
  assert.equal(await tab.page.getByText(/^Offline/).count(), 0);
  assert.ok(asked <= 2, `the stream was asked for ${asked} times`);
};

tests['a burst of lines is all there'] = async (browsing) => {
  const { server } = browsing;
  const tab = await browsing.tab();
  const id = unique('burst');
  await tab.go(`/logs?request_id=${id}`);
  for (let n = 0; n < 10; n += 1) {
    await Promise.all(Array.from({ length: 20 }, () => fetch(`${server.url}/auth/me`, { headers: { 'x-request-id': id } })));
  }
  await tab.page.waitForFunction((height) => document.querySelector('[role=log] > *')?.getBoundingClientRect().height >= height, 200 * 24);
  assert.ok((await tab.page.locator('[role=log] button').count()) < 120, 'only what is in sight is in the page');
};

export default tests;
