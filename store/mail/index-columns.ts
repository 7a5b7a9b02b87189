/**
 * The entries of one mailbox in memory: UIDs ascending, their facts in parallel typed arrays, keyword lists shared. 36 bytes per entry and at most an
 * eighth of it in reserve (`bytesPerEntry`): ids packed, times and modseqs as their lower 32 bits with the number of a group of upper halves, of which a
 * mailbox has few. Entry objects are built when asked for.
 */
import type { IndexView, MailboxEntry, UidList } from './contract.js';
import { fields, idOffset, readEntryRow } from './entry-row.js';
import { changedDeleted, changedKeywords, type FlagRange } from './flag-ranges.js';
import { emailIdLength } from './ids.js';
import { decodeKeywords, isSeen } from './keywords.js';
import { PackedIds, packedIdBytes } from './packed-ids.js';
import { decodeEntry } from './records.js';

/** With narrow flags and groups, which is the common case: uid, id, modseq, received, saved, size, flags, group. */
export const bytesPerEntry: number = 4 + packedIdBytes + 4 + 4 + 4 + 4 + 2 + 1;
/** When so many keyword lists were seen, those in use are numbered anew. */
const maxKeywordLists = 1 << 16;
/** A list number and \Deleted in 16 bits; with more lists the column becomes wider. */
const maxNarrowLists = 1 << 15;
const bytesPerList = 200;
const two32 = 0x1_0000_0000;

type Column = Uint8Array<ArrayBuffer> | Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;

/** The facts of an entry that are numbers. */
export interface EntryNumbers {
  modseq: number;
  sizeBytes: number;
  receivedAtMs: number;
  savedAtMs: number;
}

/** Sums over all entries, to be compared with a mailbox's counts. */
export interface ColumnTotals {
  total: number;
  unseen: number;
  deleted: number;
  bytes: number;
  maxModseq: number;
}

function grown<T extends Column>(column: T, capacity: number): T {
  const made = new (column.constructor as new (length: number) => T)(capacity);
  made.set(column as never);
  return made;
}

export class IndexColumns {
  private count = 0;
  /** `capacity` long; the first `count` are in use. */
  private uidColumn = new Uint32Array(0);
  /** Somebody holds a part of `uidColumn`: it is copied before the next change, unless that only adds at its end. */
  private uidsAreShared = false;
  private capacity = 0;
  private ids = new PackedIds(0);
  private modseqs = new Uint32Array(0);
  private received = new Uint32Array(0);
  private saved = new Uint32Array(0);
  private sizes = new Uint32Array(0);
  /** Number of the keyword list, shifted by one, and \Deleted in the lowest bit. */
  private flags: Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer> = new Uint16Array(0);
  private groups: Column = new Uint8Array(0);
  /** Upper halves (units of 2^32) of modseq, received and saved, three per group. */
  private groupHalves: number[] = [];
  private groupNumbers = new Map<string, number>();
  private lastGroup = -1;
  private keywordLists: (readonly string[])[] = [];
  private listNumbers = new Map<string, number>();
  /** Of all lists, each once. Given out: it only grows. */
  private keywords: string[] = [];
  private knownKeywords = new Set<string>();
  private lastList: readonly string[] | undefined;
  private lastListNumber = 0;
  private renumberAt = maxKeywordLists;
  /** All before this place have been seen. */
  private seenBefore = 0;

  get size(): number {
    return this.count;
  }

  /** 0 in an empty mailbox. */
  get lastUid(): number {
    return this.count === 0 ? 0 : this.uidColumn[this.count - 1]!;
  }

  get memoryBytes(): number {
    const wider = this.flags.BYTES_PER_ELEMENT + this.groups.BYTES_PER_ELEMENT - 3;
    const tables = this.keywordLists.length * bytesPerList + this.groupHalves.length * 40 + this.ids.others.length * 64;
    return this.capacity * (bytesPerEntry + wider) + tables;
  }

  /** A list that never changes; another one after the next change. */
  uids(): UidList {
    this.uidsAreShared = true;
    return this.uidColumn.subarray(0, this.count);
  }

