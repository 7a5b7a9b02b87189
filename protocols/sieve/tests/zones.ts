/** Time zones of `date` and `currentdate` (RFC 5260 4.1). */
import { type Arguments, type CompileContext, type Run, SieveRunError } from '../contract.js';

/** Item of `environment` that has the local time zone: `+hhmm`, or a name such as `Europe/Berlin`. Absent: UTC. */
export const timeZoneItem = 'vnd.starling.time-zone';

/** Minutes east of UTC that a date is shown with, from those that it was written with. */
export type ZoneOf = (run: Run, epochMs: number, originalMinutes: number) => number;

/** From `:zone` and, where there is one, `:originalzone`; else the local time zone. */
export function zoneOf(arguments_: Arguments, context: CompileContext): ZoneOf {
  if (arguments_.hasTag('originalzone')) return (_run, _epochMs, originalMinutes) => originalMinutes;
  const zone = arguments_.text('zone');
  if (!zone) return localZone;
  const constant = zone.constant === undefined ? undefined : offsetMinutes(zone.constant);
  if (zone.constant !== undefined && constant === undefined) context.fail(`a time zone is written as +hhmm or -hhmm`, zone.at);
  if (constant !== undefined) return () => constant;
  return (run) => {
    const minutes = offsetMinutes(zone.of(run));
    if (minutes === undefined) throw new SieveRunError('a time zone is written as +hhmm or -hhmm', zone.at);
    return minutes;
  };
}

function offsetMinutes(text: string): number | undefined {
  const match = /^([+-])([01]\d|2[0-3])([0-5]\d)$/.exec(text);
  if (!match) return undefined;
  const minutes = Number(match[2]) * 60 + Number(match[3]);
  return match[1] === '-' && minutes > 0 ? -minutes : minutes;
}

const localZone: ZoneOf = ({ input: { environment } }, epochMs) => {
  const zone = environment[timeZoneItem];
  if (zone === undefined) return 0;
  return offsetMinutes(zone) ?? namedOffsetMinutes(zone, epochMs);
};

/** Formatters are dear to make. The names are those of our own settings, so there are few. */
const formatters = new Map<string, Intl.DateTimeFormat | undefined>();
const maxFormatters = 64;

/** UTC for a name that nobody knows. */
function namedOffsetMinutes(zone: string, epochMs: number): number {
  if (!formatters.has(zone)) {
    if (formatters.size >= maxFormatters) formatters.clear();
    formatters.set(zone, formatterOf(zone));
  }
  const name = formatters
    .get(zone)
    ?.formatToParts(epochMs)
    .find(({ type }) => type === 'timeZoneName')?.value;
  const match = /^GMT([+-]\d{2}):(\d{2})/.exec(name ?? '');
  return match ? (offsetMinutes(`${match[1]}${match[2]}`) ?? 0) : 0;
}

function formatterOf(timeZone: string): Intl.DateTimeFormat | undefined {
  try {
    return new Intl.DateTimeFormat('en-US', { timeZone, timeZoneName: 'longOffset' });
  } catch {
    return undefined;
  }
}
