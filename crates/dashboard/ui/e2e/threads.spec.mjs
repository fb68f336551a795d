// Conversations: found, read, followed while they are written, shared, deleted and brought back.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';

import { Skip } from './browsing.mjs';

function threadId() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = 0x70 | (bytes[6] & 15);
  bytes[8] = 0x80 | (bytes[8] & 63);
  return `T-${bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')}`;
}

async function thread(server, draft) {
  const id = threadId();
  await server.ask('PUT', `/api/threads/${id}`, draft);
  return id;
}

const CODE = '```rust\nfn main() { println!("hello"); }\n```';

export default {
  'what was looked for is marked, counted by what it is, and led to': async (browsing) => {
    const { server } = browsing;
    const tab = await browsing.tab();
    const word = `kestrel${randomBytes(4).toString('hex')}`;
    const id = await thread(server, {
      title: 'Where birds are', tags: ['fauna'], git: { remote_url: 'git.example.com/team/birds', branch: 'main' },
      messages: [{ role: 'user', content: 'Hello' }, { role: 'assistant', content: `There is a ${word} over the field` }],
    });
    await tab.go('/threads');
    await tab.page.keyboard.press('/');
    await tab.page.keyboard.type(word);
    await tab.page.keyboard.press('Enter');
    assert.equal(await tab.page.locator('tbody mark').innerText(), word);
    await tab.page.getByLabel('Narrow it down').getByText('git.example.com/team/birds').click();
    await tab.page.waitForURL(/repo=git\.example\.com/);
    assert.match(tab.page.url(), new RegExp(`q=${word}`));
    await tab.page.keyboard.press('Escape');
    await tab.page.locator('h1').click();
    await tab.page.keyboard.press('j');
    await tab.page.keyboard.press('Enter');
    await tab.page.waitForURL(`**/threads/${id}?seq=2`);
    await tab.page.locator('#m-2.here').waitFor();
    await tab.go(`/threads?q=${word.replace('kestrel', 'kestrle')}x`);
    await tab.seen('No thread fits');
    await thread(server, { title: 'Quartzite layers', messages: [] });
    await tab.go('/threads?q=quartzte');
    await tab.seen('these have');
    await tab.page.getByRole('link', { name: 'Quartzite layers' }).first().waitFor();
    await tab.go('/threads?tag=fauna&pinned=true');
    await tab.seen('No thread fits');
  },

  'a conversation is read: Markdown, coloured code, tools with their results, nothing that acts': async (browsing) => {
    const { server } = browsing;
    const tab = await browsing.tab();
    const id = await thread(server, {
      title: 'What tools did',
      messages: [
        { role: 'system', content: 'Be careful.' },
        { role: 'user', content: 'Why? <img src=x onerror="document.title=\'taken\'"> <b style="color:red">b</b> [here](javascript:alert(1))' },
        { role: 'assistant', content: `# Found\n\n- [x] **it**\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n${CODE}`, tool_calls: [{ id: 'c1', type: 'function', function: { name: 'run', arguments: '{"command":"make"}' } }] },
        { role: 'tool', tool_call_id: 'c1', tool_name: 'run', content: `begin ${'line of output\n'.repeat(400)} the end` },
        { role: 'assistant', content: [{ type: 'tool_use', id: 'u1', name: 'read', input: { path: 'a.rs' } }] },
        { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'u1', content: 'no such file', is_error: true }] },
        { role: 'tool', tool_call_id: 'nobody', content: 'y'.repeat(90_000) },
      ],
    });
    await tab.go(`/threads/${id}`);
    await tab.page.locator('.markdown .hljs-keyword', { hasText: 'fn' }).waitFor();
    await tab.page.locator('.markdown strong', { hasText: 'it' }).waitFor();
    await tab.page.locator('.markdown td', { hasText: '2' }).waitFor();
    await tab.seen('onerror=');
    assert.equal(await tab.page.locator('.markdown img, .markdown b, .markdown a[href^=javascript]').count(), 0);
    assert.match(await tab.page.title(), /Loom$/);
    assert.equal(await tab.page.locator('article').count(), 5, 'results stand with their calls');
    await tab.page.locator('summary', { hasText: 'run' }).click();
    await tab.seen('begin line of output');
    assert.equal(await tab.page.getByText('the end').count(), 0);
    await tab.page.getByRole('button', { name: /Show all \(6/ }).click();
    await tab.page.locator('pre', { hasText: 'the end' }).waitFor();
    await tab.page.locator('summary', { hasText: 'failed' }).waitFor();
    await tab.page.getByRole('button', { name: /Show all \(90/ }).click();
    await tab.page.waitForFunction(() => [...document.querySelectorAll('pre')].some((one) => one.textContent.length === 90_000));
    await tab.go(`/threads/${id}?seq=6`);
    await tab.seen('no such file');
    await tab.accessible();
    await tab.screenshot('thread-read');
  },

  'what is written is seen at once, also while it is being written': async (browsing) => {
    const { server } = browsing;
    const tab = await browsing.tab();
    const id = await thread(server, { title: 'Live', messages: [{ role: 'user', content: 'Go' }] });
    await tab.go(`/threads/${id}`);
    await tab.seen('waits for its user');
    const state = await tab.until('agent asks the model', () => server.ask('PATCH', `/api/threads/${id}`, { agent_state: { kind: 'calling_llm' } }));
    const message = await tab.until('A new message', () => server.ask('POST', `/api/threads/${id}/messages`, { messages: [{ role: 'user', content: 'A new message' }] }));
    let offset = 0;
    const write = async (text, done = false) => {
      await server.ask('POST', `/api/threads/${id}/deltas`, { id: 'm-written', offset, text, done });
      offset += Buffer.byteLength(text);
    };
    await write('It begins – ');
    await tab.seen('It begins –');
    const piece = await tab.until('and grows', () => write('and **grows**'));
    await tab.page.locator('.markdown strong', { hasText: 'grows' }).waitFor();
    await write(' until its end.', true);
    await tab.seen('until its end.');
    console.log(`        live: state ${state} ms, message ${message} ms, piece ${piece} ms`);
    await tab.go('/threads');
    const title = `Made elsewhere ${randomBytes(4).toString('hex')}`;
    await tab.until(title, () => thread(server, { title, messages: [] }));
  },

  'it goes on where it was when the server was away': async (browsing) => {
    const { server } = browsing;
    if (!server.isOurs) throw new Skip('the server is not ours to end');
    const tab = await browsing.tab();
    tab.expect(/ERR_|Failed to load resource/);
    const id = await thread(server, { title: 'Through a restart', messages: [{ role: 'user', content: 'Before' }] });
    await tab.go(`/threads/${id}`);
    await server.stop();
    await tab.seen('Offline');
    await server.start();
    await server.ask('POST', `/api/threads/${id}/messages`, { messages: [{ role: 'user', content: 'Said after it' }] });
    await tab.seen('Said after it');
    await tab.page.getByText('Offline').waitFor({ state: 'detached' });
  },

  'it is renamed, pinned, deleted, and brought back': async (browsing) => {
    const { server } = browsing;
    const tab = await browsing.tab();
    const id = await thread(server, { title: 'Before', messages: [{ role: 'user', content: 'x' }] });
    await tab.go(`/threads/${id}`);
    await tab.page.getByRole('button', { name: 'Edit' }).click();
    await tab.page.getByLabel('Title').fill('After');
    await tab.page.getByLabel('Tags').fill('one, two');
    await tab.page.getByLabel('all members of the organisation').check();
    await tab.page.getByRole('button', { name: 'Save' }).click();
    await tab.page.getByRole('heading', { name: 'After' }).waitFor();
    await tab.seen('#two');
    await tab.page.getByRole('button', { name: 'Undo' }).click();
    await tab.page.getByRole('heading', { name: 'Before' }).waitFor();
    await tab.page.getByRole('button', { name: 'Pin', exact: true }).click();
    await tab.page.getByRole('button', { name: 'Unpin' }).waitFor();
    await tab.page.getByRole('button', { name: 'Delete' }).click();
    await tab.page.waitForURL('**/threads');
    await tab.page.getByRole('button', { name: 'Undo' }).click();
    await tab.page.waitForURL(`**/threads/${id}`);
    await tab.page.getByRole('heading', { name: 'Before' }).waitFor();
    await server.ask('DELETE', `/api/threads/${id}`);
    await tab.seen('This thread was deleted');
    await tab.go('/threads?deleted=true');
    await tab.page.locator('tr', { hasText: 'Before' }).first().getByRole('button', { name: 'Restore' }).click();
    await tab.seen('The thread is back');
  },

  'a link shows it to who is not signed in, until it is withdrawn': async (browsing) => {
    const { server } = browsing;
    const tab = await browsing.tab();
    const id = await thread(server, { title: 'For others', messages: [{ role: 'user', content: 'To be read by all' }] });
    await tab.go(`/threads/${id}`);
    await tab.page.getByRole('button', { name: 'Share' }).click();
    await tab.page.getByRole('button', { name: 'Make the link' }).click();
    const link = await tab.page.locator('dialog .copy code').innerText();
    const read = () => fetch(link, { headers: { accept: 'text/html' } });
    assert.match(await (await read()).text(), /To be read by all/);
    await tab.accessible();
    await tab.page.getByRole('button', { name: 'Withdraw the link' }).click();
    await tab.page.getByRole('button', { name: 'Withdraw', exact: true }).click();
    await tab.seen('The link was withdrawn');
    assert.equal((await read()).status, 404);
  },

  'ten thousand messages are no load': async (browsing) => {
    const { server } = browsing;
    const tab = await browsing.tab();
    const messages = Array.from({ length: 10_000 }, (_, at) => ({ role: at % 2 ? 'assistant' : 'user', content: `Number ${at + 1} **of many** ${'words '.repeat(at % 60)}${at % 10 ? '' : `\n\n${CODE}`}` }));
    const id = await thread(server, { title: 'Long', messages });
    const begun = performance.now();
    await tab.go(`/threads/${id}?seq=7000`);
    await tab.page.locator('#m-7000.here').waitFor();
    const took = Math.round(performance.now() - begun);
    await tab.page.waitForFunction(() => {
      const { top } = document.querySelector('#m-7000').getBoundingClientRect();
      return top > -50 && top < 300;
    });
    const there = await tab.page.locator('article').count();
    assert.ok(there < 400, `${there} are in the page`);
    const longest = await tab.page.evaluate(async () => {
      let longest = 0;
      let last = performance.now();
      for (let step = 0; step < 60; step += 1) {
        window.scrollBy(0, 600);
        await new Promise(requestAnimationFrame);
        const now = performance.now();
        longest = Math.max(longest, now - last);
        last = now;
      }
      return Math.round(longest);
    });
    console.log(`        shown after ${took} ms with ${there} in the page; the longest frame of scrolling ${longest} ms`);
    await tab.page.getByRole('link', { name: 'Last message' }).click();
    await tab.page.locator('#m-10000.here').waitFor();
  },
};
