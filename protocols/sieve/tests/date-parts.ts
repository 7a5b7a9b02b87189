/** The parts of a date that `date` and `currentdate` compare (RFC 5260 4.2). */
import { formatDate } from '../../message/index.js';
import { type CompileContext, type Run, SieveRunError, type Text } from '../contract.js';

/** What a part is, of the date as it is in its zone (`local`: shifted, read as UTC). */
type PartOf = (local: Date, zoneMinutes: number) => string;

const digits = (value: number, length: number) => String(value).padStart(length, '0');
const date: PartOf = (local) =>
  `${digits(local.getUTCFullYear(), 4)}-${digits(local.getUTCMonth() + 1, 2)}-${digits(local.getUTCDate(), 2)}`;
const time: PartOf = (local) =>
  `${digits(local.getUTCHours(), 2)}:${digits(local.getUTCMinutes(), 2)}:${digits(local.getUTCSeconds(), 2)}`;

const dayMs = 86_400_000;
/** Modified Julian Day of 1 January 1970. */
const epochJulianDay = 40_587;

const parts: Readonly<Record<string, PartOf>> = {
  year: (local) => digits(local.getUTCFullYear(), 4),
  month: (local) => digits(local.getUTCMonth() + 1, 2),
  day: (local) => digits(local.getUTCDate(), 2),
  date,
  julian: (local) => String(Math.floor(local.getTime() / dayMs) + epochJulianDay),
  hour: (local) => digits(local.getUTCHours(), 2),
  minute: (local) => digits(local.getUTCMinutes(), 2),
  second: (local) => digits(local.getUTCSeconds(), 2),
  time,
  // RFC 3339 5.6; zero is "Z".
  iso8601: (local, zoneMinutes) => `${date(local, 0)}T${time(local, 0)}${zoneMinutes === 0 ? 'Z' : zone(zoneMinutes, ':')}`,
  std11: (local, zoneMinutes) => formatDate(local.getTime() - zoneMinutes * 60_000, zoneMinutes),
  zone: (_local, zoneMinutes) => zone(zoneMinutes, ''),
  weekday: (local) => String(local.getUTCDay()),
};

function zone(minutes: number, separator: string): string {
  const east = Math.abs(minutes);
  return `${minutes < 0 ? '-' : '+'}${digits(Math.floor(east / 60), 2)}${separator}${digits(east % 60, 2)}`;
}

/** Years that mail can have; RFC 5260 4.2 has four digits for them. */
const leastYear = 1900;
const mostYear = 9999;

/** The value of a part; undefined for a date that is out of range. */
export type DatePart = (run: Run, epochMs: number, zoneMinutes: number) => string | undefined;

/** The part that the script names; unknown ones are refused. */
export function datePartOf(name: Text, context: CompileContext): DatePart {
  const constant = name.constant === undefined ? undefined : partNamed(name.constant);
  if (name.constant !== undefined && !constant) context.fail(`a date has no part '${name.constant.slice(0, 64)}'`, name.at);
  return (run, epochMs, zoneMinutes) => {
    const part = constant ?? partNamed(name.of(run));
    if (!part) throw new SieveRunError('a date has no such part', name.at);
    const local = new Date(epochMs + zoneMinutes * 60_000);
    const year = local.getUTCFullYear();
    return year >= leastYear && year <= mostYear ? part(local, zoneMinutes) : undefined;
  };
}

function partNamed(name: string): PartOf | undefined {
  const key = name.toLowerCase();
  return Object.hasOwn(parts, key) ? parts[key] : undefined;
}