  view(modseq: number): IndexView {
    return {
      uids: this.uids(),
      modseq,
      positionOf: (uid) => this.positionOf(uid),
      emailIdAt: (at) => this.ids.get(at),
      modseqAt: (at) => this.modseqAt(at),
      sizeBytesAt: (at) => this.sizes[at]!,
      receivedAtMsAt: (at) => this.received[at]! + this.groupHalves[this.groups[at]! * 3 + 1]! * two32,
      savedAtMsAt: (at) => this.saved[at]! + this.groupHalves[this.groups[at]! * 3 + 2]! * two32,
      flagsAt: (at) => this.flags[at]!,
      allFlags: () => this.flags.subarray(0, this.count),
      keywordsOf: (flags) => this.keywordLists[flags >>> 1]!,
      keywords: this.keywords,
      firstUnseen: () => this.firstUnseen(),
      isDeletedOf: (flags) => (flags & 1) === 1,
    };
  }

  firstUnseen(): number {
    const { count, flags, keywordLists } = this;
    let at = this.seenBefore;
    while (at < count && isSeen(keywordLists[flags[at]! >>> 1]!)) at++;
    this.seenBefore = at;
    return at < count ? at : -1;
  }

  modseqAt(at: number): number {
    return this.modseqs[at]! + this.groupHalves[this.groups[at]! * 3]! * two32;
  }

  /** Place of a UID, or -1. */
  positionOf(uid: number): number {
    const at = this.lowerBound(uid);
    return at < this.count && this.uidColumn[at] === uid ? at : -1;
  }

  get(uid: number): MailboxEntry | undefined {
    const at = this.positionOf(uid);
    return at < 0 ? undefined : this.entryAt(at);
  }

  /** Adds the entry, or replaces that of the same UID. */
  put(entry: MailboxEntry): void {
    const at = this.placeFor(entry.uid);
    this.ids.set(at, entry.emailId);
    this.putNumbers(at, entry.modseq, entry.sizeBytes, entry.receivedAtMs, entry.savedAtMs);
    this.putFlags(at, this.listNumber(entry.keywords), entry.isDeleted);
  }

  /** The same from an entry's stored value, of the usual form without an object in between. */
  putRow(uid: number, row: Buffer): void {
    if (!readEntryRow(row)) {
      this.put(decodeEntry(uid, row));
      return;
    }
    const at = this.placeFor(uid);
    if (!this.ids.setBytes(at, row, idOffset)) this.ids.set(at, row.toString('latin1', idOffset, idOffset + emailIdLength));
    this.putNumbers(at, fields[1]!, fields[3]!, fields[4]!, fields[5]!);
    this.putFlags(at, this.listNumber(decodeKeywords(fields[2]!, 0)), fields[0] === 1);
  }

  /**
   * Changes the flags of those entries from place `from` on that a range names, and that nobody has changed since. Answers how many they are.
   */
  applyRange({ modseq, uids, change }: FlagRange, from = 0): number {
    const modseqHalf = Math.floor(modseq / two32);
    const flagsAfter = new Map<number, number>();
    let changed = 0;
    for (let pair = 0; pair < uids.length; pair += 2) {
      const last = uids[pair + 1]!;
      for (let at = Math.max(from, this.lowerBound(uids[pair]!)); at < this.count && this.uidColumn[at]! <= last; at++) {
        if (this.modseqAt(at) >= modseq) continue;
        const flags = this.flags[at]!;
        let after = flagsAfter.get(flags);
        if (after === undefined) {
          const lists = this.keywordLists;
          const number = this.listNumber(changedKeywords(lists[flags >>> 1]!, change));
          after = number * 2 + (changedDeleted((flags & 1) === 1, change) ? 1 : 0);
          // Where the lists were numbered anew, what was noted means others now.
          if (this.keywordLists === lists) flagsAfter.set(flags, after);
          else flagsAfter.clear();
        }
        this.flags[at] = after;
        if (at < this.seenBefore) this.seenBefore = at;
        this.modseqs[at] = modseq;
        const group = this.groups[at]! * 3;
        if (this.groupHalves[group] !== modseqHalf) {
          this.groups[at] = this.groupNumber(modseqHalf, this.groupHalves[group + 1]!, this.groupHalves[group + 2]!);
        }
        changed++;
      }
    }
    return changed;
  }

