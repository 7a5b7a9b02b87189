/**
 * Dates of the protocol: `date` in SEARCH, `date-time` in APPEND and INTERNALDATE (RFC 9051 section 9).
 */
import type { Cursor } from './cursor.js';
import { ImapSyntaxError } from './limits.js';

export const msPerDay = 86_400_000;
const monthNames = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const datePattern = /^(\d{1,2})-([A-Za-z]{3})-(\d{4})$/;
const dateTimePattern = /^([ \d]\d)-([A-Za-z]{3})-(\d{4}) (\d{2}):(\d{2}):(\d{2}) ([+-])(\d{2})(\d{2})$/;

function utcMs(year: number, monthName: string, day: number): number {
  const month = monthNames.findIndex((name) => name.toLowerCase() === monthName.toLowerCase());
  // Date.UTC takes years below 100 for 19xx.
  const date = new Date(0);
  date.setUTCFullYear(year, month, day);
  if (month < 0 || date.getUTCDate() !== day || date.getUTCMonth() !== month) throw new ImapSyntaxError('Bad date');
  return date.getTime();
}

/** `1-Feb-1994`, perhaps quoted, as a day number since the epoch. */
export function readDate(cursor: Cursor): number {
  const text = cursor.sees('"') ? cursor.quoted() : cursor.atom();
  const match = datePattern.exec(text);
  if (!match) throw new ImapSyntaxError('Bad date');
  return utcMs(Number(match[3]), match[2]!, Number(match[1])) / msPerDay;
}

/** `"17-Jul-1996 02:44:25 -0700"` (without the quotes) in milliseconds since the epoch. */
export function parseDateTime(text: string): number {
  const match = dateTimePattern.exec(text);
  if (!match) throw new ImapSyntaxError('Bad date-time');
  const [, day, month, year, hours, minutes, seconds, sign, zoneHours, zoneMinutes] = match;
  const [h, m, s, zh, zm] = [Number(hours), Number(minutes), Number(seconds), Number(zoneHours), Number(zoneMinutes)];
  if (h > 23 || m > 59 || s > 60 || zh > 23 || zm > 59) throw new ImapSyntaxError('Bad date-time');
  const offsetMs = (zh * 60 + zm) * 60_000 * (sign === '-' ? -1 : 1);
  return utcMs(Number(year), month!, Number(day)) + (h * 3600 + m * 60 + s) * 1000 - offsetMs;
}

const twoDigits = Array.from({ length: 60 }, (_, n) => (n < 10 ? `0${n}` : `${n}`));

/** A `date-time` in UTC, without quotes; the day is padded with a space. */
export function formatDateTime(ms: number): string {
  const date = new Date(ms);
  const day = date.getUTCDate();
  const clock = `${twoDigits[date.getUTCHours()]}:${twoDigits[date.getUTCMinutes()]}:${twoDigits[date.getUTCSeconds()]}`;
  const year = String(date.getUTCFullYear()).padStart(4, '0');
  return `${day < 10 ? ' ' : ''}${day}-${monthNames[date.getUTCMonth()]}-${year} ${clock} +0000`;
}
