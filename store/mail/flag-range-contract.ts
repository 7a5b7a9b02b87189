/** One change of the flags of many entries, as the change log tells it. For the mailbox index; others need no more than the UIDs. */
import type { UidRanges } from './uid-ranges.js';

export type { UidRanges } from './uid-ranges.js';

/** What becomes of an entry's flags. First that goes which is named to go, then that comes which is named to come. */
export interface RangeChange {
  /** Bits of common keywords (`keywords.ts`), and `deletedBit` of `flag-ranges.ts`. */
  set: number;
  clear: number;
  /** Uncommon keywords, in canonical order. */
  adds: readonly string[];
  removes: readonly string[];
  /** All uncommon keywords go. */
  clearsOthers: boolean;
}

/** Names exactly the UIDs whose flags it changed. */
export interface FlagRange {
  modseq: number;
  uids: UidRanges;
  change: RangeChange;
}
