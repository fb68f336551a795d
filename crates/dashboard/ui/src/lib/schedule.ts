// When a job is to run, and why a run is not what it should be, in words.
import type { Schemas } from './api';

const UNITS: Record<string, string> = { second: 's', minute: 'min', hour: 'h', day: 'days', week: 'weeks', month: 'months', year: 'years' };

export function scheduleOf(schedule: Schemas['Schedule']): string {
  if (schedule.type === 'crontab') return schedule.expression;
  return `every ${schedule.value} ${UNITS[schedule.unit] ?? schedule.unit}`;
}

export const REASONS: Record<string, string> = {
  too_short: 'it was over too soon', too_long: 'it took too long', not_started: 'it did not begin', no_sign: 'it gave no sign of its end',
  server_down: 'this server was down',
};
