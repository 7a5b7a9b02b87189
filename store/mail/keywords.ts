/**
 * Keywords of messages: their canonical form (lower case, each once, in one order) and their compact encoding as a bit field for the
 * common ones plus a list for the rest.
 */
import { MailError, mailLimits } from './contract.js';

/** The bit of a keyword is its place here; never reordered, only appended to (at most 30). */
const commonKeywords = [
  '$seen',
  '$answered',
  '$flagged',
  '$draft',
  '$forwarded',
  '$junk',
  '$notjunk',
  '$mdnsent',
  '$phishing',
] as const;
const bitOf = new Map<string, number>(commonKeywords.map((keyword, place) => [keyword, 1 << place]));
const none: readonly string[] = Object.freeze([]);
const listsByBits = new Map<number, readonly string[]>([[0, none]]);

/** The bit field and, where there are others, their sorted list. */
export interface EncodedKeywords {
  bits: number;
  /** 0 instead of an empty list, to save a byte and an allocation per entry. */
  others: readonly string[] | 0;
}

function ofBits(bits: number): readonly string[] {
  let list = listsByBits.get(bits);
  if (!list) {
    list = Object.freeze(commonKeywords.filter((_, place) => bits & (1 << place)));
    listsByBits.set(bits, list);
  }
  return list;
}

/** The canonical list; lists of common keywords are shared objects. */
export function decodeKeywords(bits: number, others: readonly string[] | 0): readonly string[] {
  const common = ofBits(bits);
  return others === 0 || others.length === 0 ? common : Object.freeze([...common, ...others]);
}

export function encodeKeywords(keywords: readonly string[]): EncodedKeywords {
  let bits = 0;
  let others: string[] | 0 = 0;
  for (const keyword of keywords) {
    const bit = bitOf.get(keyword);
    if (bit !== undefined) bits |= bit;
    else if (others === 0) others = [keyword];
    else others.push(keyword);
  }
  return { bits, others };
}

/** Lower case (RFC 8621 4.1.1), each once, in the one order. Throws `too-many` above the limits of number and length. */
export function canonicalKeywords(keywords: Iterable<string>): readonly string[] {
  let bits = 0;
  let others: Set<string> | undefined;
  for (const given of keywords) {
    const keyword = given.toLowerCase();
    const bit = bitOf.get(keyword);
    if (bit !== undefined) {
      bits |= bit;
      continue;
    }
    if (keyword.length === 0 || Buffer.byteLength(keyword) > mailLimits.maxKeywordBytes) {
      throw new MailError('too-many', `a keyword has 1 to ${mailLimits.maxKeywordBytes} bytes`);
    }
    others ??= new Set();
    others.add(keyword);
  }
  const list = decodeKeywords(bits, others ? [...others].sort() : 0);
  if (list.length > mailLimits.maxKeywordsPerMessage) {
    throw new MailError('too-many', `a message has at most ${mailLimits.maxKeywordsPerMessage} keywords`);
  }
  return list;
}

/** Both in canonical form. */
export function sameKeywords(a: readonly string[], b: readonly string[]): boolean {
  return a === b || (a.length === b.length && a.every((keyword, place) => keyword === b[place]));
}

export function isSeen(keywords: readonly string[]): boolean {
  // $seen is the first of the canonical order.
  return keywords[0] === '$seen';
}