  /** Makes room for so many entries in all, without reserve. */
  reserve(entries: number): void {
    if (entries > this.capacity) this.resize(entries);
  }

  /** Removes these UIDs (ascending); answers those that were there. */
  remove(uids: readonly number[]): number[] {
    const places: number[] = [];
    for (const uid of uids) {
      const at = this.positionOf(uid);
      if (at >= 0) places.push(at);
    }
    if (places.length === 0) return [];
    this.ownUids();
    const removed = places.map((at) => this.uidColumn[at]!);
    let target = places[0]!;
    this.seenBefore = Math.min(this.seenBefore, target);
    places.forEach((at, nth) => {
      const begin = at + 1;
      const end = places[nth + 1] ?? this.count;
      this.shift(target, begin, end);
      this.uidColumn.copyWithin(target, begin, end);
      target += end - begin;
    });
    this.count = target;
    // Half of it empty: given back, but not for a few messages.
    if (this.capacity > 4_096 && this.count < this.capacity >>> 1) this.resize(this.count + (this.count >>> 4));
    return removed;
  }

  /** Places of entries with a modseq above this one, found by looking at all. */
  placesChangedAfter(modseq: number): number[] {
    const found: number[] = [];
    const { count } = this;
    for (let at = 0; at < count; at++) if (this.modseqAt(at) > modseq) found.push(at);
    return found;
  }

  /** Entries with a modseq above this one, found by looking at all. */
  scanChangedAfter(modseq: number): MailboxEntry[] {
    return this.placesChangedAfter(modseq).map((at) => this.entryAt(at));
  }

  totals(): ColumnTotals {
    const { count, flags, sizes } = this;
    const unseenOf = this.keywordLists.map((list) => (isSeen(list) ? 0 : 1));
    const totals: ColumnTotals = { total: count, unseen: 0, deleted: 0, bytes: 0, maxModseq: 0 };
    for (let at = 0; at < count; at++) {
      totals.unseen += unseenOf[flags[at]! >>> 1]!;
      totals.deleted += flags[at]! & 1;
      totals.bytes += sizes[at]!;
      const modseq = this.modseqAt(at);
      if (modseq > totals.maxModseq) totals.maxModseq = modseq;
    }
    return totals;
  }

  /** A copy that stays as it is, of the places [begin, end). */
  slice(begin: number, end: number): ColumnSlice {
    return {
      uids: this.uidColumn.slice(begin, end),
      ids: [this.ids.first, this.ids.second, this.ids.third, this.ids.last].map((column) => column.slice(begin, end)),
      others: this.ids.others.length === 0 ? [] : this.othersOf(begin, end),
      numbers: [this.modseqs, this.received, this.saved, this.sizes].map((column) => column.slice(begin, end)),
      flags: Uint32Array.from(this.flags.subarray(begin, end)),
      groups: Uint32Array.from(this.groups.subarray(begin, end)),
      halves: this.groupHalves,
      lists: this.keywordLists,
    };
  }

  /** Adds entries at the end; their UIDs ascend, and are above all that are here. Flags and groups of the slice are numbers of its own tables. */
  append(slice: ColumnSlice): void {
    const { length } = slice.uids;
    const from = this.count;
    if (length === 0) return;
    if (from + length > this.capacity) this.resize(Math.max(from + length, this.nextCapacity()));
    this.uidColumn.set(slice.uids, from);
    const { ids } = this;
    [ids.first, ids.second, ids.third, ids.last].forEach((column, nth) => {
      column.set(slice.ids[nth]!, from);
    });
    const columns = [this.modseqs, this.received, this.saved, this.sizes];
    columns.forEach((column, nth) => {
      column.set(slice.numbers[nth]!, from);
    });
    // Not in the middle: numbers that were given would mean other lists afterwards.
    if (this.keywordLists.length + slice.lists.length > this.renumberAt) this.renumberLists(slice.lists.length);
    const lists = slice.lists.map((list) => this.listNumber(list));
    const { halves } = slice;
    const groups: number[] = [];
    for (let at = 0; at < halves.length; at += 3) groups.push(this.groupNumber(halves[at]!, halves[at + 1]!, halves[at + 2]!));
    for (let at = 0; at < length; at++) {
      const flags = slice.flags[at]!;
      this.flags[from + at] = lists[flags >>> 1]! * 2 + (flags & 1);
      this.groups[from + at] = groups[slice.groups[at]!]!;
    }
    this.count += length;
    for (const { place, id } of slice.others) ids.set(from + place, id);
  }

