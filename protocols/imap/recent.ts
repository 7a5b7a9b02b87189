/** Which messages of the selected mailbox are \Recent (RFC 3501 2.3.2) to an IMAP4rev1 session. IMAP4rev2 has no such flag. */
import type { RecentHold } from '../../store/mail/contract.js';
import { inRanges, lowerBound, type Ranges } from './grammar/sequence-set.js';

/** Runs of UIDs that one session keeps; where sessions take turns in being told first, the oldest are forgotten then. */
const maxRanges = 1_000;

export class RecentMessages {
  readonly #hold: RecentHold | undefined;
  readonly #ranges: number[] = [];

  /** Without a hold nothing is taken from others: EXAMINE. */
  constructor(from: number, uidNext: number, hold?: RecentHold) {
    this.#hold = hold;
    this.#add(from, uidNext);
  }

  /** Ascending, disjoint, both ends inclusive. The same list for as long as the mailbox is selected, which grows. */
  get ranges(): Ranges {
    return this.#ranges;
  }

  /** The lowest that can be recent; infinite where none is. */
  get lowest(): number {
    return this.#ranges[0] ?? Number.POSITIVE_INFINITY;
  }

  has(uid: number): boolean {
    return uid >= this.lowest && inRanges(this.#ranges, uid);
  }

  /** The client is about to be told of the messages from `firstUid` to before `uidNext`. */
  arrived(firstUid: number, uidNext: number): void {
    this.#add(this.#hold ? Math.max(firstUid, this.#hold.claim(uidNext)) : firstUid, uidNext);
  }

  /** How many of these (ascending UIDs) are recent. */
  countIn(uids: ArrayLike<number>): number {
    let count = 0;
    for (let i = 0; i < this.#ranges.length; i += 2)
      count += lowerBound(uids, this.#ranges[i + 1]! + 1) - lowerBound(uids, this.#ranges[i]!);
    return count;
  }

  close(): void {
    this.#hold?.release();
  }

  #add(from: number, to: number): void {
    if (from >= to) return;
    const ranges = this.#ranges;
    if (ranges[ranges.length - 1] === from - 1) ranges[ranges.length - 1] = to - 1;
    else ranges.push(from, to - 1);
    if (ranges.length > 2 * maxRanges) ranges.splice(0, 2);
  }
}
