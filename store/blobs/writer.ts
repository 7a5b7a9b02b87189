/**
 * Takes a blob as a stream. What stays short is kept in memory; from `inlineLimitBytes` on it is cut into chunks, compressed, and written in batches
 * while the stream goes on: one batch in flight, one being filled.
 */
import { createHash, type Hash } from 'node:crypto';
import { counter } from '../../ops/telemetry/index.js';
import { encodeChunk } from './chunk.js';
import type { BlobWriter, PreparedBlob } from './contract.js';
import { chunkKey, uploadKey } from './keys.js';
import { LargeBlob, SmallBlob } from './prepared.js';
import { decodeUpload, encodeUpload, storageIdBytes } from './records.js';
import { discardUpload } from './removal.js';
import { type BlobSettings, nowSecondsOf } from './settings.js';

const streamedBytes = counter('starling_blob_streamed_bytes_total', 'Content bytes of large blobs written while they arrived');
const storedBytes = counter('starling_blob_stored_bytes_total', 'Bytes of large blobs as stored, after compression');

/** Pieces that are shorter together are joined: who writes octet by octet must not cost a Buffer for each. */
const joinBytes = 4096;

/** A purge gave this upload up while it was still written: it had gone on for longer than `abandonedUploadSeconds`. */
export class UploadLost extends Error {
  override readonly name = 'UploadLost';
  constructor() {
    super('the upload took too long and was given up');
  }
}

export class StreamingWriter implements BlobWriter {
  sizeBytes = 0;
  readonly #settings: BlobSettings;
  #state: 'open' | 'finished' | 'aborted' = 'open';
  /** Content that is not yet in a chunk: all of it while the blob is small, then the beginning of the next chunk. */
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  /** Set once the content is longer than the inline limit. */
  #large: { hash: Hash; storageId: Buffer; startedSeconds: number } | undefined;
  #batch: Buffer[] = [];
  #batchBytes = 0;
  #chunksHandedOver = 0;
  #inFlight: Promise<void> | undefined;
  /** Writes that wait for a batch, in their order. */
  #waiting: Promise<void> | undefined;
  #failure: unknown;

  constructor(settings: BlobSettings) {
    this.#settings = settings;
  }

