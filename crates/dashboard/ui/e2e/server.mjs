// The server that the tests look at: a process that can be ended and started again at the same port.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';

const PATIENCE = 60_000;

export function chromiumProgram() {
  if (process.env.LOOM_TEST_CHROMIUM) return process.env.LOOM_TEST_CHROMIUM;
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    for (const name of ['chromium', 'chromium-browser', 'google-chrome']) {
      if (existsSync(join(folder, name))) return join(folder, name);
    }
  }
  throw new Error('no Chromium: `.ci/setup browser` installs it, LOOM_TEST_CHROMIUM names one');
}

/** In which organisation the demo data is. */
const ORGANISATION = process.env.LOOM_E2E_ORG ?? 'acme-shop';

export async function serverOf() {
  const program = process.env.LOOM_E2E_SERVER;
  const server = program
    ? new Server(`http://localhost:${await freePort()}`, program)
    : new Server(process.env.LOOM_E2E_URL ?? 'http://localhost:8080', null);
  if (program) await server.start();
  const me = await server.ask('GET', '/auth/me');
  server.organisation = me.organisations.find((one) => one.slug === ORGANISATION)?.id;
  if (!server.organisation) throw new Error(`no organisation ${ORGANISATION}: run \`loom-server demo-data\` first`);
  return server;
}

class Server {
  #child = null;
  #log = '';

  constructor(url, program) {
    this.url = url;
    this.program = program;
  }

  /** Can it be ended and started? */
  get isOurs() {
    return this.program !== null;
  }

  log() {
    return this.#log;
  }

  async start() {
    const env = { ...process.env, LOOM_SERVER_HOST: '127.0.0.1', LOOM_SERVER_PORT: new URL(this.url).port };
    const child = spawn(this.program, ['serve', '--demo'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const keep = (piece) => { this.#log = (this.#log + piece).slice(-200_000); };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    this.#child = child;
    const until = Date.now() + PATIENCE;
    while (Date.now() < until) {
      if (child.exitCode !== null) break;
      const ready = await fetch(`${this.url}/health/ready`).catch(() => null);
      if (ready?.ok) return;
      await new Promise((done) => setTimeout(done, 50));
    }
    throw new Error(`the server does not come up:\n${this.#log}`);
  }

  /** As a machine that is switched off does, or in good order. */
  async stop(signal = 'SIGTERM') {
    const child = this.#child;
    this.#child = null;
    if (!child || child.exitCode !== null) return;
    const ended = new Promise((done) => child.once('exit', done));
    child.kill(signal);
    await ended;
  }

  /** A request as the development user, in the organisation of the demo data. */
  async ask(method, path, body) {
    const headers = { 'content-type': 'application/json' };
    if (this.organisation) headers['x-loom-org'] = this.organisation;
    const answer = await fetch(this.url + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : null;
  }
}

async function freePort() {
  const listener = createServer();
  await new Promise((done) => listener.listen(0, '127.0.0.1', done));
  const { port } = listener.address();
  await new Promise((done) => listener.close(done));
  return port;
}
