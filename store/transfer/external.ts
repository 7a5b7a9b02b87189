/**
 * Blobs whose bytes lie outside of the store: counting them, finding their heads, reading and writing their objects as they are stored.
 */
import { type Clock, type Logger, type Random, silentLogger } from '../../ops/telemetry/index.js';
import { BlobCorrupt, type BlobId } from '../blobs/contract.js';
import {
  type ExternalBlobOptions,
  ExternalDamaged,
  ExternalMissing,
  type ExternalPlace,
  type ExternalWriter,
} from '../blobs/external.js';
import { FrameDecoder, storedBytesOf } from '../blobs/frame.js';
import { decodeMark } from '../blobs/identity.js';
import { placementOf } from '../blobs/inspect.js';
import { headKey, storageKey } from '../blobs/keys.js';
import { openMarkedStorages, type StorageMark } from '../blobs/marked.js';
import { decodeHead, type ExternalHead } from '../blobs/records.js';
import type { ExternalStorages } from '../blobs/storages.js';
import { key, keyItems, keysUnder, subspace } from '../keyspace.js';
import type { KeyValue, KvReads, KvStore } from '../kv/contract.js';
import { type ExternalTotals, TransferRefused } from './contract.js';
import { pagesOf, plainReader, type RowReader } from './rows.js';

/** How the storages are reached: from the settings in the store that `read` reads. Asked only where blobs lie there. */
export type ReadStorageOptions = (read: RowReader['read']) => Promise<ExternalBlobOptions>;

export interface StorageParts {
  clock: Clock;
  random: Random;
  logger?: Logger | undefined;
}

const headPrefix = key(subspace.blob, 'head');
export const externalPlaces = ['files', 's3'] as const;

export class ExternalCount {
  readonly totals: ExternalTotals = { count: 0, bytes: 0 };

  see({ key: packed, value }: KeyValue): void {
    if (packed.length <= headPrefix.length || headPrefix.compare(packed, 0, headPrefix.length) !== 0) return;
    try {
      const { place, storedBytes } = placementOf(keyItems(packed)[2] as string, value);
      if (place === 'head' || place === 'chunks') return;
      this.totals.count++;
      this.totals.bytes += storedBytes ?? 0;
    } catch (error) {
      // A head that can't be read is the check's business.
      if (!(error instanceof BlobCorrupt)) throw error;
    }
  }
}

/** Of a whole store. */
export async function countExternal(kv: KvStore): Promise<ExternalTotals> {
  const count = new ExternalCount();
  const { begin, end } = keysUnder(subspace.blob, 'head');
  for await (const rows of pagesOf(plainReader(kv), begin, end)) for (const row of rows) count.see(row);
  return count.totals;
}

export interface ExternalBlob {
  id: BlobId;
  head: ExternalHead;
}

/** All blobs whose bytes lie outside, in the order of their ids. */
export async function* externalBlobs(reader: RowReader): AsyncGenerator<ExternalBlob, void, undefined> {
  const { begin, end } = keysUnder(subspace.blob, 'head');
  for await (const rows of pagesOf(reader, begin, end)) {
    for (const { key: packed, value } of rows) {
      const id = keyItems(packed)[2] as string;
      const head = externalHeadOf(id, value);
      if (head) yield { id, head };
    }
  }
}

function externalHeadOf(id: BlobId, value: Buffer | undefined): ExternalHead | undefined {
  try {
    const head = value && decodeHead(id, value);
    return head?.layout === 'external' ? head : undefined;
  } catch (error) {
    if (error instanceof BlobCorrupt) return undefined;
    throw error;
  }
}

/** Whether a storage outside was ever used. */
export async function hasMarks(reads: KvReads): Promise<boolean> {
  return (await marksOf(reads)).size > 0;
}

/** The marks by which an installation knows its storages. */
export async function marksOf(reads: KvReads): Promise<Map<ExternalPlace, StorageMark>> {
  const values = await reads.getMany(externalPlaces.map(storageKey));
  const marks = new Map<ExternalPlace, StorageMark>();
  for (const [at, place] of externalPlaces.entries()) {
    const value = values[at];
    // Where there are blobs the mark is there, whatever the record says: an interrupted first use is no reason to mark a storage now.
    if (value) marks.set(place, { mark: decodeMark(value).mark, isWritten: true });
  }
  return marks;
}

/** Storages with these marks, and no others. Throws `TransferRefused` for options that make no sense. */
export async function openStoragesFor(
  parts: StorageParts,
  { files, s3 }: ExternalBlobOptions,
  marks: ReadonlyMap<ExternalPlace, StorageMark>,
): Promise<ExternalStorages> {
  const { clock, random, logger = silentLogger } = parts;
  // One without a mark would be given one.
  const options = { ...(files && marks.has('files') && { files }), ...(s3 && marks.has('s3') && { s3 }) };
  try {
    return await openMarkedStorages({ clock, random, logger }, options, marks);
  } catch (error) {
    if (error instanceof RangeError) throw new TransferRefused(`blobs: ${error.message}`, { cause: error });
    throw error;
  }
}

