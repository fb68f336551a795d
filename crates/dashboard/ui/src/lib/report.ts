// What goes wrong in the page goes where the server's own errors do: to a project of Loom's own organisation.
// The SDK is loaded with the first error, and does nothing but send it.
import { api, data, Problem } from './api';
import type { Sender } from './sender';

/** Of one tab, so that a page that fails over and over tells no more than that it does. */
const MOST = 20;
const told = new Set<string>();
let sending: Promise<Sender | null> | undefined;

async function connect(): Promise<Sender | null> {
  const [sdk, config, health] = await Promise.all([
    import('./sender'),
    data(api.GET('/api/self-monitoring/web-config')),
    data(api.GET('/health')),
  ]);
  // The page may talk to nobody but its own server, whatever that calls itself.
  const dsn = new URL(config.dsn);
  dsn.protocol = location.protocol;
  dsn.host = location.host;
  return sdk.sender(dsn.href, health.version.git_sha);
}

/** Sends an error, once; what the server refused or a lost connection is none of the page. */
export async function report(error: unknown, handled: boolean) {
  if (error instanceof Problem || told.size >= MOST) return;
  const key = error instanceof Error ? (error.stack ?? error.message) : String(error);
  if (told.has(key)) return;
  told.add(key);
  sending ??= connect().catch(() => null);
  const client = await sending;
  client?.captureException(error, {
    mechanism: { handled, type: 'dashboard' },
    captureContext: { tags: { page: location.pathname.split('/')[1] || 'overview' } },
  });
}

export function reportAll() {
  addEventListener('error', (event) => {
    if (event.error) void report(event.error, false);
  });
  addEventListener('unhandledrejection', (event) => void report(event.reason, false));
}
