/**
 * The blob store: preparing, linking and unlinking content, and the way to its reader, its writer and its purge.
 */
import type { KvReads, KvTransaction } from '../kv/contract.js';
import {
  type BlobId,
  type BlobInfo,
  BlobMissing,
  type BlobOwner,
  type BlobStore,
  type BlobWriter,
  type ContentOptions,
  type PreparedBlob,
  type PurgeResult,
  type UnlinkOptions,
  type WriterOptions,
} from './contract.js';
import type { ExternalStorage } from './external.js';
import { candidateKey, expiryKey, headKey, linkKey, uploadKey } from './keys.js';
import { LargeBlob, SmallBlob, StoredBlob } from './prepared.js';
import { BlobPurge, type PurgePass } from './purge.js';
import { type BlobRange, readBlob, streamBlob } from './reader.js';
import { decodeHead, decodeUpload, encodeSeconds, isTombstoned, withTombstone } from './records.js';
import { markGarbage } from './removal.js';
import { type BlobSettings, type BlobStoreOptions, blobSettings, maxPreparedBytes, nowSecondsOf } from './settings.js';
import { StreamingWriter, smallBlob } from './writer.js';

const noBytes = Buffer.alloc(0);

/** Blobs in `kv`. Throws RangeError for limits that make no sense. */
export function createBlobStore(options: BlobStoreOptions): BlobStore {
  return new KvBlobStore(blobSettings(options));
}

class KvBlobStore implements BlobStore {
  readonly #settings: BlobSettings;
  readonly #purge: BlobPurge;

  constructor(settings: BlobSettings) {
    this.#settings = settings;
    this.#purge = new BlobPurge(settings);
  }

  writer(options?: WriterOptions): BlobWriter {
    return new StreamingWriter(this.#settings, options);
  }

  prepare(bytes: Uint8Array, { isUnique = false }: ContentOptions = {}): PreparedBlob {
    if (bytes.length > maxPreparedBytes)
      throw new RangeError(`prepare takes at most ${maxPreparedBytes} bytes; write what is longer`);
    const content = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return smallBlob(this.#settings, content, isUnique);
  }

  stored({ id, sizeBytes }: BlobInfo): PreparedBlob {
    return new StoredBlob(id, sizeBytes);
  }

  async linkPrepared(tx: KvTransaction, blob: PreparedBlob, owner: BlobOwner): Promise<void> {
    const head = await tx.get(headKey(blob.id));
    if (blob instanceof SmallBlob) {
      if (!head) tx.set(headKey(blob.id), blob.store(tx, this.#settings));
    } else if (blob instanceof LargeBlob) {
      await this.#adoptUpload(tx, blob, head);
    } else if (blob instanceof StoredBlob) {
      if (!head) throw new BlobMissing(blob.id);
    } else {
      throw new TypeError('this blob was not prepared by a blob store');
    }
    if (head) this.#keep(tx, blob.id, head);
    this.#setLink(tx, blob.id, owner);
  }

  async link(tx: KvTransaction, id: BlobId, owner: BlobOwner): Promise<void> {
    const head = await tx.get(headKey(id));
    if (!head) throw new BlobMissing(id);
    this.#keep(tx, id, head);
    this.#setLink(tx, id, owner);
  }

  unlink(tx: KvTransaction, id: BlobId, owner: BlobOwner, options?: UnlinkOptions): void {
    tx.clear(linkKey(id, owner));
    if (options?.isLinkedElsewhere) return;
    tx.set(candidateKey(id), encodeSeconds(nowSecondsOf(this.#settings.clock)));
  }

  async stat(reads: KvReads, id: BlobId): Promise<BlobInfo | undefined> {
    const head = await reads.get(headKey(id));
    return head && { id, sizeBytes: decodeHead(id, head).sizeBytes };
  }

  read(id: BlobId, range: BlobRange = {}): Promise<Buffer> {
    return readBlob(this.#settings, id, range);
  }

  stream(id: BlobId, range: BlobRange = {}): AsyncIterable<Buffer> {
    return streamBlob(this.#settings, id, range);
  }

  async check(): Promise<void> {
    await this.#settings.external.writeTo?.check();
  }

  storages(): readonly ExternalStorage[] {
    return this.#settings.external.all;
  }

  purge(pass: PurgePass): Promise<PurgeResult> {
    return this.#purge.run(pass);
  }

  /**
   * A large blob's bytes become the content, or garbage when others already are. Throws `BlobMissing` when the upload was given up: its bytes
   * may be gone, and reading its record makes a purge of them conflict with this link.
   */
  async #adoptUpload(tx: KvTransaction, blob: LargeBlob, head: Buffer | undefined): Promise<void> {
    const recordKey = uploadKey(blob.storageId);
    const value = await tx.get(recordKey);
    const record = value && decodeUpload(value);
    if (!head) {
      if (record?.state !== 'writing') throw new BlobMissing(blob.id);
      tx.set(headKey(blob.id), blob.head);
      tx.clear(recordKey);
    } else if (record?.state === 'writing') {
      markGarbage(tx, blob.storageId, record, nowSecondsOf(this.#settings.clock));
    }
  }

  /** There is a link again: no tombstone. */
  #keep(tx: KvTransaction, id: BlobId, head: Buffer): void {
    // A candidate that is left is looked at once and dropped; clearing it here would cost every link a write.
    if (isTombstoned(head)) tx.set(headKey(id), withTombstone(head, 0));
  }

  #setLink(tx: KvTransaction, id: BlobId, owner: BlobOwner): void {
    if (owner.kind !== 'upload') {
      tx.set(linkKey(id, owner), noBytes);
      return;
    }
    const dueSeconds = nowSecondsOf(this.#settings.clock) + this.#settings.uploadLifetimeSeconds;
    tx.set(linkKey(id, owner), encodeSeconds(dueSeconds));
    tx.set(expiryKey(dueSeconds, id, owner), noBytes);
  }
}
