/** Reads a backup from a stream of bytes: block by block, nothing unchecked, and at the end the digest over all of it. */
import { createHash } from 'node:crypto';
import type { KeyValue } from '../kv/contract.js';
import {
  type BackupHead,
  type BackupTrailer,
  type Block,
  BlockCoder,
  backupKey,
  blockHeaderBytes,
  blockType,
  checkedBlock,
  decodeHead,
  digestBytes,
  endMagic,
  headPrefixBytes,
  headRestBytes,
  keyCheckOf,
  payloadBytes,
  unpackRows,
} from './backup-format.js';
import { BackupDamaged } from './contract.js';
import { decodePiece, type ObjectPiece, ObjectTally } from './objects.js';

/** Takes exact lengths from a stream of chunks and digests what it gives. */
class ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #hash = createHash('sha256');
  #rest: Buffer = Buffer.alloc(0);
  bytes = 0;

  constructor(stream: AsyncIterable<Uint8Array>) {
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  /** Throws `BackupDamaged` when the stream ends before. */
  async take(length: number): Promise<Buffer> {
    const taken = await this.takeUndigested(length);
    this.#hash.update(taken);
    return taken;
  }

  async takeUndigested(length: number): Promise<Buffer> {
    const parts: Buffer[] = [this.#rest];
    let have = this.#rest.length;
    while (have < length) {
      const { value, done } = await this.#chunks.next();
      if (done) throw new BackupDamaged(`the backup is cut off after ${this.bytes + have} bytes`);
      parts.push(Buffer.from(value.buffer, value.byteOffset, value.length));
      have += value.length;
    }
    const joined = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    this.#rest = joined.subarray(length);
    this.bytes += length;
    return joined.subarray(0, length);
  }

  async isAtEnd(): Promise<boolean> {
    if (this.#rest.length > 0) return false;
    for (;;) {
      const { value, done } = await this.#chunks.next();
      if (done) return true;
      if (value.length > 0) return false;
    }
  }

  digest(): Buffer {
    return this.#hash.digest();
  }

  async close(): Promise<void> {
    await this.#chunks.return?.();
  }
}

export class BackupReader {
  readonly head: BackupHead;
  readonly #bytes: ByteReader;
  readonly #coder: BlockCoder | undefined;
  #number = 0;
  /** The first block after the rows. */
  #firstOfBlobs: Block | undefined;
  readonly #objects = new ObjectTally();
  #trailer: BackupTrailer | undefined;
  #isEnded = false;

  private constructor(bytes: ByteReader, head: BackupHead, coder: BlockCoder | undefined) {
    this.#bytes = bytes;
    this.head = head;
    this.#coder = coder;
  }

  /** Reads the head. Without keys the blocks of an encrypted backup are checked, but can't be read. */
  static async open(stream: AsyncIterable<Uint8Array>, clusterKeys: readonly Uint8Array[] = []): Promise<BackupReader> {
    const bytes = new ByteReader(stream);
    const prefix = await bytes.take(headPrefixBytes);
    const whole = Buffer.concat([prefix, await bytes.take(headRestBytes(prefix))]);
    const head = decodeHead(whole);
    if (head.salt === undefined) return new BackupReader(bytes, head, new BlockCoder(whole, undefined));
    const salt = Buffer.from(head.salt, 'base64');
    const key = clusterKeys.map((one) => backupKey(one, salt)).find((one) => keyCheckOf(one) === head.keyCheck);
    if (!key && clusterKeys.length > 0) throw new BackupDamaged('the backup is encrypted under another cluster key');
    return new BackupReader(bytes, head, key && new BlockCoder(whole, key));
  }

  /** Whether blocks can be read: not encrypted, or the key is at hand. */
  get isReadable(): boolean {
    return this.#coder !== undefined;
  }

  /** Read so far. */
  get bytes(): number {
    return this.#bytes.bytes;
  }

  /** Of a backup that was read to its end and is readable. */
  get trailer(): BackupTrailer | undefined {
    return this.#trailer;
  }

  /** Blocks up to the trailer, each checked; after the last one the end of the file has been checked, too. */
  async *blocks(): AsyncGenerator<Block, void, undefined> {
    while (!this.#isEnded) {
      const header = await this.#bytes.take(blockHeaderBytes);
      const block = checkedBlock(header, await this.#bytes.take(payloadBytes(header, this.#number)));
      this.#number++;
      if (block.type === blockType.trailer) await this.#end(block);
      else yield block;
    }
  }

  decode(block: Block): Buffer {
    if (!this.#coder) throw new BackupDamaged('the backup is encrypted: the cluster key is needed');
    return this.#coder.decode(block);
  }

  /** Objects so far. */
  get objects(): ObjectTally {
    return this.#objects;
  }

  /** Rows of all blocks, in order. Needs a readable backup. The end of the backup comes after the objects. */
  async *rows(): AsyncGenerator<KeyValue[], void, undefined> {
    let last: Buffer | undefined;
    for await (const block of this.blocks()) {
      if (block.type !== blockType.rows) {
        this.#firstOfBlobs = block;
        return;
      }
      const rows = unpackRows(this.decode(block), block.number);
      for (const { key } of rows) {
        if (last && key.compare(last) <= 0) throw new BackupDamaged(`block ${block.number} of the backup is out of order`);
        last = key;
      }
      if (rows.length > 0) yield rows;
    }
  }

  /** Pieces of blobs that lie outside of the store, after the rows have been read; then the end of the backup has been checked. */
  async *objectPieces(): AsyncGenerator<ObjectPiece, void, undefined> {
    if (!this.#firstOfBlobs) return;
    yield this.#piece(this.#firstOfBlobs);
    for await (const block of this.blocks()) yield this.#piece(block);
  }

  close(): Promise<void> {
    return this.#bytes.close();
  }

  #piece(block: Block): ObjectPiece {
    if (block.type !== blockType.blob) throw new BackupDamaged(`block ${block.number} of the backup is out of order`);
    const raw = this.decode(block);
    const piece = decodePiece(raw);
    this.#objects.add(piece, raw);
    return piece;
  }

  async #end(block: Block): Promise<void> {
    const digest = this.#bytes.digest();
    const end = await this.#bytes.takeUndigested(digestBytes + endMagic.length);
    if (!end.subarray(0, digestBytes).equals(digest)) throw new BackupDamaged('the digest over the whole backup is wrong');
    if (!end.subarray(digestBytes).equals(endMagic)) throw new BackupDamaged('the end of the backup is damaged');
    if (!(await this.#bytes.isAtEnd())) throw new BackupDamaged('something follows the end of the backup');
    this.#isEnded = true;
    if (this.#coder) this.#trailer = JSON.parse(this.#coder.decode(block).toString('utf8')) as BackupTrailer;
  }
}
