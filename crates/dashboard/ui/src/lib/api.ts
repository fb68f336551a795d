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
    /** What is wrong with which field of what was sent. */
    readonly errors: Schemas['FieldError'][] = [],
  ) {
    super(message);
  }
}

/** The organisation that is looked at, by id, where somebody has several; none is their first. */
export const organisation = { id: localStorage.getItem('loom.org') };

export function chooseOrganisation(id: string | null) {
  organisation.id = id;
  if (id) localStorage.setItem('loom.org', id);
  else localStorage.removeItem('loom.org');
}

const inOrganisation: Middleware = {
  onRequest({ request }) {
    if (organisation.id) request.headers.set('x-loom-org', organisation.id);
    return request;
  },
};

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
      Array.isArray(body.errors) ? body.errors : [],
    );
  },
  onError() {
    return new Problem(0, 'offline', 'the server cannot be reached', null);
  },
};

export const api = createClient<paths>({ baseUrl: location.origin });
api.use(inOrganisation, problems);

/** For addresses that a link, an image or a socket asks for, which cannot send a header. */
export function addressOf(path: string): string {
  if (!organisation.id) return path;
  return `${path}${path.includes('?') ? '&' : '?'}org=${encodeURIComponent(organisation.id)}`;
}

/** Signs in, and comes back here. */
export function signIn() {
  const here = encodeURIComponent(location.pathname + location.search);
  location.assign(`/auth/sign-in?redirect=${here}`);
}

/** The data of an answer; failures were thrown. */
export async function data<T>(answer: Promise<{ data?: T }>): Promise<T> {
  return (await answer).data as T;
}
