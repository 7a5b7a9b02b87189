/**
 * Pieces of responses as latin1 strings (one character per byte), so that a whole response line is built as one string and copied once into
 * the output. Quoted where that is possible, a literal where not.
 */
import { encodeUtf7 } from './mailbox-name.js';

/** Longest value that is sent as a quoted string. */
const maxQuotedBytes = 1_000;
const plainPattern = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/;
const atomPattern = /^[^\x00-\x20(){%*"\\\]\x7f-\xff]+$/;

/** UTF-8 bytes of Unicode text, as latin1. */
export function rawUtf8(text: string): string {
  return /[^\x00-\x7f]/.test(text) ? Buffer.from(text, 'utf8').toString('latin1') : text;
}

/** A string from bytes held as latin1. RFC 9051 section 9: 8-bit bytes, CR, LF and long values need a literal; NUL can't be sent at all. */
export function formatString(raw: string): string {
  if (raw.length <= maxQuotedBytes) {
    if (plainPattern.test(raw)) return `"${raw}"`;
    if (!/[\x00\r\n\x7f-\xff]/.test(raw)) return `"${raw.replace(/["\\]/g, '\\$&')}"`;
  }
  const sendable = raw.includes('\0') ? raw.replaceAll('\0', '') : raw;
  return `{${sendable.length}}\r\n${sendable}`;
}

export function formatNstring(raw: string | null | undefined): string {
  return raw === null || raw === undefined ? 'NIL' : formatString(raw);
}

/** A string that may stand as a bare atom. */
export function formatAstring(raw: string): string {
  return atomPattern.test(raw) && raw.toUpperCase() !== 'NIL' ? raw : formatString(raw);
}

/** A mailbox name from Unicode: modified UTF-7, or UTF-8 in quotes once the client has enabled it (RFC 9051 5.1, RFC 6855 section 3). */
export function formatMailbox(name: string, utf8: boolean): string {
  if (!utf8) return formatAstring(encodeUtf7(name));
  const raw = rawUtf8(name);
  if (/[\x80-\xff]/.test(raw)) return `"${raw.replace(/["\\]/g, '\\$&')}"`;
  return formatAstring(raw);
}

/** IMAP's names of keywords that the store keeps in lower case. */
const imapNames = new Map([
  ['$seen', '\\Seen'],
  ['$answered', '\\Answered'],
  ['$flagged', '\\Flagged'],
  ['$draft', '\\Draft'],
  ['$forwarded', '$Forwarded'],
  ['$mdnsent', '$MDNSent'],
  ['$submitted', '$Submitted'],
  ['$submitpending', '$SubmitPending'],
  ['$junk', '$Junk'],
  ['$notjunk', '$NotJunk'],
  ['$phishing', '$Phishing'],
  ['$important', '$Important'],
]);
const systemKeywords = new Map([
  ['\\seen', '$seen'],
  ['\\answered', '$answered'],
  ['\\flagged', '$flagged'],
  ['\\draft', '$draft'],
]);

export const systemFlags = '\\Answered \\Flagged \\Deleted \\Seen \\Draft';

/** IMAP's spelling of a stored keyword. */
function flagName(keyword: string): string {
  return imapNames.get(keyword) ?? keyword;
}

/** The stored keyword of an IMAP flag; undefined for `\Deleted`, `\Recent` and other system flags that are no keywords. */
export function keywordOf(flag: string): string | undefined {
  const lower = flag.toLowerCase();
  return flag.startsWith('\\') ? systemKeywords.get(lower) : lower;
}

/** IMAP's spellings of stored keywords, without those that are no atoms: IMAP has no way to write them. */
export function flagNames(keywords: readonly string[]): string[] {
  return keywords.filter((keyword) => atomPattern.test(keyword)).map(flagName);
}

const flagLists = new Map<string, string>();
const maxCachedFlagLists = 4_096;

/** `(\Seen \Deleted)`. The few combinations that occur are remembered. */
export function formatFlags(keywords: readonly string[], isDeleted: boolean): string {
  if (keywords.length === 0) return isDeleted ? '(\\Deleted)' : '()';
  const key = `${isDeleted ? '1' : '0'}${keywords.join(' ')}`;
  const known = flagLists.get(key);
  if (known) return known;
  const names = flagNames(keywords);
  if (isDeleted) names.push('\\Deleted');
  const list = `(${names.join(' ')})`;
  if (flagLists.size >= maxCachedFlagLists) flagLists.clear();
  flagLists.set(key, list);
  return list;
}
