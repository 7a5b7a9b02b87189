/**
 * The two kinds of prepared blobs behind `PreparedBlob`: small ones that still are in memory and large ones whose bytes are written already.
 */
import type { KvTransaction } from '../kv/contract.js';
import { encodeChunk } from './chunk.js';
import type { BlobId, PreparedBlob } from './contract.js';
import { chunkKey } from './keys.js';
import { encodeChunkedHead, encodeInlineHead, storageIdBytes } from './records.js';
import type { BlobSettings } from './settings.js';

/** Content in memory; compressed when the first link finds that it is new. */
export class SmallBlob implements PreparedBlob {
  readonly id: BlobId;
  readonly sizeBytes: number;
  readonly heldBytes: number;
  readonly #content: Buffer;
  #chunks: Buffer[] | undefined;
  #storageIds: WeakMap<KvTransaction, Buffer> | undefined;

  constructor(id: BlobId, content: Buffer) {
    this.id = id;
    this.#content = content;
    this.sizeBytes = content.length;
    this.heldBytes = content.length;
  }

  /** Writes the content and answers the head. */
  store(tx: KvTransaction, settings: BlobSettings): Buffer {
    const { chunkBytes } = settings;
    this.#chunks ??= encodeAll(this.#content, chunkBytes);
    const first = this.#chunks[0]!;
    if (this.#chunks.length === 1 && first.length <= settings.headLimitBytes) return encodeInlineHead(this.sizeBytes, first);
    const storageId = this.#storageIdIn(tx, settings);
    for (const [index, chunk] of this.#chunks.entries()) tx.set(chunkKey(storageId, index), chunk);
    return encodeChunkedHead(this.sizeBytes, chunkBytes, storageId);
  }

  /**
   * Each transaction has its own storage id: one that was ever purged must not come back while its removal may still be going on. Within one
   * transaction it stays, so that links made at the same time write the same chunks.
   */
  #storageIdIn(tx: KvTransaction, settings: BlobSettings): Buffer {
    this.#storageIds ??= new WeakMap();
    const known = this.#storageIds.get(tx);
    if (known) return known;
    const storageId = settings.random.bytes(storageIdBytes);
    this.#storageIds.set(tx, storageId);
    return storageId;
  }
}

function encodeAll(content: Buffer, chunkBytes: number): Buffer[] {
  if (content.length <= chunkBytes) return [encodeChunk(content)];
  const chunks: Buffer[] = [];
  for (let start = 0; start < content.length; start += chunkBytes) {
    chunks.push(encodeChunk(content.subarray(start, start + chunkBytes)));
  }
  return chunks;
}

/** Content that is in the store already, kept there by somebody's link. */
export class StoredBlob implements PreparedBlob {
  constructor(
    readonly id: BlobId,
    readonly sizeBytes: number,
  ) {}
}

/** Content written under `storageId`, wherever `head` says, and kept by its upload record until the first link. */
export class LargeBlob implements PreparedBlob {
  constructor(
    readonly id: BlobId,
    readonly sizeBytes: number,
    readonly storageId: Buffer,
    readonly head: Buffer,
  ) {}
}
