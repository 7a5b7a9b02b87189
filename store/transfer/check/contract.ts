/** What a check of a store finds. */

export type CheckArea = 'mail' | 'blobs' | 'queue' | 'directory' | 'limits' | 'search';

export interface Finding {
  area: CheckArea;
  /** The account, blob, queue id, address, network or look-up entry. */
  where: string;
  problem: string;
  /** `mendable`: a check with `repair` would have mended it. */
  state: 'mended' | 'mendable' | 'standing';
}

export interface CheckResult {
  accounts: number;
  messages: number;
  blobs: number;
  queued: number;
  /** Findings that stand, mended ones not counted. */
  differences: number;
  mended: number;
  /** The first thousand. */
  findings: Finding[];
  /** What could not be looked at. */
  notes: string[];
}

export interface CheckProgress {
  area: CheckArea;
  /** Accounts, blobs and links, queue rows, addresses, bans and look-up entries, search indexes so far. */
  items: number;
}
