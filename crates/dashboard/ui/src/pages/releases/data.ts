// What the pages of releases ask for, and how they say it.
import { api, data, Problem, type Schemas } from '../../lib/api';
import type { Period } from '../../lib/period';

export type Health = Schemas['AppSessionReleaseDetail'];
export type Facts = Schemas['ReleaseView'];

/** The value, or null where there is no such thing. */
export async function orNone<T>(answer: Promise<T>): Promise<T | null> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return null;
    throw error;
  }
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
