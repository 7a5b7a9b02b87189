/**
 * The entries of one mailbox in memory: UIDs ascending, their facts in parallel typed arrays, keyword lists shared. About 60 bytes per entry;
 * entry objects are built when asked for.
 */
import type { MailboxEntry } from './contract.js';
import { emailIdLength } from './ids.js';

const bytesPerEntry = emailIdLength + 8 + 4 + 8 + 8 + 4 + 8;
/** When so many keyword lists were seen, those in use are numbered anew. */
const maxKeywordLists = 1 << 16;

function grown<T extends Float64Array | Uint32Array>(column: T, made: T): T {
  made.set(column as never);
  return made;
}

export class IndexColumns {
  private uidList: number[] = [];
  /** Somebody holds `uidList`: it is copied before the next change. */
  private uidsAreShared = false;
  private capacity = 0;
  private emailIds = Buffer.alloc(0);
  private modseqs = new Float64Array(0);
  private receivedAtMs = new Float64Array(0);
  private savedAtMs = new Float64Array(0);
  private sizes = new Uint32Array(0);
  /** Number of the keyword list, shifted by one, and \Deleted in the lowest bit. */
  private flags = new Uint32Array(0);
  private keywordLists: (readonly string[])[] = [];
  private listNumbers = new Map<string, number>();

  get size(): number {
    return this.uidList.length;
  }

  get memoryBytes(): number {
    return this.capacity * bytesPerEntry + this.keywordLists.length * 200;
  }

  /** A list that never changes; another one after the next change. */
  uids(): readonly number[] {
    this.uidsAreShared = true;
    return this.uidList;
  }

  get(uid: number): MailboxEntry | undefined {
    const at = this.lowerBound(uid);
    return this.uidList[at] === uid ? this.entryAt(at) : undefined;
  }

  /** Adds the entry, or replaces that of the same UID. */
  put(entry: MailboxEntry): void {
    const count = this.uidList.length;
    const at = count === 0 || entry.uid > this.uidList[count - 1]! ? count : this.lowerBound(entry.uid);
    if (this.uidList[at] !== entry.uid) this.makeRoom(at, entry.uid);
    this.emailIds.write(entry.emailId, at * emailIdLength, 'latin1');
    this.modseqs[at] = entry.modseq;
    this.receivedAtMs[at] = entry.receivedAtMs;
    this.savedAtMs[at] = entry.savedAtMs;
    this.sizes[at] = entry.sizeBytes;
    this.flags[at] = this.listNumber(entry.keywords) * 2 + (entry.isDeleted ? 1 : 0);
  }

  /** Removes these UIDs (ascending); answers those that were there. */
  remove(uids: readonly number[]): number[] {
    const places: number[] = [];
    for (const uid of uids) {
      const at = this.lowerBound(uid);
      if (this.uidList[at] === uid) places.push(at);
    }
    if (places.length === 0) return [];
    this.ownUids();
    const removed = places.map((at) => this.uidList[at]!);
    let target = places[0]!;
    places.forEach((at, nth) => {
      const begin = at + 1;
      const end = places[nth + 1] ?? this.uidList.length;
      this.shift(target, begin, end);
      for (let from = begin, to = target; from < end; from++, to++) this.uidList[to] = this.uidList[from]!;
      target += end - begin;
    });
    this.uidList.length = target;
    return removed;
  }

  /** Entries with a modseq above this one, found by looking at all. */
  scanChangedAfter(modseq: number): MailboxEntry[] {
    const found: MailboxEntry[] = [];
    for (let at = 0; at < this.uidList.length; at++) if (this.modseqs[at]! > modseq) found.push(this.entryAt(at));
    return found;
  }

  private entryAt(at: number): MailboxEntry {
    const flags = this.flags[at]!;
    return {
      uid: this.uidList[at]!,
      emailId: this.emailIds.toString('latin1', at * emailIdLength, (at + 1) * emailIdLength),
      isDeleted: (flags & 1) === 1,
      modseq: this.modseqs[at]!,
      keywords: this.keywordLists[flags >>> 1]!,
      sizeBytes: this.sizes[at]!,
      receivedAtMs: this.receivedAtMs[at]!,
      savedAtMs: this.savedAtMs[at]!,
    };
  }

