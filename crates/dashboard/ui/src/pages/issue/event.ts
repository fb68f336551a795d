// An event, as its page shows it; the API gives it as it came, completed by what was found out.
import type { Exception } from '../../ui/Stack.svelte';

export interface Crumb { timestamp?: string | number; category?: string; level?: string; message?: string; type?: string; data?: unknown }

export interface Seen {
  id: string;
  at: string;
  received_at: string;
  message?: unknown;
  release?: string | null;
  dist?: string | null;
  environment?: string | null;
  platform?: string | null;
  transaction?: string | null;
  trace_id?: string | null;
  logger?: string | null;
  fingerprint?: string[] | null;
  sdk?: { name?: string; version?: string } | null;
  exceptions?: Exception[];
  threads?: (Exception & { id?: unknown; name?: string | null; crashed?: boolean; current?: boolean })[];
  breadcrumbs?: Crumb[];
  tags?: Record<string, string> | null;
  contexts?: Record<string, unknown> | null;
  user?: Record<string, unknown> | null;
  request?: Record<string, unknown> | null;
  extra?: Record<string, unknown> | null;
  modules?: Record<string, string> | null;
  attachments?: { id: string; name: string; content_type?: string | null; kind: string; size: number }[];
  feedback?: { id: string; name?: string | null; email?: string | null; message: string; received_at: string }[];
  missing_files?: Record<string, unknown>[] | null;
  faults?: unknown[] | null;
  thread?: { id: string; title?: string | null } | null;
  previous_event_id?: string | null;
  next_event_id?: string | null;
  raw?: unknown;
}

/** SDKs say seconds since 1970 or write the time out. */
export function timeOf(stamp: string | number | undefined): number | undefined {
  if (stamp === undefined) return undefined;
  const at = typeof stamp === 'number' ? stamp * 1000 : Date.parse(stamp);
  return Number.isFinite(at) ? at : undefined;
}

/** Objects as lines of names and values. */
export function facts(of: Record<string, unknown> | null | undefined, before = ''): [string, string][] {
  return Object.entries(of ?? {}).flatMap(([name, value]): [string, string][] => {
    if (value === null || value === undefined || value === '') return [];
    if (typeof value === 'object' && !Array.isArray(value) && before.split('.').length < 3) return facts(value as Record<string, unknown>, `${before}${name}.`);
    return [[`${before}${name}`, typeof value === 'string' ? value : JSON.stringify(value)]];
  });
}
