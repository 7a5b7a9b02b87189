/**
 * RETURN options of SEARCH and SORT: what is told of a result (RFC 9051 6.4.4, RFC 4731), kept (RFC 5182), paged (RFC 9394), and followed (RFC 5267).
 */
import type { Cursor } from './cursor.js';
import { formatNumbers } from './sequence-set.js';

/** A page of a result: places from `first` to `last`, counted from 1; with `fromEnd` from the last result backwards. `first` is at most `last`. */
export interface PartialRange {
  first: number;
  last: number;
  fromEnd: boolean;
}

export interface SearchReturns {
  min: boolean;
  max: boolean;
  all: boolean;
  count: boolean;
  save: boolean;
  /** Changes of the result are to be told (RFC 5267 4.3). */
  update: boolean;
  partial?: PartialRange;
}

const partialPattern = /^(-?)([1-9][0-9]{0,9}):(-?)([1-9][0-9]{0,9})$/;

/** What `RETURN (ALL)` stands for, and an empty list (RFC 4731 3.1). */
export const returnAll: Readonly<SearchReturns> = {
  min: false,
  max: false,
  all: true,
  count: false,
  save: false,
  update: false,
};

/** Reads `RETURN (…) ` if it is there. Throws ImapSyntaxError. */
export function readReturns(cursor: Cursor): SearchReturns | undefined {
  if (!cursor.seesWord('RETURN (')) return undefined;
  cursor.word();
  cursor.space();
  const returns: SearchReturns = { ...returnAll, all: false };
  const options = cursor.list(() => readReturn(cursor, returns), true);
  cursor.space();
  return options.length === 0 ? { ...returnAll } : returns;
}

function readReturn(cursor: Cursor, returns: SearchReturns): void {
  const option = cursor.word();
  switch (option) {
    case 'MIN':
      returns.min = true;
      return;
    case 'MAX':
      returns.max = true;
      return;
    case 'COUNT':
      returns.count = true;
      return;
    case 'SAVE':
      returns.save = true;
      return;
    case 'UPDATE':
      returns.update = true;
      return;
    case 'CONTEXT':
      // RFC 5267 4.2: a hint that may be ignored.
      return;
    case 'ALL':
    case 'PARTIAL':
      // RFC 9394 3.1: at most one of either.
      if (returns.all || returns.partial) cursor.fail('Only one ALL or PARTIAL is allowed');
      if (option === 'ALL') returns.all = true;
      else {
        cursor.space();
        returns.partial = readPartialRange(cursor);
      }
      return;
    default:
      cursor.fail(`Unknown return option ${option.slice(0, 40)}`);
  }
}

/** `1:100`, `-1:-100`: RFC 9394 section 4. The ends may come in any order. */
export function readPartialRange(cursor: Cursor): PartialRange {
  const match = partialPattern.exec(cursor.atom());
  const [a, b] = [Number(match?.[2]), Number(match?.[4])];
  if (!match || match[1] !== match[3] || a > 0xffff_ffff || b > 0xffff_ffff) cursor.fail('Bad range of PARTIAL');
  return { first: Math.min(a, b), last: Math.max(a, b), fromEnd: match[1] === '-' };
}

/** As it is told in the response. */
export function formatPartialRange({ first, last, fromEnd }: PartialRange): string {
  return fromEnd ? `-${first}:-${last}` : `${first}:${last}`;
}

/** The part of a list that a range names; empty where it lies beyond the end. */
export function partOf(list: Uint32Array, { first, last, fromEnd }: PartialRange): Uint32Array {
  if (fromEnd) return list.subarray(Math.max(0, list.length - last), Math.max(0, list.length - first + 1));
  return list.subarray(first - 1, last);
}

/** A set, or NIL for none. */
export function formatPartialSet(numbers: Uint32Array): string {
  return numbers.length === 0 ? 'NIL' : formatNumbers(numbers);
}
