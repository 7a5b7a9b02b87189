/**
 * What was observed of a run: transactions that append unique numbers to lists and read lists, when each was begun and answered, and how
 * it ended. Made by `workload.ts` or by hand; judged by `checker.ts`.
 */

/** Lists have names that sort as their keys in the store do. */
export type ListName = string;
export type List = readonly number[];

export type ObservedOperation =
  /** An absent list reads as empty. */
  | { readonly kind: 'read'; readonly list: ListName; readonly found: List }
  /** Every list from `begin` to before `end`: those that are not in `found` were seen to be absent. */
  | { readonly kind: 'range'; readonly begin: ListName; readonly end: ListName; readonly found: ReadonlyMap<ListName, List> }
  /** `value` is appended nowhere else in the whole run. */
  | { readonly kind: 'append'; readonly list: ListName; readonly value: number };

export interface ObservedTransaction {
  readonly id: number;
  /** Who ran it, for messages. */
  readonly client: string;
  /** In the order in which the body did them; reads after an append see it. */
  readonly operations: readonly ObservedOperation[];
  /** `ok`: acknowledged. `fail`: said not to have happened. `info`: unknown. */
  readonly outcome: 'ok' | 'fail' | 'info';
  /** On one clock for the whole run: a moment before the transaction began … */
  readonly begunAt: number;
  /** … and one after its answer. What ended before another began must come before it. Meaningless unless `ok`. */
  readonly endedAt: number;
  /** What the store told: of the commit, or of the read for a transaction that wrote nothing. */
  readonly version?: bigint;
}

export type AnomalyKind =
  /** Two reads of a list of which neither begins with the other: an append was overwritten. */
  | 'incompatible-order'
  | 'duplicate-append'
  /** Acknowledged, and missing from what was read later. */
  | 'lost-append'
  /** A number that nobody ever appended. */
  | 'unknown-value'
  /** A transaction disagrees with what it has read or appended itself before. */
  | 'internal'
  /** A read of what never was committed. */
  | 'G1a'
  /** A read of what its writer overwrote within the same transaction. */
  | 'G1b'
  /** A circle of writes. */
  | 'G0'
  /** A circle of writes and reads. */
  | 'G1c'
  /** A circle with one anti-dependency: read skew, lost update. */
  | 'G-single'
  /** A circle with several anti-dependencies, all of them over lists read by name: write skew. */
  | 'G2-item'
  /** … and at least one over what a range was seen not to hold: phantoms. */
  | 'G2'
  /** No circle without real time: a stale read, or a commit that came true late. */
  | 'real-time'
  /** No circle without the versions that the store told. */
  | 'version-order';

export interface Anomaly {
  readonly kind: AnomalyKind;
  /** Several lines for people. */
  readonly message: string;
  readonly transactions: readonly number[];
}
