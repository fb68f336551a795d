// The server's API, typed by its own document.
import createClient, { type Middleware } from 'openapi-fetch';

import type { components, paths } from './schema';

export type Schemas = components['schemas'];

/** What went wrong, as the server said it (RFC 9457). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly requestId: string | null,
  ) {
    super(message);
  }
}

const problems: Middleware = {
  async onResponse({ response }) {
    if (response.ok) return undefined;
    if (response.status === 401) signIn();
    const body = await response.json().catch(() => ({}));
    throw new Problem(
      response.status,
      body.code ?? 'http_error',
      body.detail ?? body.title ?? `the server answered ${response.status}`,
      response.headers.get('x-request-id'),
    );
  },
  onError() {
    return new Problem(0, 'offline', 'the server cannot be reached', null);
  },
};

export const api = createClient<paths>({ baseUrl: location.origin });
api.use(problems);

/** Signs in, and comes back here. */
export function signIn() {
  const here = encodeURIComponent(location.pathname + location.search);
  location.assign(`/auth/sign-in?redirect=${here}`);
}

/** The data of an answer; failures were thrown. */
export async function data<T>(answer: Promise<{ data?: T }>): Promise<T> {
  return (await answer).data as T;
}
