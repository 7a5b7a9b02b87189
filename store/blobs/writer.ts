/**
 * Takes a blob as a stream. What stays short is kept in memory; what is longer is cut into chunks and handed to a sink while the stream goes on.
 */
import { createHash, type Hash, hash } from 'node:crypto';
import type { BlobWriter, PreparedBlob, WriterOptions } from './contract.js';
import { SmallBlob } from './prepared.js';
import type { BlobSettings } from './settings.js';
import { type ContentSink, ExternalSink, StoreSink } from './sinks.js';

/** Pieces that are shorter together are joined: who writes octet by octet must not cost a Buffer for each. */
const joinBytes = 4096;

export class StreamingWriter implements BlobWriter {
  sizeBytes = 0;
  readonly #settings: BlobSettings;
  /** Content up to this length is held until it is clear where it goes. */
  readonly #heldBytes: number;
  /** Finished content up to this length waits for its link. */
  readonly #inlineBytes: number;
  readonly #isUnique: boolean;
  #state: 'open' | 'finished' | 'aborted' = 'open';
  /** Content that is not yet in a chunk: all of it while the blob is held, then the beginning of the next chunk. */
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  /** Set once the content is too long to be held. */
  #large: { hash: Hash; sink: ContentSink } | undefined;
  /** Writes that wait for the sink, in their order. */
  #waiting: Promise<void> | undefined;

  constructor(settings: BlobSettings, { maxHeldBytes = settings.inlineLimitBytes, isUnique = false }: WriterOptions = {}) {
    this.#settings = settings;
    this.#isUnique = isUnique;
    this.#inlineBytes = Math.min(maxHeldBytes, settings.inlineLimitBytes);
    this.#heldBytes = settings.external.writeTo ? settings.external.thresholdBytes : settings.inlineLimitBytes;
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
    if (!this.#large) {
      if (this.#pendingBytes <= this.#inlineBytes) return smallBlob(this.#settings, this.#takePending(), this.#isUnique);
      await this.#begin(new StoreSink(this.#settings));
    }
    await this.#waiting;
    const { hash, sink } = this.#large!;
    if (this.#pendingBytes > 0) await sink.take(this.#takePending());
    return sink.finish(this.#settings.ids.of(hash.digest('hex'), this.#isUnique), this.sizeBytes);
  }

  async abort(): Promise<void> {
    this.#state = 'aborted';
    this.#pending = [];
    await this.#waiting?.catch(() => {});
    try {
      await this.#large?.sink.abort();
    } catch (error) {
      // The upload record is still there, so a later purge finds what was written.
      this.#settings.logger.warn({ err: error }, 'bytes of an aborted upload are left for the purge');
    }
  }

  #assertOpen(): void {
    if (this.#state !== 'open') throw new Error(`this blob writer is ${this.#state}`);
    this.#large?.sink.assertWell();
  }

  #take(bytes: Buffer): Promise<void> | undefined {
    if (this.#large) return this.#absorb(bytes, 0);
    this.#hold(bytes);
    if (this.#pendingBytes <= this.#heldBytes) return undefined;
    const { writeTo } = this.#settings.external;
    return this.#begin(writeTo ? new ExternalSink(this.#settings, writeTo) : new StoreSink(this.#settings));
  }

  /** What was held goes to `sink`, and all that follows. */
  #begin(sink: ContentSink): Promise<void> | undefined {
    this.#large = { hash: createHash('sha256'), sink };
    return this.#absorb(this.#takePending(), 0);
  }

  #hold(bytes: Buffer): void {
    const last = this.#pending.at(-1);
    if (last && last.length + bytes.length <= joinBytes) this.#pending[this.#pending.length - 1] = Buffer.concat([last, bytes]);
    else this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
  }

  #takePending(): Buffer {
    const content = this.#pending.length === 1 ? this.#pending[0]! : Buffer.concat(this.#pending, this.#pendingBytes);
    this.#pending = [];
    this.#pendingBytes = 0;
    return content;
  }

  /** Cuts `bytes` from `offset` on into chunks. Answers a promise when the sink has to be waited for. */
  #absorb(bytes: Buffer, offset: number): Promise<void> | undefined {
    const { hash, sink } = this.#large!;
    while (offset < bytes.length && this.#state !== 'aborted') {
      const part = bytes.subarray(offset, offset + sink.chunkBytes - this.#pendingBytes);
      hash.update(part);
      this.#hold(part);
      offset += part.length;
      if (this.#pendingBytes < sink.chunkBytes) continue;
      const wait = sink.take(this.#takePending());
      if (wait) return wait.then(() => this.#absorb(bytes, offset));
    }
    return undefined;
  }
}

/** Content that waits in memory for its link. */
export function smallBlob({ ids }: BlobSettings, content: Buffer, isUnique: boolean): SmallBlob {
  return new SmallBlob(ids.of(hash('sha256', content, 'hex'), isUnique), content);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
