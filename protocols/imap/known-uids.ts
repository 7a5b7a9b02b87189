/** UIDs that are noted one by one, ascending as a rule: kept as ranges, so that a change of a whole mailbox takes no more room than one of a message. */
import { inRanges } from './grammar/sequence-set.js';

export class KnownUids {
  /** Ascending, disjoint, both ends inclusive. */
  readonly #ranges: number[] = [];
  /** Those that came out of order. */
  #others: Set<number> | undefined;

  add(uid: number): void {
    const ranges = this.#ranges;
    const last = ranges.length - 1;
    if (last < 0 || uid > ranges[last]! + 1) ranges.push(uid, uid);
    else if (uid === ranges[last]! + 1) ranges[last] = uid;
    else if (!inRanges(ranges, uid)) {
      this.#others ??= new Set();
      this.#others.add(uid);
    }
  }

  has(uid: number): boolean {
    return inRanges(this.#ranges, uid) || this.#others?.has(uid) === true;
  }
}