/** Objects of a store that is read, and what became of each. */
export class ObjectReader {
  readonly #storages: ExternalStorages;
  readonly #readNewest: <T>(body: (reads: KvReads) => Promise<T>) => Promise<T>;
  readonly #logger: Logger;
  gone = 0;
  damaged = 0;

  /** `readNewest` reads the store as it is now, not as it was. */
  constructor(storages: ExternalStorages, readNewest: RowReader['read'], logger: Logger = silentLogger) {
    this.#storages = storages;
    this.#readNewest = readNewest;
    this.#logger = logger;
  }

  /**
   * The stored bytes, in pieces. Content that is damaged comes as it is, and is counted. Answers false, perhaps after some pieces, for a blob that was purged
   * meanwhile. Throws `TransferRefused` for one that is lost, KvError `unavailable`.
   */
  async *read({ id, head }: ExternalBlob): AsyncGenerator<Buffer, boolean, undefined> {
    const storedBytes = storedBytesOf(head.index);
    const content = new ContentCheck(id, head);
    try {
      const storage = this.#storages.storage(head.place);
      for await (const piece of storage.read(head.storageId.toString('hex'), 0, storedBytes, storedBytes)) {
        content.see(piece);
        yield piece;
      }
    } catch (error) {
      if (!(error instanceof ExternalMissing) && !(error instanceof ExternalDamaged)) throw error;
      const now = externalHeadOf(id, await this.#readNewest((reads) => reads.get(headKey(id))));
      if (now?.storageId.equals(head.storageId)) {
        throw new TransferRefused(
          `the bytes of blob ${id} are lost (${head.place}: ${error.message}): 'starling store check' tells who needs it`,
          { cause: error },
        );
      }
      this.gone++;
      return false;
    }
    const problem = content.problem();
    if (problem !== undefined) {
      this.damaged++;
      this.#logger.warn({ blobId: id, place: head.place, problem }, 'a damaged blob is carried along as it is');
    }
    return true;
  }
}

/** Follows the checksums of all frames. */
class ContentCheck {
  readonly #sizeBytes: number;
  readonly #decoder: FrameDecoder;
  #position = 0;
  #problem: string | undefined;

  constructor(id: BlobId, { storageId, index, sizeBytes }: ExternalHead) {
    this.#sizeBytes = sizeBytes;
    this.#decoder = new FrameDecoder(id, storageId, index.frameBytes, sizeBytes, 0);
  }

  see(piece: Buffer): void {
    if (this.#problem !== undefined) return;
    try {
      for (const { at, content } of this.#decoder.push(piece, 0)) this.#position = at + content.length;
    } catch (error) {
      if (!(error instanceof BlobCorrupt)) throw error;
      this.#problem = error.message;
    }
  }

  /** After the last piece. */
  problem(): string | undefined {
    return this.#problem ?? (this.#position === this.#sizeBytes ? undefined : `its frames end at ${this.#position}`);
  }
}

/** Puts objects into the storages of a store that is being made. Those that an earlier attempt has put there whole are left alone. */
export class ObjectWriter {
  readonly #storages: ExternalStorages;
  readonly #mayHaveSome: boolean;
  readonly #writesAgain: boolean;
  #current: { place: ExternalPlace; storageId: string; writer: ExternalWriter | undefined } | undefined;

  /** `mayHaveSome`: somebody has been writing here before. `writesAgain`: what is there may be damaged, whatever its size, and is written again. */
  constructor(storages: ExternalStorages, { mayHaveSome, writesAgain }: { mayHaveSome: boolean; writesAgain: boolean }) {
    this.#storages = storages;
    this.#mayHaveSome = mayHaveSome;
    this.#writesAgain = writesAgain;
  }

  async begin(place: ExternalPlace, storageId: string, storedBytes: number): Promise<void> {
    const storage = this.#storages.storage(place);
    const isThere = this.#mayHaveSome && !this.#writesAgain && (await storage.size(storageId)) === storedBytes;
    // What an interrupted attempt has left would be in the way.
    if (this.#mayHaveSome && !isThere) await storage.remove(storageId, { isAbandoned: true });
    this.#current = { place, storageId, writer: isThere ? undefined : storage.put(storageId) };
  }

  async write(bytes: Buffer): Promise<void> {
    await this.#current?.writer?.write(bytes);
  }

  /** Resolves when the object is durable. */
  async finish(): Promise<void> {
    await this.#current?.writer?.finish();
    this.#current = undefined;
  }

  /** Takes back what was begun, if anything was. */
  async abort(): Promise<void> {
    await this.#current?.writer?.abort();
    this.#current = undefined;
  }
}
