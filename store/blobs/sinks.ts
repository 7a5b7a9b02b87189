/**
 * Where a writer's chunks of content go once it is clear that the blob is large: into the key-value store, or into an external storage. Each sink has an
 * upload record from before its first byte until the first link, so that a purge finds what a dead process left.
 */
import { counter } from '../../ops/telemetry/index.js';
import { BatchedWrites } from './batches.js';
import { encodeChunk } from './chunk.js';
import type { BlobId } from './contract.js';
import type { ExternalStorage, ExternalWriter } from './external.js';
import { FrameEncoder, storedBytesOf } from './frame.js';
import { chunkKey, uploadKey } from './keys.js';
import { LargeBlob } from './prepared.js';
import {
  decodeUpload,
  encodeChunkedHead,
  encodeExternalHead,
  encodeUpload,
  storageIdBytes,
  type UploadRecord,
} from './records.js';
import { discardUpload } from './removal.js';
import { type BlobSettings, nowSecondsOf } from './settings.js';

const streamedBytes = counter('starling_blob_streamed_bytes_total', 'Content bytes of large blobs written while they arrived', [
  'place',
]);
const storedBytes = counter('starling_blob_stored_bytes_total', 'Bytes of large blobs as stored, after compression', ['place']);

/** A purge gave this upload up while it was still written: it had gone on for longer than `abandonedUploadSeconds`. */
export class UploadLost extends Error {
  override readonly name = 'UploadLost';
  constructor() {
    super('the upload took too long and was given up');
  }
}

export interface ContentSink {
  /** Content per chunk; only the last one may be shorter. */
  readonly chunkBytes: number;
  /** Throws what an earlier chunk failed with. */
  assertWell(): void;
  /** Takes the next chunk. Answers a promise when the caller must wait before it goes on. */
  take(content: Buffer): Promise<void> | undefined;
  /** All chunks are there: resolves when they are durable. */
  finish(id: BlobId, sizeBytes: number): Promise<LargeBlob>;
  /** Lets go of everything, as long as nothing was linked. */
  abort(): Promise<void>;
}

/** Writes the record of an upload, which must still be ours: a purge that gave it up wins. */
function saveUpload(settings: BlobSettings, storageId: Buffer, record: UploadRecord, isFirst: boolean, chunks: Buffer[]) {
  const recordKey = uploadKey(storageId);
  return settings.kv.transact(
    async (tx) => {
      const existing = await tx.get(recordKey);
      if (existing ? decodeUpload(existing).state !== 'writing' : !isFirst) throw new UploadLost();
      if (record.place === 'store') {
        const first = record.chunkCount - chunks.length;
        for (const [index, chunk] of chunks.entries()) tx.set(chunkKey(storageId, first + index), chunk);
      }
      tx.set(recordKey, encodeUpload(record));
    },
    { label: 'blob-upload' },
  );
}

export class StoreSink implements ContentSink {
  readonly chunkBytes: number;
  readonly #settings: BlobSettings;
  readonly #storageId: Buffer;
  readonly #sinceSeconds: number;
  readonly #batches: BatchedWrites;
  #chunkCount = 0;

  constructor(settings: BlobSettings) {
    this.#settings = settings;
    this.chunkBytes = settings.chunkBytes;
    this.#storageId = settings.random.bytes(storageIdBytes);
    this.#sinceSeconds = nowSecondsOf(settings.clock);
    this.#batches = new BatchedWrites(settings.batchBytes, (chunks, bytes) => this.#commit(chunks, bytes));
  }

  assertWell(): void {
    this.#batches.assertWell();
  }

  take(content: Buffer): Promise<void> | undefined {
    return this.#batches.add(encodeChunk(content));
  }

  async finish(id: BlobId, sizeBytes: number): Promise<LargeBlob> {
    await this.#batches.end();
    streamedBytes.inc({ place: 'store' }, sizeBytes);
    return new LargeBlob(id, sizeBytes, this.#storageId, encodeChunkedHead(sizeBytes, this.chunkBytes, this.#storageId));
  }

  async abort(): Promise<void> {
    await this.#batches.stop();
    if (this.#chunkCount > 0) await discardUpload(this.#settings, this.#storageId, true);
  }

  async #commit(chunks: Buffer[], bytes: number): Promise<void> {
    const isFirst = this.#chunkCount === 0;
    this.#chunkCount += chunks.length;
    const record: UploadRecord = {
      state: 'writing',
      sinceSeconds: this.#sinceSeconds,
      place: 'store',
      chunkCount: this.#chunkCount,
    };
    await saveUpload(this.#settings, this.#storageId, record, isFirst, chunks);
    storedBytes.inc({ place: 'store' }, bytes);
  }
}

export class ExternalSink implements ContentSink {
  readonly chunkBytes: number;
  readonly #settings: BlobSettings;
  readonly #storage: ExternalStorage;
  readonly #storageId: Buffer;
  readonly #frames: FrameEncoder;
  readonly #startMs: number;
  #opening: Promise<void> | undefined;
  #writer: ExternalWriter | undefined;
  #failure: { error: unknown } | undefined;

  constructor(settings: BlobSettings, storage: ExternalStorage) {
    this.#settings = settings;
    this.#storage = storage;
    this.chunkBytes = settings.external.frameBytes;
    this.#storageId = settings.random.bytes(storageIdBytes);
    this.#frames = new FrameEncoder(this.#storageId, this.chunkBytes);
    this.#startMs = settings.clock.monotonicMs();
  }

  assertWell(): void {
    if (this.#failure) throw this.#failure.error;
  }

  take(content: Buffer): Promise<void> | undefined {
    this.assertWell();
    const frame = this.#frames.encode(content);
    if (this.#writer) return this.#writer.write(frame);
    this.#opening = this.#open(frame);
    return this.#opening;
  }

  async finish(id: BlobId, sizeBytes: number): Promise<LargeBlob> {
    await this.#opening;
    this.assertWell();
    // After that time a purge may have removed what was there, and must not meet anything that comes later.
    if (this.#settings.clock.monotonicMs() - this.#startMs > this.#settings.abandonedUploadSeconds * 1000) throw new UploadLost();
    await this.#writer!.finish();
    const { place } = this.#storage;
    const { index } = this.#frames;
    streamedBytes.inc({ place }, sizeBytes);
    storedBytes.inc({ place }, storedBytesOf(index));
    return new LargeBlob(id, sizeBytes, this.#storageId, encodeExternalHead(sizeBytes, place, this.#storageId, index));
  }

  async abort(): Promise<void> {
    if (!this.#opening) return;
    await this.#opening.catch(() => {});
    const isQuiet = (await this.#writer?.abort()) ?? true;
    await discardUpload(this.#settings, this.#storageId, isQuiet);
  }

  /** The record first: whatever happens from here on, a purge knows what to remove. */
  async #open(frame: Buffer): Promise<void> {
    const { place } = this.#storage;
    const sinceSeconds = nowSecondsOf(this.#settings.clock);
    const record: UploadRecord = { state: 'writing', sinceSeconds, place, isLingering: false, isRemovedOnce: false };
    try {
      await saveUpload(this.#settings, this.#storageId, record, true, []);
      this.#writer = this.#storage.put(this.#storageId.toString('hex'));
      await this.#writer.write(frame);
    } catch (error) {
      this.#failure = { error };
      throw error;
    }
  }
}
