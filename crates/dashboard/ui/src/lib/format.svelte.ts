// Times, durations, numbers, money, as people read them.

/** Goes on every 10 s, so that relative times do. */
export const clock = $state({ now: Date.now() });
setInterval(() => (clock.now = Date.now()), 10_000);

const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto', style: 'short' });
const local = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ['year', 31_536_000],
  ['month', 2_592_000],
  ['week', 604_800],
  ['day', 86_400],
  ['hour', 3_600],
  ['minute', 60],
];

export function ago(at: string | number): string {
  const seconds = (new Date(at).getTime() - clock.now) / 1000;
  for (const [unit, length] of STEPS) {
    if (Math.abs(seconds) >= length) return relative.format(Math.trunc(seconds / length), unit);
  }
  return Math.abs(seconds) < 10 ? 'now' : relative.format(Math.trunc(seconds), 'second');
}

/** The reader's own time, and the same in UTC. */
export function exact(at: string | number): string {
  const date = new Date(at);
  return `${local.format(date)} · ${date.toISOString().replace('T', ' ').replace(/\.\d+Z$/, ' UTC')}`;
}

export function duration(ms: number): string {
  if (Math.round(ms) < 1000) return `${Math.round(ms)} ms`;
  if (ms < 59_500) return `${parseFloat((ms / 1000).toFixed(ms < 10_000 ? 1 : 0))} s`;
  const seconds = Math.round(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const two = (much: string, rest: number, unit: string) => (rest > 0 ? `${much} ${rest} ${unit}` : much);
  if (minutes < 60) return two(`${minutes} min`, seconds % 60, 's');
  return hours < 48 ? two(`${hours} h`, minutes % 60, 'min') : two(`${Math.floor(hours / 24)} d`, hours % 24, 'h');
}

const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

export function count(number: number): string {
  return Math.abs(number) < 10_000 ? number.toLocaleString('en') : compact.format(number);
}

export function usd(dollars: number): string {
  const digits = dollars !== 0 && Math.abs(dollars) < 1 ? 4 : 2;
  return `$${dollars.toLocaleString('en', { minimumFractionDigits: 2, maximumFractionDigits: digits })}`;
}

export function percent(share: number | null | undefined): string {
  return share === null || share === undefined ? '–' : `${(Math.floor(share * 100) / 100).toFixed(2)} %`;
}

export function bytes(number: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let left = number;
  while (left >= 1024 && unit < units.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${left.toFixed(unit === 0 || left >= 100 ? 0 : 1)} ${units[unit]}`;
}
