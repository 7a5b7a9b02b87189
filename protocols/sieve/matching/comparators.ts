/** Comparators (RFC 4790 9, RFC 5051): what makes two texts the same, and which of two comes first. */
import { unicodeCasemapKey } from './unicode-casemap.js';

export interface Comparator {
  readonly name: string;
  /** The extension that a script must require; the two that RFC 5228 2.7.3 gives to all scripts need none. */
  readonly requires?: string;
  /** Whether it knows parts of texts: `:contains`, `:matches`, `:regex`. */
  readonly hasSubstrings: boolean;
  /** Whether letters' case makes no difference. */
  readonly ignoresCase: boolean;
  /** What `?` stands for (RFC 5228 2.7.1). */
  readonly character: 'octet' | 'codePoint';
  /** Work for one character whose key is made, in characters compared. */
  readonly keyCost: number;
  /** The same for equal texts, and for no others. Where there are substrings, the key of a part is a part of the key. */
  keyOf(text: string): string;
  /** Order of two keys: below, at, or above 0. */
  order(key: string, other: string): number;
}

const octet: Comparator = {
  name: 'i;octet',
  hasSubstrings: true,
  ignoresCase: false,
  character: 'octet',
  keyCost: 1,
  keyOf: (text) => text,
  order: octetOrder,
};

const asciiCasemap: Comparator = {
  name: 'i;ascii-casemap',
  hasSubstrings: true,
  ignoresCase: true,
  character: 'octet',
  keyCost: 1,
  keyOf: asciiUpperCase,
  order: octetOrder,
};

const asciiNumeric: Comparator = {
  name: 'i;ascii-numeric',
  requires: 'comparator-i;ascii-numeric',
  hasSubstrings: false,
  ignoresCase: false,
  character: 'octet',
  keyCost: 1,
  keyOf: numericKey,
  order: numericOrder,
};

const unicodeCasemap: Comparator = {
  name: 'i;unicode-casemap',
  requires: 'comparator-i;unicode-casemap',
  hasSubstrings: true,
  ignoresCase: true,
  character: 'codePoint',
  keyCost: 30,
  keyOf: unicodeCasemapKey,
  order: octetOrder,
};

/** RFC 5228 2.7.3. */
export const defaultComparator = asciiCasemap;

export const comparators: readonly Comparator[] = [octet, asciiCasemap, asciiNumeric, unicodeCasemap];

/** Undefined: there is none of that name. */
export function comparatorNamed(name: string): Comparator | undefined {
  return comparators.find((comparator) => comparator.name === name);
}

/** RFC 4790 9.2: a–z become A–Z, nothing else is touched; the length stays. */
export function asciiUpperCase(text: string): string {
  return /[^\x00-\x7f]/.test(text) ? text.replace(/[a-z]+/g, (letters) => letters.toUpperCase()) : text.toUpperCase();
}

/** RFC 4790 9.3 orders by octets of UTF-8, which is the order of code points; that of UTF-16 puts surrogates in front of U+E000. */
function octetOrder(key: string, other: string): number {
  if (key === other) return 0;
  const shared = Math.min(key.length, other.length);
  for (let i = 0; i < shared; i++) {
    const difference = rank(key.charCodeAt(i)) - rank(other.charCodeAt(i));
    if (difference !== 0) return difference;
  }
  return key.length - other.length;
}

function rank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit >= 0xe000 ? unit - 0x800 : unit + 0x2000;
}

/** RFC 4790 9.1: the digits in front, without leading zeros; `''` for positive infinity, which every text without a digit in front is. */
function numericKey(text: string): string {
  let end = 0;
  while (end < text.length && isDigit(text.charCodeAt(end))) end++;
  if (end === 0) return '';
  let start = 0;
  while (start < end - 1 && text.charCodeAt(start) === 0x30) start++;
  return text.slice(start, end);
}

const isDigit = (code: number) => code >= 0x30 && code <= 0x39;

function numericOrder(key: string, other: string): number {
  if (key === other) return 0;
  if (key === '') return 1;
  if (other === '') return -1;
  if (key.length !== other.length) return key.length - other.length;
  return key < other ? -1 : 1;
}
