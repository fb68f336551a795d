// The part of the SDK that sends, and no more of it.
import { BrowserClient, defaultStackParser, makeFetchTransport } from '@sentry/browser';

export type Sender = BrowserClient;

export function sender(dsn: string, release: string): Sender {
  const client = new BrowserClient({
    dsn,
    release,
    environment: 'dashboard',
    transport: makeFetchTransport,
    stackParser: defaultStackParser,
    integrations: [],
  });
  client.init();
  return client;
}
