// When a job is to run, in words.
import type { Schemas } from './api';

const UNITS: Record<string, string> = { second: 's', minute: 'min', hour: 'h', day: 'days', week: 'weeks', month: 'months', year: 'years' };

export function scheduleOf(schedule: Schemas['Schedule']): string {
  if (schedule.type === 'crontab') return schedule.expression;
  return `every ${schedule.value} ${UNITS[schedule.unit] ?? schedule.unit}`;
}