  write(chunk: Uint8Array): Promise<void> | void {
    this.#assertOpen();
    this.sizeBytes += chunk.length;
    const bytes = asBuffer(chunk);
    const done = this.#waiting ? this.#waiting.then(() => this.#take(bytes)) : this.#take(bytes);
    if (!done) return;
    const waiting = done.finally(() => {
      if (this.#waiting === waiting) this.#waiting = undefined;
    });
    waiting.catch(() => {});
    this.#waiting = waiting;
    return waiting;
  }

  async finish(): Promise<PreparedBlob> {
    this.#assertOpen();
    this.#state = 'finished';
    const large = this.#large;
    if (!large) {
      const content = this.#pending.length === 1 ? this.#pending[0]! : Buffer.concat(this.#pending, this.#pendingBytes);
      this.#pending = [];
      return new SmallBlob(content);
    }
    await this.#waiting;
    this.#sealChunk();
    await this.#inFlight;
    if (this.#batch.length > 0) this.#startBatch();
    await this.#inFlight;
    if (this.#failure) throw this.#failure;
    streamedBytes.inc(this.sizeBytes);
    return new LargeBlob(large.hash.digest('hex'), this.sizeBytes, large.storageId, this.#settings.chunkBytes);
  }

  async abort(): Promise<void> {
    this.#state = 'aborted';
    this.#pending = [];
    this.#batch = [];
    await this.#waiting?.catch(() => {});
    await this.#inFlight?.catch(() => {});
    if (!this.#large || this.#chunksHandedOver === 0) return;
    try {
      await discardUpload(this.#settings.kv, this.#large.storageId);
    } catch (error) {
      // The upload record is still there, so a later purge finds the chunks.
      this.#settings.logger.warn({ err: error }, 'chunks of an aborted upload are left for the purge');
    }
  }

  #assertOpen(): void {
    if (this.#state !== 'open') throw new Error(`this blob writer is ${this.#state}`);
    if (this.#failure) throw this.#failure;
  }

  #take(bytes: Buffer): Promise<void> | undefined {
    if (this.#large) return this.#absorb(bytes, 0);
    this.#hold(bytes);
    if (this.#pendingBytes <= this.#settings.inlineLimitBytes) return undefined;
    const { clock, random } = this.#settings;
    this.#large = { hash: createHash('sha256'), storageId: random.bytes(storageIdBytes), startedSeconds: nowSecondsOf(clock) };
    const content = this.#pending.length === 1 ? this.#pending[0]! : Buffer.concat(this.#pending, this.#pendingBytes);
    this.#pending = [];
    this.#pendingBytes = 0;
    return this.#absorb(content, 0);
  }

  #hold(bytes: Buffer): void {
    const last = this.#pending.at(-1);
    if (last && last.length + bytes.length <= joinBytes) this.#pending[this.#pending.length - 1] = Buffer.concat([last, bytes]);
    else this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
  }

  /** Cuts `bytes` from `offset` on into chunks. Answers a promise when a full batch has to wait for the one in flight. */
  #absorb(bytes: Buffer, offset: number): Promise<void> | undefined {
    const { chunkBytes, batchBytes } = this.#settings;
    while (offset < bytes.length && this.#state !== 'aborted') {
      const part = bytes.subarray(offset, offset + chunkBytes - this.#pendingBytes);
      this.#large!.hash.update(part);
      this.#hold(part);
      offset += part.length;
      if (this.#pendingBytes === chunkBytes) this.#sealChunk();
      if (this.#batchBytes < batchBytes) continue;
      if (!this.#inFlight) this.#startBatch();
      else {
        return this.#inFlight.then(() => {
          if (this.#state !== 'aborted') this.#startBatch();
          return this.#absorb(bytes, offset);
        });
      }
    }
    return undefined;
  }

  #sealChunk(): void {
    if (this.#pendingBytes === 0) return;
    const content = this.#pending.length === 1 ? this.#pending[0]! : Buffer.concat(this.#pending, this.#pendingBytes);
    const chunk = encodeChunk(content);
    this.#batch.push(chunk);
    this.#batchBytes += chunk.length;
    this.#pending = [];
    this.#pendingBytes = 0;
  }

  #startBatch(): void {
    const chunks = this.#batch;
    const first = this.#chunksHandedOver;
    this.#batch = [];
    this.#batchBytes = 0;
    this.#chunksHandedOver += chunks.length;
    const flight = this.#commit(chunks, first).then(
      () => {
        this.#inFlight = undefined;
      },
      (error) => {
        this.#inFlight = undefined;
        this.#failure = error;
        throw error;
      },
    );
    flight.catch(() => {});
    this.#inFlight = flight;
  }

  /** Writes one batch and counts it in the upload record, which must still be ours: a purge that gave this upload up wins. */
  async #commit(chunks: Buffer[], first: number): Promise<void> {
    const { storageId, startedSeconds } = this.#large!;
    const recordKey = uploadKey(storageId);
    const record = encodeUpload({ state: 'writing', sinceSeconds: startedSeconds, chunkCount: first + chunks.length });
    await this.#settings.kv.transact(
      async (tx) => {
        const existing = await tx.get(recordKey);
        if (existing ? decodeUpload(existing).state !== 'writing' : first > 0) throw new UploadLost();
        for (const [index, chunk] of chunks.entries()) tx.set(chunkKey(storageId, first + index), chunk);
        tx.set(recordKey, record);
      },
      { label: 'blob-upload' },
    );
    let bytes = 0;
    for (const chunk of chunks) bytes += chunk.length;
    storedBytes.inc(bytes);
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
