/**
 * What every storage outside of the key-value store gives: files that all nodes share, S3-compatible services. Objects are written once under a random
 * storage id, read in ranges, and removed; nothing here knows of blob ids, links or heads.
 */

/** Where bytes lie that are not in the key-value store. */
export type ExternalPlace = 'files' | 's3';

/** Bytes on their way under one storage id. Nothing can be read before `finish` resolved. */
export interface ExternalWriter {
  /** Answers a promise when the caller should wait. Throws KvError `unavailable` for earlier bytes that could not be written. */
  write(bytes: Buffer): Promise<void> | undefined;
  /** Resolves when all bytes are durable under the storage id, and as many as were written. Throws KvError `unavailable`. */
  finish(): Promise<void>;
  /**
   * Writes nothing more and lets go of what was written, as far as that can be done now; `remove` does the rest. Answers false when something that was sent
   * may still arrive. Never throws.
   */
  abort(): Promise<boolean>;
}

export interface StoredObject {
  storageId: string;
  /** Stored bytes; undefined for unfinished ones whose size the service does not tell. */
  sizeBytes: number | undefined;
  modifiedMs: number;
  /** False: a temporary file or an incomplete multipart upload. */
  isComplete: boolean;
}

/**
 * All methods throw KvError `unavailable` (`no-space`, `io`, `outage`) when the storage can't be used. An absent object is believed only when the
 * storage's mark was seen: a directory that is not mounted, or another bucket, is `unavailable`, never empty.
 */
export interface ExternalStorage {
  readonly place: ExternalPlace;
  /** Begins an object under an id (32 hex digits) that nobody used before. */
  put(storageId: string): ExternalWriter;
  /**
   * The stored bytes `[start, end)` of an object of `storedBytes` bytes, read as they are consumed. Throws `ExternalMissing` when it is not there,
   * `ExternalDamaged` when its length is another.
   */
  read(storageId: string, start: number, end: number, storedBytes: number): AsyncIterable<Buffer>;
  /** Stored bytes, or undefined when it is not there. */
  size(storageId: string): Promise<number | undefined>;
  /** Resolves when nothing of it is left. `isAbandoned`: it may never have been finished; unfinished parts go too. */
  remove(storageId: string, options: { isAbandoned: boolean }): Promise<void>;
  /** All objects, finished or not, in no particular order; for the checker. */
  list(): AsyncIterable<StoredObject>;
  /** Whether it can be read and written now. */
  check(): Promise<void>;
}

/** There is no such object in a storage that is there. */
export class ExternalMissing extends Error {
  override readonly name = 'ExternalMissing';
}

/** An object is not as long as it was when written. */
export class ExternalDamaged extends Error {
  override readonly name = 'ExternalDamaged';
}

export interface FilesOptions {
  /** Absolute path of a directory that all nodes share. */
  directory: string;
}

export interface S3Options {
  /** `https://host[:port][/path]`, without the bucket: it is addressed as the next part of the path. */
  endpoint: string;
  region: string;
  bucket: string;
  /** Put before each object's name, e.g. `mail/`. Letters, digits and `._/-`. Default: none. */
  prefix?: string;
  accessKeyId: string;
  secretAccessKey: string;
  /** Stored bytes per part of a multipart upload; what is shorter is one PUT. About three such parts are in memory per upload. Default 5 MiB. */
  partBytes?: number;
  /** From the start of a request to its answer, and the longest silence within an answer (ms). Default 30,000. */
  requestTimeoutMs?: number;
  /** Tries per request, the first included. Default 5. */
  maxAttempts?: number;
}

/** One storage to write to, all of them to read from. */
export interface ExternalBlobOptions {
  /** Without it, new blobs stay in the key-value store. */
  writeTo?: ExternalPlace;
  /** Content longer than this goes to `writeTo`; until it is exceeded, content is held in memory. Default 1 MiB. */
  thresholdBytes?: number;
  /** Content per frame, the smallest unit that is read. Kept in each blob's head, so it may change. Default 131,072. */
  frameBytes?: number;
  files?: FilesOptions;
  s3?: S3Options;
}
