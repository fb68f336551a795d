// Usage as a page shows it: what it is grouped by, what is measured of it, and series over time.
import type { Schemas } from '../../lib/api';
import { count, duration, usd } from '../../lib/format.svelte';
import { steps } from '../../lib/period';

export type Numbers = Schemas['LlmUsageNumbers'];
export type Group = Schemas['LlmUsageGroup'];
export type Report = Schemas['LlmUsageReport'];

/** The name of a group's member, and the filter of the requests that are in it. */
export const GROUPS = {
  model: { name: 'Model', member: 'model', filter: 'model' },
  provider: { name: 'Provider', member: 'provider', filter: 'provider' },
  user: { name: 'User', member: 'user_id', filter: 'user_id' },
  api_key: { name: 'Key', member: 'api_key_id', filter: 'api_key_id' },
  thread: { name: 'Thread', member: 'thread_id', filter: 'thread_id' },
  weaver: { name: 'Weaver', member: 'weaver_id', filter: 'weaver_id' },
  tag: { name: 'Tag', member: 'tag', filter: 'tag' },
} as const;
export type By = keyof typeof GROUPS;

interface Measure {
  name: string;
  of(numbers: Numbers): number | null;
  say(value: number): string;
  /** Whether groups add up to the whole. */
  adds: boolean;
}

export const tokens = (one: Numbers) =>
  one.input_tokens + one.output_tokens + one.cache_read_tokens + one.cache_write_tokens;
const ms = (value: number) => duration(value);

export const MEASURES = {
  cost: { name: 'Cost', of: (one) => one.cost_usd, say: usd, adds: true },
  requests: { name: 'Requests', of: (one) => one.requests, say: count, adds: true },
  tokens: { name: 'Tokens', of: tokens, say: count, adds: true },
  errors: { name: 'Errors', of: (one) => one.errors, say: count, adds: true },
  latency: { name: 'Latency', of: (one) => one.latency_p95_ms ?? null, say: ms, adds: false },
  first_token: { name: 'First token', of: (one) => one.first_token_p95_ms ?? null, say: ms, adds: false },
} satisfies Record<string, Measure>;
export type Measured = keyof typeof MEASURES;

export const keyOf = (group: Group, by: By) => {
  const value = (group as unknown as Record<string, unknown>)[GROUPS[by].member];
  return typeof value === 'string' ? value : null;
};

interface Series {
  name: string;
  values: (number | null)[];
}

/** The measure over time: of each group and of what is left, or its percentiles, of all. */
export function series(all: Report, split: Report, by: By, measured: Measured, name: (key: string | null) => string) {
  const at = steps(all.from, all.to, all.group_by[0] === 'hour' ? 'hour' : 'day');
  const index = new Map(at.map((time, position) => [time, position]));
  const line = (groups: Group[], of: (one: Numbers) => number | null, rest: number | null) => {
    const values: (number | null)[] = at.map(() => rest);
    for (const group of groups) {
      const position = index.get(new Date(group.at ?? 0).getTime());
      // A model that two providers serve is two groups.
      if (position !== undefined) values[position] = rest === null ? of(group) : (values[position] ?? 0) + (of(group) ?? 0);
    }
    return values;
  };
  const measure = MEASURES[measured];
  if (measured === 'latency' || measured === 'first_token') {
    const half = measured === 'latency' ? 'latency_p50_ms' : 'first_token_p50_ms';
    return {
      at,
      series: [
        { name: 'p50', values: line(all.groups, (one) => one[half] ?? null, null) },
        { name: 'p95', values: line(all.groups, measure.of, null) },
      ],
    };
  }
  const keys = [...new Set(split.groups.map((group) => keyOf(group, by)))];
  // Two users, or threads, may have the same name.
  const named = keys.map(name);
  const shown: Series[] = keys.map((key, index) => ({
    name: named.indexOf(name(key)) === index ? name(key) : `${name(key)} (${index + 1})`,
    values: line(split.groups.filter((group) => keyOf(group, by) === key), measure.of, 0),
  }));
  // A request with several tags is in the group of each, so that nothing is left to tell.
  const others = line(all.groups, measure.of, 0).map((value, position) =>
    Math.max(0, (value ?? 0) - shown.reduce((sum, one) => sum + (one.values[position] ?? 0), 0)),
  );
  if (by !== 'tag' && others.some((value) => value > 1e-9)) shown.push({ name: 'Others', values: others });
  return { at, series: shown };
}
