/**
 * Bytes that never change. A blob's id comes from the SHA-256 of its content, and from the time where it is unique (`ids.ts`). A blob lives as long as an owner
 * links to it; links are written and removed in the owner's transaction, the bytes go later: candidate, tombstone, and a generation later removal (TRAPS 6).
 */
import type { KvReads, KvTransaction } from '../kv/contract.js';
import type { ExternalStorage } from './external.js';

/** 64 lower-case hex digits: the SHA-256 of the content; of unique content when it came and the end of its SHA-256. */
export type BlobId = string;

/** Who keeps a blob alive. */
export type BlobOwner =
  | { kind: 'message'; accountId: string; emailId: string }
  | { kind: 'queue'; queueId: string }
  /** Kept until `purge` finds it older than the upload lifetime (JMAP uploads). */
  | { kind: 'upload'; accountId: string; uploadId: string };

/** Bytes that are ready to be linked: small ones still in memory, large ones already written under `storageId` but not yet reachable. */
export interface PreparedBlob {
  readonly id: BlobId;
  readonly sizeBytes: number;
  /** As many of them are in memory, and are written by the transaction that links it first; absent: none. */
  readonly heldBytes?: number;
}

export interface ContentOptions {
  /**
   * There will hardly be the same content again (it has a trace line or an id of its own), so it need not be found by its content: its id begins with the time,
   * and what comes at one time lies together. The same content that comes again all the same is stored again. Default: false.
   */
  isUnique?: boolean;
}

export interface WriterOptions extends ContentOptions {
  /** What is longer is written at once, though it might be held until it is linked: for who links many in one transaction. Default: no such limit. */
  maxHeldBytes?: number;
}

export interface UnlinkOptions {
  /** This transaction links the blob to another owner: there is nothing for the purge to look at. */
  isLinkedElsewhere?: boolean;
}

/**
 * Takes a stream of bytes. Up to `inlineLimitBytes` (with an external storage: its threshold) stay in memory; what is longer is compressed and written chunk
 * by chunk as it arrives. `write` and `finish` throw KvError `unavailable` when the place where it goes can't take it.
 */
export interface BlobWriter {
  readonly sizeBytes: number;
  /** Returns a promise when the caller should wait (back-pressure), nothing otherwise. The chunk may be kept: do not reuse its memory. */
  write(chunk: Uint8Array): Promise<void> | void;
  /** No more bytes. Throws KvError when the store can't take them. */
  finish(): Promise<PreparedBlob>;
  /** Lets go of what was written. Safe at any time, also after `finish`, as long as nothing was linked. */
  abort(): Promise<void>;
}

export interface BlobInfo {
  id: BlobId;
  sizeBytes: number;
}

/** Where a blob's bytes lie: in its head, in chunks of the key-value store, in files, or on S3. */
export interface BlobPlacement {
  place: 'head' | 'chunks' | 'files' | 's3';
  sizeBytes: number;
  /** On its way out, unless somebody links it again. */
  isTombstoned: boolean;
  /** Name of the chunks or of the object, 32 hex digits. */
  storageId?: string;
  chunkCount?: number;
  /** Length of the object, after compression. */
  storedBytes?: number;
}

export interface BlobStore {
  writer(options?: WriterOptions): BlobWriter;
  /** Prepares bytes already in memory. Synchronous up to `inlineLimitBytes`. */
  prepare(bytes: Uint8Array, options?: ContentOptions): PreparedBlob;
  /** Names a blob that is in the store already, for whoever takes prepared ones: linking it throws `BlobMissing` when it is gone. */
  stored(info: BlobInfo): PreparedBlob;
  /**
   * Makes the prepared bytes reachable and links them to `owner`, in `tx`. Reads the head (so that it conflicts with a purge), clears a
   * tombstone, writes the bytes when they are not there. Running the body again is harmless.
   */
  linkPrepared(tx: KvTransaction, blob: PreparedBlob, owner: BlobOwner): Promise<void>;
  /** Links an existing blob to one more owner. Throws `BlobMissing` when it is gone. */
  link(tx: KvTransaction, id: BlobId, owner: BlobOwner): Promise<void>;
  /** Removes a link and marks the blob as a candidate for purging. No read, no conflict. */
  unlink(tx: KvTransaction, id: BlobId, owner: BlobOwner, options?: UnlinkOptions): void;
  /** Size, or undefined when there is no such blob. One whose last link has gone is there until a purge has removed it, two generations later. */
  stat(reads: KvReads, id: BlobId): Promise<BlobInfo | undefined>;
  /** The bytes `[start, end)` as one Buffer; whole blob by default. Throws `BlobMissing`, `BlobCorrupt`, KvError `unavailable`. */
  read(id: BlobId, range?: { start?: number; end?: number }): Promise<Buffer>;
  /** The bytes as a stream of chunks, read as they are consumed; never more than a few chunks in memory. Throws like `read`. */
  stream(id: BlobId, range?: { start?: number; end?: number }): AsyncIterable<Buffer>;
  /** Asks the storage that large blobs are written to whether it is there. Throws KvError `unavailable`; for readiness. */
  check(): Promise<void>;
  /** The external storages that are set up, for the checker. */
  storages(): readonly ExternalStorage[];
  /** One bounded pass of purging: candidates, tombstones of an earlier generation, abandoned uploads. Resumes by itself. */
  purge(options: { nowSeconds: number; maxItems?: number; signal?: AbortSignal }): Promise<PurgeResult>;
}

export interface PurgeResult {
  examined: number;
  tombstoned: number;
  removed: number;
  removedBytes: number;
  /** More was waiting than `maxItems`. */
  more: boolean;
}

export class BlobMissing extends Error {
  override readonly name = 'BlobMissing';
  constructor(readonly id: BlobId) {
    super(`no blob ${id}`);
  }
}

/** What is stored under a blob's keys is not what was written: a missing chunk, a wrong length, a wrong checksum, an unknown format. */
export class BlobCorrupt extends Error {
  override readonly name = 'BlobCorrupt';
  constructor(
    readonly id: BlobId,
    what: string,
  ) {
    super(`blob ${id} is corrupt: ${what}`);
  }
}
