/**
 * Changes of flags that stand for many entries of a mailbox: "these UIDs, at this modseq". Rows of entries that are named so, and of their messages, are brought
 * up to date later (`flag-settling.ts`); until then whoever reads a row folds the changes in. A row that was written since has a higher modseq and is
 * left as it is, so that rows may be changed one by one beside them.
 */
import type { FlagRange, MailboxEntry, RangeChange } from './contract.js';
import { decodeKeywords, encodeKeywords } from './keywords.js';
import { decodeEntry, encodeEntry, packValue, unpackValue } from './records.js';
import { includesUid, packRanges, type UidRanges, unpackRanges, withoutUids } from './uid-ranges.js';

export type { FlagRange, RangeChange } from './contract.js';

const format = 1;
/** \Deleted, beside the bits of the common keywords. */
export const deletedBit: number = 1 << 30;
/** The bits of all common keywords, those of later releases too. */
export const keywordBits: number = deletedBit - 1;

/** Of one mailbox, ascending by modseq. */
export type FlagRangeList = readonly FlagRange[];

export const noFlagRanges: FlagRangeList = Object.freeze([]);

export function changedKeywords(keywords: readonly string[], change: RangeChange): readonly string[] {
  const { bits, others } = encodeKeywords(keywords);
  const now = (bits & ~change.clear & keywordBits) | (change.set & keywordBits);
  let rest: readonly string[] = change.clearsOthers || others === 0 ? [] : others;
  if (change.removes.length > 0) rest = rest.filter((keyword) => !change.removes.includes(keyword));
  if (change.adds.length > 0) rest = [...new Set([...rest, ...change.adds])].sort();
  return decodeKeywords(now, rest.length === 0 ? 0 : rest);
}

export function changedDeleted(isDeleted: boolean, { set, clear }: RangeChange): boolean {
  return (set & deletedBit) !== 0 || (isDeleted && (clear & deletedBit) === 0);
}

/** Whether any of them names the UID: then the row of its message may be older than that of its entry. */
export function isListed(ranges: FlagRangeList, uid: number): boolean {
  for (const { uids } of ranges) if (includesUid(uids, uid)) return true;
  return false;
}

/** The entry as it really is. */
export function foldEntry(entry: MailboxEntry, ranges: FlagRangeList): MailboxEntry {
  let folded = entry;
  for (const { modseq, uids, change } of ranges) {
    if (modseq <= folded.modseq || !includesUid(uids, entry.uid)) continue;
    const isDeleted = changedDeleted(folded.isDeleted, change);
    folded = { ...folded, modseq, isDeleted, keywords: changedKeywords(folded.keywords, change) };
  }
  return folded;
}

export function decodeFolded(uid: number, row: Buffer, ranges: FlagRangeList): MailboxEntry {
  const entry = decodeEntry(uid, row);
  return ranges.length === 0 ? entry : foldEntry(entry, ranges);
}

/** The row as it would be, had the changes been written into it; the same one where they do not concern it. */
export function foldRow(uid: number, row: Buffer, ranges: FlagRangeList): Buffer {
  if (!isListed(ranges, uid)) return row;
  const entry = decodeEntry(uid, row);
  const folded = foldEntry(entry, ranges);
  return folded === entry ? row : encodeEntry(folded);
}

/** Whether all that the one decides of an entry's flags is decided by the other. */
function decidesAll(later: RangeChange, earlier: RangeChange): boolean {
  if (((earlier.set | earlier.clear) & ~(later.set | later.clear)) !== 0) return false;
  if (later.clearsOthers) return true;
  if (earlier.clearsOthers) return false;
  const decides = (keyword: string) => later.adds.includes(keyword) || later.removes.includes(keyword);
  return earlier.adds.every(decides) && earlier.removes.every(decides);
}

/** With one more. What it decides anew is taken out of those before, so that flags set and taken away again and again do not pile up. */
export function withRange(ranges: FlagRangeList, added: FlagRange): FlagRange[] {
  const kept = ranges.map((range) =>
    decidesAll(added.change, range.change) ? { ...range, uids: withoutUids(range.uids, added.uids) } : range,
  );
  return [...kept, added].filter(({ uids }) => uids.length > 0);
}

/** Without these UIDs, whose rows are up to date. */
export function withoutListed(ranges: FlagRangeList, uids: UidRanges): FlagRange[] {
  return ranges.map((range) => ({ ...range, uids: withoutUids(range.uids, uids) })).filter((range) => range.uids.length > 0);
}

/** A change in the values of rows and log. */
export type PackedChange = [
  set: number,
  clear: number,
  adds: readonly string[] | 0,
  removes: readonly string[] | 0,
  clears: 0 | 1,
];

export function packChange({ set, clear, adds, removes, clearsOthers }: RangeChange): PackedChange {
  return [set, clear, adds.length === 0 ? 0 : adds, removes.length === 0 ? 0 : removes, clearsOthers ? 1 : 0];
}

export function unpackChange([set, clear, adds, removes, clears]: PackedChange): RangeChange {
  return { set, clear, adds: adds || [], removes: removes || [], clearsOthers: clears === 1 };
}

export function encodeFlagRanges(ranges: FlagRangeList): Buffer {
  return packValue([format, ranges.map(({ modseq, uids, change }) => [modseq, packRanges(uids), packChange(change)])]);
}

/** None for no row. Throws for a format that this version does not know. */
export function decodeFlagRanges(value: Buffer | undefined): FlagRangeList {
  if (!value) return noFlagRanges;
  const [, ranges] = unpackValue(value, 'flag ranges') as [number, [number, Buffer, PackedChange][]];
  return ranges.map(([modseq, uids, change]) => ({ modseq, uids: unpackRanges(uids), change: unpackChange(change) }));
}
