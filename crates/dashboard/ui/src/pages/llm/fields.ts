// What a credential of each kind has; what is secret is written and never read.
import { Problem, type Schemas } from '../../lib/api';

export type Kind = Schemas['CredentialKind'];

export interface Field {
  name: string;
  title: string;
  secret?: boolean;
  required?: boolean;
  /** Of several lines. */
  long?: boolean;
  number?: boolean;
  hint?: string;
}

export const KINDS: Record<Kind, { name: string; fields: Field[] }> = {
  api_key: { name: 'A key', fields: [{ name: 'secret', title: 'Key', secret: true, required: true }] },
  oauth: {
    name: 'OAuth, with a refresh token',
    fields: [
      { name: 'token_url', title: 'Token URL', required: true, hint: 'https://' },
      { name: 'refresh_token', title: 'Refresh token', secret: true, required: true },
      { name: 'client_id', title: 'Client id' },
      { name: 'client_secret', title: 'Client secret', secret: true },
      { name: 'scope', title: 'Scope' },
      { name: 'access_token', title: 'Access token, if there is one', secret: true },
      { name: 'expires_in', title: 'which ends in so many seconds', number: true },
    ],
  },
  google_service_account: {
    name: 'A service account of Google',
    fields: [{ name: 'service_account', title: 'The key file', secret: true, required: true, long: true, hint: '{"type": "service_account", …' }],
  },
  workload_identity: {
    name: 'Workload identity',
    fields: [
      { name: 'assertion_file', title: 'File of the assertion, on the server', required: true },
      { name: 'token_url', title: 'Token URL' },
      { name: 'federation_rule_id', title: 'Federation rule' },
      { name: 'organization_id', title: 'Organisation' },
      { name: 'service_account_id', title: 'Service account' },
      { name: 'workspace_id', title: 'Workspace' },
    ],
  },
};

/** What the API takes, of what was typed; empty fields stay out. */
export function typed(fields: Field[], values: Record<string, unknown>): Record<string, unknown> {
  const body: Record<string, unknown> = {};
  for (const field of fields) {
    const value = String(values[field.name] ?? '').trim();
    if (value) body[field.name] = field.number ? Number(value) : field.long ? json(field.title, value) : value;
  }
  return body;
}

function json(title: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Problem(0, 'no_json', `${title} is no JSON.`, null);
  }
}
