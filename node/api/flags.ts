/** What operations read out of their arguments, and how they complain. */
import { type OperationArguments, OperationRefused } from './operation.js';

type Flag = OperationArguments['flags'][string];

export const textFlag = (value: Flag): string | undefined => (typeof value === 'string' ? value : undefined);
export const listFlag = (value: Flag): string[] | undefined => (Array.isArray(value) ? value : undefined);

export function wholeNumber(value: string, what: string): number {
  if (/^\d{1,9}$/.test(value)) return Number(value);
  throw new OperationRefused(`${what} is a whole number, not '${value.slice(0, 40)}'`);
}

const unitSeconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400, w: 604_800 };

/** `90`, `90s`, `15m`, `2h`, `7d`, `4w`: seconds, at least one. */
export function durationSeconds(value: string, what: string): number {
  const [, count, unit = 's'] = /^(\d{1,9})([smhdw]?)$/.exec(value) ?? [];
  const seconds = Number(count) * unitSeconds[unit || 's']!;
  if (seconds >= 1 && seconds <= 100 * 365 * 86_400) return seconds;
  throw new OperationRefused(`${what} is a time such as 90s, 15m, 2h or 7d, not '${value.slice(0, 40)}'`);
}

/** Whoever asks, as the command line says; for histories. */
export const operatorOf = ({ flags }: OperationArguments): string => textFlag(flags['who']) ?? 'unknown';

export const isoTime = (ms: number): string => new Date(ms).toISOString();
