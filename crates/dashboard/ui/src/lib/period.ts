// The time that a page looks at, as the address has it: the last so many hours or days, or from one day to another.

export const SPANS = { '24h': 'Last 24 hours', '7d': 'Last 7 days', '30d': 'Last 30 days', '90d': 'Last 90 days' } as const;
export type Span = keyof typeof SPANS;

export interface Period {
  /** The chosen span; `days` where two days are given, `any` where nothing is. */
  span: Span | 'days' | 'any';
  from?: string;
  to?: string;
  /** What a chart of it is counted by. */
  by: 'hour' | 'day';
}

const HOUR = 3_600_000;
const LENGTH: Record<Span, number> = { '24h': 24 * HOUR, '7d': 168 * HOUR, '30d': 720 * HOUR, '90d': 2160 * HOUR };
const DAY = /^\d{4}-\d{2}-\d{2}$/;

/** `fallback` holds when the address says nothing. Days are the reader's own, both of them whole. */
export function periodOf(query: URLSearchParams, fallback: Span | 'any'): Period {
  const [first, last] = [query.get('from'), query.get('to')];
  if (first && DAY.test(first)) {
    const from = new Date(`${first}T00:00`);
    const to = new Date(`${last && DAY.test(last) ? last : first}T00:00`);
    to.setDate(to.getDate() + 1);
    const by = to.getTime() - from.getTime() > 8 * 24 * HOUR ? 'day' : 'hour';
    return { span: 'days', from: from.toISOString(), to: to.getTime() < Date.now() ? to.toISOString() : undefined, by };
  }
  const asked = query.get('span') ?? fallback;
  if (!(asked in LENGTH)) return { span: 'any', by: 'day' };
  const span = asked as Span;
  return {
    span,
    from: new Date(Date.now() - LENGTH[span]).toISOString(),
    by: LENGTH[span] > 8 * 24 * HOUR ? 'day' : 'hour',
  };
}

/** Where the hours or days (of UTC) of a time begin, in milliseconds. */
export function steps(from: string, to: string, by: 'hour' | 'day'): number[] {
  const step = by === 'hour' ? HOUR : 24 * HOUR;
  const begin = Math.floor(new Date(from).getTime() / step) * step;
  const end = new Date(to).getTime();
  const all: number[] = [];
  for (let at = begin; at < end; at += step) all.push(at);
  return all;
}