  entryAt(at: number): MailboxEntry {
    const flags = this.flags[at]!;
    const group = this.groups[at]! * 3;
    return {
      uid: this.uidColumn[at]!,
      emailId: this.ids.get(at),
      isDeleted: (flags & 1) === 1,
      modseq: this.modseqs[at]! + this.groupHalves[group]! * two32,
      keywords: this.keywordLists[flags >>> 1]!,
      sizeBytes: this.sizes[at]!,
      receivedAtMs: this.received[at]! + this.groupHalves[group + 1]! * two32,
      savedAtMs: this.saved[at]! + this.groupHalves[group + 2]! * two32,
    };
  }

  private othersOf(begin: number, end: number): { place: number; id: string }[] {
    const others: { place: number; id: string }[] = [];
    for (let at = begin; at < end; at++) if (this.ids.isOther(at)) others.push({ place: at - begin, id: this.ids.get(at) });
    return others;
  }

  /** The first place whose UID is not below `uid`. */
  private lowerBound(uid: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.uidColumn[middle]! < uid) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  private ownUids(): void {
    if (!this.uidsAreShared) return;
    this.uidColumn = this.uidColumn.slice();
    this.uidsAreShared = false;
  }

  /** The place of a UID, which is made where there is none. */
  private placeFor(uid: number): number {
    const { count } = this;
    const at = count === 0 || uid > this.uidColumn[count - 1]! ? count : this.lowerBound(uid);
    if (at === count || this.uidColumn[at] !== uid) this.makeRoom(at, uid);
    return at;
  }

  private putNumbers(at: number, modseq: number, sizeBytes: number, receivedAtMs: number, savedAtMs: number): void {
    // A typed array takes the lower 32 bits of any integer.
    this.modseqs[at] = modseq;
    this.received[at] = receivedAtMs;
    this.saved[at] = savedAtMs;
    this.sizes[at] = sizeBytes;
    const group = this.groupNumber(Math.floor(modseq / two32), Math.floor(receivedAtMs / two32), Math.floor(savedAtMs / two32));
    this.groups[at] = group;
  }

  private putFlags(at: number, listNumber: number, isDeleted: boolean): void {
    this.flags[at] = listNumber * 2 + (isDeleted ? 1 : 0);
    if (at < this.seenBefore) this.seenBefore = at;
  }

  private makeRoom(at: number, uid: number): void {
    const { count } = this;
    if (count === this.capacity) this.resize(this.nextCapacity());
    this.count++;
    // Who holds a list holds none of the places from `count` on.
    if (at === count) {
      this.uidColumn[at] = uid;
      return;
    }
    this.ownUids();
    this.shift(at + 1, at, count);
    this.uidColumn.copyWithin(at + 1, at, count);
    this.uidColumn[at] = uid;
  }

  /** Moves the facts of the places [begin, end) to `target`. */
  private shift(target: number, begin: number, end: number): void {
    if (begin === end) return;
    this.ids.copyWithin(target, begin, end);
    for (const column of [this.modseqs, this.received, this.saved, this.sizes]) column.copyWithin(target, begin, end);
    this.flags.copyWithin(target, begin, end);
    this.groups.copyWithin(target, begin, end);
  }

  /** An eighth more: a reserve that costs little memory, and copies each entry a handful of times. */
  private nextCapacity(): number {
    return Math.max(16, this.capacity + Math.max(16, this.capacity >>> 3));
  }

