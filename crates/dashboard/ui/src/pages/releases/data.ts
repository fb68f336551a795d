// What the pages of releases ask for, and how they say it.
import { api, data, type Schemas } from '../../lib/api';
import type { Period } from '../../lib/period';

export type Health = Schemas['AppSessionReleaseDetail'];
export type Facts = Schemas['ReleaseView'];

/** How a release does; null where no session is known of it, which the list knows. */
export async function healthOf(project: string, version: string, environment?: string): Promise<Health | null> {
  const query = { project, environment, release: version, limit: 1 };
  const { releases } = await data(api.GET('/api/app-sessions/releases', { params: { query } }));
  if (releases.length === 0) return null;
  const of = { path: { version }, query: { project, environment } };
  return data(api.GET('/api/app-sessions/releases/{version}', { params: of }));
}

/** What is known of it beside its sessions: null when it has neither events nor commits nor deploys. */
export async function factsOf(project: string, version: string): Promise<Facts | null> {
  const asked = { path: { project }, query: { query: version, limit: 200 } };
  const { releases } = await data(api.GET('/api/crash/projects/{project}/releases', { params: asked }));
  return releases.find((one) => one.version === version) ?? null;
}

export function addressOfRelease(project: string, version: string, environment?: string): string {
  const query = environment ? `?environment=${encodeURIComponent(environment)}` : '';
  return `/releases/${encodeURIComponent(project)}/${encodeURIComponent(version)}${query}`;
}

const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;
const INTERVALS: Record<string, string> = { '24h': '1h', '7d': '6h', '30d': '1d', '90d': '1d' };

interface Of {
  project: string;
  environment?: string;
  release?: string;
}

/** A field over a period, in the reader's own days. */
export function seriesOf(of: Of, field: Schemas['AppSessionField'], period: Period) {
  const interval = INTERVALS[period.span] ?? (period.by === 'hour' ? '1h' : '1d');
  const query = { ...of, field, interval, timezone: ZONE, from: period.from, to: period.to };
  return data(api.GET('/api/app-sessions/series', { params: { query } }));
}

export const times = (series: Schemas['AppSessionSeries']) => series.points.map((point) => new Date(point.at).getTime());
export const values = (series: Schemas['AppSessionSeries']) => series.points.map((point) => point.value ?? null);

/** The share of some sessions in all of them, in per cent. */
export function shares(some: Schemas['AppSessionSeries'], all: Schemas['AppSessionSeries']): (number | null)[] {
  const whole = new Map(all.points.map((point) => [point.at, point.value ?? 0]));
  return some.points.map((point) => {
    const sum = whole.get(point.at) ?? 0;
    return sum > 0 ? (100 * (point.value ?? 0)) / sum : null;
  });
}

export const STAGES: Record<string, string> = { new: 'running', growing: 'running', adopted: 'available', declining: 'off' };

/** A value of the search language, whatever is in it. */
export const quoted = (text: string) => `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
