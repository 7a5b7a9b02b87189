/**
 * What stands between the retry loop, the buffered transactions and a backend. A backend either gives whole attempts
 * (`TransactionSource`), or snapshots and commits (`SnapshotBackend`) and lets `BufferedTransaction` do the rest.
 */
import { type KeyValue, KvError, type KvStore, type KvTransaction, type KvView } from './contract.js';
import type { KeyRange } from './key-text.js';
import type { Watch } from './watches.js';
import type { WriteBuffer } from './write-buffer.js';

/** One run of a body. */
export interface Attempt {
  readonly tx: KvTransaction;
  /** Resolves to the commit's version, or for one that wrote nothing, to the version read. */
  commit(): Promise<bigint>;
  /** Lets go of everything; harmless after `commit` and when repeated. */
  discard(): void;
}

/** What a backend must give to be a `KvStore`. */
export interface TransactionSource {
  readonly backend: KvStore['backend'];
  /** `mayHaveCommitted`: what the body is told of an earlier run. */
  begin(atLeastVersion: bigint | undefined, mayHaveCommitted: boolean): Attempt | Promise<Attempt>;
  openView?(): Promise<KvView>;
  check(): Promise<void>;
  close(): Promise<void>;
}

export type MaybePromise<T> = T | Promise<T>;

/** A consistent view of the store at one version. Buffers that it gives are the reader's own. */
export interface Snapshot {
  readonly version: number;
  /** Where a snapshot is taken with its first read: resolves when `version` is known. Absent where it is from the beginning. */
  ready?(): Promise<void>;
  get(key: Uint8Array): MaybePromise<Buffer | undefined>;
  getMany(keys: readonly Uint8Array[]): MaybePromise<(Buffer | undefined)[]>;
  /** The first `limit` (perhaps infinite) pairs of `[begin, end)`, from the end when `reverse`. */
  getRange(begin: Uint8Array, end: Uint8Array, limit: number, reverse: boolean): MaybePromise<KeyValue[]>;
  /** Lets go of the view; harmless when called again. */
  release(): void;
}

/** What a transaction has read, as far as it matters to conflicts. */
export interface ReadSet {
  readonly points: Iterable<string>;
  readonly ranges: readonly KeyRange[];
}

/** Everything that a backend needs to commit. */
export interface CommitRequest {
  /** Absent when the transaction has read nothing: it conflicts with nobody. */
  readonly readVersion: number | undefined;
  readonly reads: ReadSet;
  readonly writes: WriteBuffer;
  /** Keys and ranges that count as written although they are not. */
  readonly writeConflicts: { readonly points: readonly string[]; readonly ranges: readonly KeyRange[] };
  readonly watches: readonly Watch[];
}

/** A backend that keeps its own conflict detection and takes buffered transactions. */
export interface SnapshotBackend {
  /** A view of all commits that are done, and of `atLeastVersion`. */
  acquire(atLeastVersion: number | undefined): MaybePromise<Snapshot>;
  /** Commits; resolves to the version when it is durable. The conflict check happens before anything is awaited. */
  commit(request: CommitRequest): Promise<number>;
  /** Arms watches of a transaction that wrote nothing. */
  watch(watches: readonly Watch[], readVersion: number): void;
}

/** A conflict whose cause is not visible to readers yet: running again makes sense after `settled`, and not before. */
export class PendingConflict extends KvError {
  constructor(
    message: string,
    readonly settled: Promise<void>,
    /** The key, or the first key of the range, that was read and written. */
    readonly contended: string,
  ) {
    super('conflict', message);
  }
}