  /** To at least `count`. */
  private resize(capacity: number): void {
    const { count, ids } = this;
    const resized = <T extends Column>(column: T) => grown(column.subarray(0, count) as T, capacity);
    this.capacity = capacity;
    this.uidColumn = resized(this.uidColumn);
    this.uidsAreShared = false;
    ids.first = resized(ids.first);
    ids.second = resized(ids.second);
    ids.third = resized(ids.third);
    ids.last = resized(ids.last);
    this.modseqs = resized(this.modseqs);
    this.received = resized(this.received);
    this.saved = resized(this.saved);
    this.sizes = resized(this.sizes);
    this.flags = resized(this.flags);
    this.groups = resized(this.groups);
  }

  private groupNumber(modseqHalf: number, receivedHalf: number, savedHalf: number): number {
    const { groupHalves } = this;
    const lastGroup = this.lastGroup;
    const last = lastGroup * 3;
    if (
      lastGroup >= 0 &&
      groupHalves[last] === modseqHalf &&
      groupHalves[last + 1] === receivedHalf &&
      groupHalves[last + 2] === savedHalf
    ) {
      return lastGroup;
    }
    const name = `${modseqHalf} ${receivedHalf} ${savedHalf}`;
    let number = this.groupNumbers.get(name);
    if (number === undefined) {
      number = groupHalves.push(modseqHalf, receivedHalf, savedHalf) / 3 - 1;
      this.groupNumbers.set(name, number);
      if (number === 0x100 && this.groups.BYTES_PER_ELEMENT === 1) this.groups = Uint16Array.from(this.groups);
      if (number === 0x1_0000 && this.groups.BYTES_PER_ELEMENT === 2) this.groups = Uint32Array.from(this.groups);
    }
    this.lastGroup = number;
    return number;
  }

  private listNumber(keywords: readonly string[]): number {
    if (keywords === this.lastList) return this.lastListNumber;
    const text = keywords.length === 1 ? keywords[0]! : keywords.join(' ');
    let number = this.listNumbers.get(text);
    if (number === undefined) {
      if (this.keywordLists.length >= this.renumberAt) this.renumberLists(1);
      number = this.addList(keywords, text);
      if (number === maxNarrowLists && this.flags.BYTES_PER_ELEMENT === 2) this.flags = Uint32Array.from(this.flags);
    }
    this.lastList = keywords;
    this.lastListNumber = number;
    return number;
  }

  private addList(keywords: readonly string[], text: string): number {
    this.listNumbers.set(text, this.keywordLists.length);
    for (const keyword of keywords) {
      if (this.knownKeywords.has(keyword)) continue;
      this.knownKeywords.add(keyword);
      this.keywords.push(keyword);
    }
    return this.keywordLists.push(keywords) - 1;
  }

  /** Lists that no entry has any more go. Where most are in use, the next time is put off, or each new list would cost a walk over all entries. */
  private renumberLists(moreLists: number): void {
    const old = this.keywordLists;
    this.keywordLists = [];
    this.listNumbers = new Map();
    this.keywords = [];
    this.knownKeywords = new Set();
    for (let at = 0; at < this.count; at++) {
      const flags = this.flags[at]!;
      // A place just made may hold anything; it is written next.
      const list = old[flags >>> 1] ?? [];
      const text = list.join(' ');
      let number = this.listNumbers.get(text);
      if (number === undefined) {
        number = this.addList(list, text);
      }
      this.flags[at] = number * 2 + (flags & 1);
    }
    this.lastList = undefined;
    this.renumberAt = Math.max(maxKeywordLists, 2 * (this.keywordLists.length + moreLists));
  }
}

/** Columns on their way into or out of a snapshot. */
export interface ColumnSlice {
  uids: Uint32Array;
  /** The columns of `PackedIds`. */
  ids: (Uint32Array | Uint8Array)[];
  /** Ids that do not pack, with their places. */
  others: { place: number; id: string }[];
  /** Lower halves of modseq, received, saved; sizes. */
  numbers: Uint32Array[];
  flags: Uint32Array;
  groups: Uint32Array;
  halves: readonly number[];
  lists: readonly (readonly string[])[];
}
