/**
 * The ordered transactional key-value contract that every backend gives: FoundationDB's semantics and limits. Keys and values are
 * bytes; keys are ordered as unsigned bytes. Transactions are strictly serialisable, with optimistic conflict detection on what was
 * read; a body may run more than once, and every commit may turn out unknown, so bodies choose ids before and check inside.
 */

/** FoundationDB's limits, enforced on every backend so that what passes on one passes on all. */
export const kvLimits = {
  maxKeyBytes: 10_000,
  maxValueBytes: 100_000,
  /** Sum of written keys and values, and of conflict ranges. */
  maxTransactionBytes: 10_000_000,
  /** From the read version to the commit. */
  maxTransactionMs: 5_000,
} as const;

export type KvErrorCode =
  /** Another commit changed what this transaction read. Harmless to retry. */
  | 'conflict'
  /** The read version is older than 5 s. Harmless to retry with less work in it. */
  | 'too-old'
  /** A key, a value or the transaction is over its limit. Never retried. */
  | 'too-large'
  /** The commit may or may not have happened. */
  | 'commit-unknown'
  /** The store can't be used now; `reason` tells why. */
  | 'unavailable';

/** Why a store is `unavailable`. */
export type UnavailableReason = 'no-space' | 'outage' | 'closed' | 'io';

export class KvError extends Error {
  override readonly name = 'KvError';
  constructor(
    readonly code: KvErrorCode,
    message: string,
    readonly reason?: UnavailableReason,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
  /** Whether `transact` runs the body again after this error. */
  get retryable(): boolean {
    return this.code === 'conflict' || this.code === 'too-old' || this.code === 'commit-unknown';
  }
}

export interface KeyValue {
  key: Buffer;
  value: Buffer;
}

export interface RangeOptions {
  /** At most this many pairs. Default: all (within the transaction's time). */
  limit?: number;
  /** From the end towards the beginning. */
  reverse?: boolean;
}

/** Reads. `begin` is inclusive, `end` exclusive. Buffers that come back belong to the caller. */
export interface KvReads {
  get(key: Uint8Array): Promise<Buffer | undefined>;
  /** One round trip for many keys; answers in the order asked. */
  getMany(keys: readonly Uint8Array[]): Promise<(Buffer | undefined)[]>;
  getRange(begin: Uint8Array, end: Uint8Array, options?: RangeOptions): Promise<KeyValue[]>;
}

export interface KvTransaction extends KvReads {
  /** Reads that add no conflict ranges; they still see this transaction's own writes. */
  readonly snapshot: KvReads;
  /**
   * True when an earlier run of this body may have been committed (its commit came back unknown). Only then can something be there already under an id that
   * was made up for this transaction, so only then need a body look for it.
   */
  readonly mayHaveCommitted: boolean;
  set(key: Uint8Array, value: Uint8Array): void;
  clear(key: Uint8Array): void;
  clearRange(begin: Uint8Array, end: Uint8Array): void;
  /** Little-endian two's complement addition, 8 bytes; an absent value counts as 0. Causes no read conflict. */
  add(key: Uint8Array, delta: bigint): void;
  /** Unsigned little-endian 8-byte maximum; an absent value counts as 0. */
  max(key: Uint8Array, value: bigint): void;
  /** Unsigned little-endian 8-byte minimum; an absent value becomes `value`. */
  min(key: Uint8Array, value: bigint): void;
  /** Sets `prefix + 10-byte versionstamp of this commit + suffix` to `value`. Not readable within this transaction. */
  setVersionstampedKey(prefix: Uint8Array, suffix: Uint8Array, value: Uint8Array): void;
  addReadConflictRange(begin: Uint8Array, end: Uint8Array): void;
  addReadConflictKey(key: Uint8Array): void;
  addWriteConflictRange(begin: Uint8Array, end: Uint8Array): void;
  addWriteConflictKey(key: Uint8Array): void;
  /** The version whose state this transaction reads. */
  readVersion(): Promise<bigint>;
  /** Resolves when `key`'s value differs from what this transaction saw of it, once its commit is done; may fire spuriously. */
  watch(key: Uint8Array): KvWatch;
}

export interface KvWatch {
  /** Resolves on a change or on `cancel`; rejects with `unavailable` when the store closes or the transaction failed. */
  readonly fired: Promise<void>;
  cancel(): void;
}

export interface TransactOptions {
  /** Shown in metrics and log lines; from a small fixed set of names (`enqueue`, `deliver`, `claim`). */
  label?: string;
  /** Attempts before the last error is thrown. Default 100. */
  maxAttempts?: number;
  /** Stops retrying; the signal's reason is thrown. */
  signal?: AbortSignal;
  /** Read no older state than this (a commit version learnt from elsewhere, TRAPS 7). */
  atLeastVersion?: bigint;
}

export interface Committed<T> {
  value: T;
  /** Version of the commit; of the read for a transaction that wrote nothing. Ascending in commit order. */
  version: bigint;
}

export interface KvStore {
  readonly backend: 'memory' | 'embedded' | 'postgres' | 'foundationdb';
  /**
   * Runs `body` and commits; again after `conflict`, `too-old` and `commit-unknown` with backoff and jitter. Resolves after the commit
   * is durable. What `body` throws is thrown on, and nothing is written.
   */
  transact<T>(body: (tx: KvTransaction) => Promise<T>, options?: TransactOptions): Promise<T>;
  /** `transact` that also tells the commit version. */
  transactVersioned<T>(body: (tx: KvTransaction) => Promise<T>, options?: TransactOptions): Promise<Committed<T>>;
  /** A read-only snapshot; nothing to commit. `too-old` is retried. */
  read<T>(body: (reads: KvReads) => Promise<T>, options?: TransactOptions): Promise<T>;
  /**
   * A consistent view for backups, which may be read for hours. Absent where the engine can't give one (FoundationDB). It costs the engine something as
   * long as it is open (old row versions, a growing log): close it.
   */
  openView?(): Promise<KvView>;
  /** Asks the store for something small, durable path included (a write). Throws `unavailable` with its reason; for readiness. */
  check(): Promise<void>;
  /** Waits for running commits, makes them durable, and lets go of the files. Afterwards every call throws `unavailable` (`closed`). */
  close(): Promise<void>;
}

/** One version of the whole store. A broken connection ends it: reads then throw `unavailable`, and the view can't be had again. */
export interface KvView extends KvReads {
  readonly version: bigint;
  close(): Promise<void>;
}

/** The first key after every key that starts with `prefix` (FoundationDB's strinc). */
export function prefixEnd(prefix: Uint8Array): Buffer {
  let length = prefix.length;
  while (length > 0 && prefix[length - 1] === 0xff) length--;
  if (length === 0) throw new RangeError('no key follows a prefix of 0xff bytes');
  const end = Buffer.from(prefix.subarray(0, length));
  end[length - 1]!++;
  return end;
}

/** The key right after `key`. */
export function keyAfter(key: Uint8Array): Buffer {
  const after = Buffer.allocUnsafe(key.length + 1);
  after.set(key);
  after[key.length] = 0;
  return after;
}
