/** RFC 5322 3.3 date-time with the obsolete forms of 4.3, and its formatter. */

export interface ParsedDate {
  /** Milliseconds since the Unix epoch. */
  epochMs: number;
  /** Minutes east of UTC that the sender wrote; 0 for `-0000` and for zones that say nothing. */
  offsetMinutes: number;
}

const months = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'];
const monthNames = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const dayNames = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];

/** RFC 5322 4.3; military letters and unknown names count as `-0000`. */
const zoneHours: Record<string, number> = { edt: -4, est: -5, cdt: -5, cst: -6, mdt: -6, mst: -7, pdt: -7, pst: -8 };

/** Longer values are no dates; bounds the work on hostile ones. */
const maxDateChars = 256;

const usual =
  /^(?:[A-Za-z]+\s*,?\s*)?(\d{1,2})[\s-]+([A-Za-z]{3})[A-Za-z]*[\s.,-]+(\d{2,4})[\s,]+(\d{1,2})\s*[:.]\s*(\d{1,2})(?:\s*[:.]\s*(\d{1,2})(?:\.\d+)?)?\s*([+-]\s*\d{1,4}|[A-Za-z]+)?/;
/** C's asctime, as some programs send it: `Mon Nov 22 04:53:57 [zone] 2026`. */
const asctime = /^[A-Za-z]{3}\s+([A-Za-z]{3})\s+(\d{1,2})\s+(\d{1,2}):(\d{2}):(\d{2})\s+(?:([+-]\d{4}|[A-Za-z]+)\s+)?(\d{4})/;

/** Reads a Date field's value (raw, unfolded); undefined when it is no date or names a day or time that does not exist. */
export function parseDate(value: string): ParsedDate | undefined {
  if (value.length > maxDateChars) return undefined;
  const text = withoutComments(value).trim();
  const match = usual.exec(text);
  if (match) return assemble(match[3]!, match[2]!, match[1]!, match[4]!, match[5]!, match[6], match[7]);
  const other = asctime.exec(text);
  return other ? assemble(other[7]!, other[1]!, other[2]!, other[3]!, other[4]!, other[5], other[6]) : undefined;
}

function withoutComments(value: string): string {
  if (!value.includes('(')) return value;
  let out = '';
  let depth = 0;
  for (const character of value) {
    if (character === '(') depth++;
    else if (character === ')') depth = Math.max(0, depth - 1);
    else if (depth === 0) out += character;
  }
  return out;
}

/** RFC 5322 4.3: two digits 00–49 are 20xx, other two and all three digits count from 1900. */
function fullYear(digits: string): number {
  const year = Number(digits);
  if (digits.length === 2) return year < 50 ? 2000 + year : 1900 + year;
  return digits.length === 3 ? 1900 + year : year;
}

function assemble(
  yearText: string,
  monthText: string,
  dayText: string,
  hourText: string,
  minuteText: string,
  secondText: string | undefined,
  zone: string | undefined,
): ParsedDate | undefined {
  const year = fullYear(yearText);
  const month = months.indexOf(monthText.toLowerCase());
  const day = Number(dayText);
  const hour = Number(hourText);
  const minute = Number(minuteText);
  // A leap second is the last second of its minute here, as everywhere in POSIX time.
  const second = Math.min(Number(secondText ?? 0), 60);
  if (month < 0 || year < 1900 || hour > 23 || minute > 59 || Number(secondText ?? 0) > 60) return undefined;
  const dayMs = Date.UTC(year, month, day);
  if (day < 1 || new Date(dayMs).getUTCDate() !== day) return undefined;
  const offsetMinutes = zoneMinutes(zone);
  if (offsetMinutes === undefined) return undefined;
  const epochMs = dayMs + ((hour * 60 + minute - offsetMinutes) * 60 + Math.min(second, 59)) * 1000;
  return { epochMs, offsetMinutes };
}

function zoneMinutes(zone: string | undefined): number | undefined {
  if (zone === undefined) return 0;
  if (/^[A-Za-z]/.test(zone)) return (zoneHours[zone.toLowerCase()] ?? 0) * 60;
  const digits = zone.slice(1).trim().padStart(4, '0');
  const minutes = Number(digits.slice(0, 2)) * 60 + Number(digits.slice(2));
  if (Number(digits.slice(2)) > 59 || minutes > 24 * 60) return undefined;
  return zone.startsWith('-') && minutes > 0 ? -minutes : minutes;
}

const two = (value: number) => String(value).padStart(2, '0');

/** `Sun, 22 Nov 2026 04:53:57 +0100`. Years beyond four digits do not occur in mail and throw a RangeError. */
export function formatDate(epochMs: number, offsetMinutes = 0): string {
  const local = new Date(epochMs + offsetMinutes * 60_000);
  const year = local.getUTCFullYear();
  if (!(year >= 1900 && year <= 9999)) throw new RangeError(`no RFC 5322 date for ${epochMs} ms`);
  const east = Math.abs(Math.trunc(offsetMinutes));
  const zone = `${offsetMinutes < 0 ? '-' : '+'}${two(Math.floor(east / 60))}${two(east % 60)}`;
  const day = `${dayNames[local.getUTCDay()]}, ${local.getUTCDate()} ${monthNames[local.getUTCMonth()]} ${year}`;
  return `${day} ${two(local.getUTCHours())}:${two(local.getUTCMinutes())}:${two(local.getUTCSeconds())} ${zone}`;
}
