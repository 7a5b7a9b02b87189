/** What changed in a mailbox lately, so that a session asks for it without a look at all messages. */
import { countUids, type UidRanges, uidsIn } from './uid-ranges.js';

/** The UIDs changed lately, by modseq; bounded, so that it forgets what is long ago. */
export class RecentUids {
  private modseqs: number[] = [];
  private uids: number[] = [];

  /** All changes above `knownAfter` are told to this object. */
  constructor(
    private knownAfter: number,
    private readonly capacity = 8_192,
  ) {}

  get memoryBytes(): number {
    return this.uids.length * 16;
  }

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

  /** As if all of these had been pushed. So many at once are not remembered one by one: whoever asks has to look at all messages. */
  pushRange(modseq: number, uids: UidRanges): void {
    if (countUids(uids) <= this.capacity >> 4) {
      for (const uid of uidsIn(uids)) this.push(modseq, uid);
      return;
    }
    this.knownAfter = modseq;
    this.modseqs = [];
    this.uids = [];
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