  /** The first place whose UID is not below `uid`. */
  private lowerBound(uid: number): number {
    let low = 0;
    let high = this.uidList.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.uidList[middle]! < uid) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  private ownUids(): void {
    if (!this.uidsAreShared) return;
    this.uidList = this.uidList.slice();
    this.uidsAreShared = false;
  }

  private makeRoom(at: number, uid: number): void {
    this.ownUids();
    const count = this.uidList.length;
    if (count === this.capacity) this.grow();
    if (at === count) {
      this.uidList.push(uid);
      return;
    }
    this.shift(at + 1, at, count);
    this.uidList.splice(at, 0, uid);
  }

  /** Moves the facts of the places [begin, end) to `target`. */
  private shift(target: number, begin: number, end: number): void {
    if (begin === end) return;
    this.emailIds.copyWithin(target * emailIdLength, begin * emailIdLength, end * emailIdLength);
    this.modseqs.copyWithin(target, begin, end);
    this.receivedAtMs.copyWithin(target, begin, end);
    this.savedAtMs.copyWithin(target, begin, end);
    this.sizes.copyWithin(target, begin, end);
    this.flags.copyWithin(target, begin, end);
  }

  private grow(): void {
    this.capacity = Math.max(64, Math.ceil(this.capacity * 1.5));
    const ids = Buffer.allocUnsafe(this.capacity * emailIdLength);
    this.emailIds.copy(ids);
    this.emailIds = ids;
    this.modseqs = grown(this.modseqs, new Float64Array(this.capacity));
    this.receivedAtMs = grown(this.receivedAtMs, new Float64Array(this.capacity));
    this.savedAtMs = grown(this.savedAtMs, new Float64Array(this.capacity));
    this.sizes = grown(this.sizes, new Uint32Array(this.capacity));
    this.flags = grown(this.flags, new Uint32Array(this.capacity));
  }

  private listNumber(keywords: readonly string[]): number {
    const text = keywords.join(' ');
    let number = this.listNumbers.get(text);
    if (number === undefined) {
      if (this.keywordLists.length >= maxKeywordLists) this.renumberLists();
      number = this.keywordLists.push(keywords) - 1;
      this.listNumbers.set(text, number);
    }
    return number;
  }

  private renumberLists(): void {
    const old = this.keywordLists;
    this.keywordLists = [];
    this.listNumbers = new Map();
    for (let at = 0; at < this.uidList.length; at++) {
      const flags = this.flags[at]!;
      // A place just made may hold anything; it is written next.
      const list = old[flags >>> 1] ?? [];
      const text = list.join(' ');
      let number = this.listNumbers.get(text);
      if (number === undefined) {
        number = this.keywordLists.push(list) - 1;
        this.listNumbers.set(text, number);
      }
      this.flags[at] = number * 2 + (flags & 1);
    }
  }
}

/** The UIDs changed lately, by modseq; bounded, so that it forgets what is long ago. */
export class RecentUids {
  private modseqs: number[] = [];
  private uids: number[] = [];

  /** All changes above `knownAfter` are told to this object. */
  constructor(
    private knownAfter: number,
    private readonly capacity = 8_192,
  ) {}

  /** Modseqs never descend. */
  push(modseq: number, uid: number): void {
    this.modseqs.push(modseq);
    this.uids.push(uid);
    if (this.uids.length <= this.capacity) return;
    const dropped = this.capacity >> 1;
    this.knownAfter = this.modseqs[dropped - 1]!;
    this.modseqs = this.modseqs.slice(dropped);
    this.uids = this.uids.slice(dropped);
  }

  /** UIDs changed above `modseq`, ascending, each once; undefined when that reaches back too far. */
  after(modseq: number): number[] | undefined {
    if (modseq < this.knownAfter) return undefined;
    let low = 0;
    let high = this.modseqs.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.modseqs[middle]! <= modseq) low = middle + 1;
      else high = middle;
    }
    if (low === this.uids.length) return [];
    return [...new Set(this.uids.slice(low))].sort((a, b) => a - b);
  }
}
