/**
 * Pieces of responses as latin1 strings (one character per byte), so that a whole response line is built as one string and copied once into
 * the output. Quoted where that is possible, a literal where not.
 */
import { formatNstring, formatString, rawUtf8 } from '../../message/index.js';
import { encodeUtf7 } from './mailbox-name.js';

export { formatNstring, formatString, rawUtf8 };

const atomPattern = /^[^\x00-\x20(){%*"\\\]\x7f-\xff]+$/;

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

/** `(\Seen \Deleted \Recent)`. The few combinations that occur are remembered. */
export function formatFlags(keywords: readonly string[], isDeleted: boolean, isRecent = false): string {
  if (keywords.length === 0 && !isRecent) return isDeleted ? '(\\Deleted)' : '()';
  const key = `${(isDeleted ? 1 : 0) + (isRecent ? 2 : 0)}${keywords.join(' ')}`;
  const known = flagLists.get(key);
  if (known) return known;
  const names = flagNames(keywords);
  if (isDeleted) names.push('\\Deleted');
  if (isRecent) names.push('\\Recent');
  const list = `(${names.join(' ')})`;
  if (flagLists.size >= maxCachedFlagLists) flagLists.clear();
  flagLists.set(key, list);
  return list;
}
