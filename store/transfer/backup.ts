/** Writes a consistent backup of a whole installation into a sink, and checks one. */
import { createHash } from 'node:crypto';
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import { storedBytesOf } from '../blobs/frame.js';
import type { KeyValue, KvReads, KvStore, KvView } from '../kv/contract.js';
import {
  type BackupHead,
  BlockCoder,
  backupKey,
  blockType,
  encodeHead,
  endMagic,
  keyCheckOf,
  RowPacker,
} from './backup-format.js';
import { BackupReader } from './backup-reader.js';
import { BackupDamaged, type OnProgress, TransferInterrupted, type TransferTotals } from './contract.js';
import { confirmUnchanged, installationId, refuseLiveNodes, refuseUnfinished } from './copy.js';
import { estimateBytes } from './estimate.js';
import {
  type ExternalBlob,
  ExternalCount,
  externalBlobs,
  marksOf,
  ObjectReader,
  openStoragesFor,
  type ReadStorageOptions,
} from './external.js';
import { encodePiece, type ObjectPiece, ObjectTally, PieceCutter } from './objects.js';
import type { BackupSink, BackupSource } from './places.js';
import { installationRows, openReader, type RowReader, viewReader } from './rows.js';
import { Tally } from './tally.js';

export interface BackupOptions {
  /** The store, or a view of it that was opened beside its node, closed at the end; `newest` opens another one, of the store as it is by then. */
  from: { store: KvStore } | { view: KvView; backend: KvStore['backend']; newest: () => Promise<KvView> };
  /** Takes blobs in files or on S3 along. Without it they are left out, and only their heads are in the backup. */
  blobs?: ReadStorageOptions | undefined;
  logger?: Logger;
  sink: BackupSink;
  software: string;
  /** Encrypts under this. */
  clusterKey?: Uint8Array;
  clock: Clock;
  random: Random;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

export interface BackupResult extends TransferTotals {
  backupId: string;
  fileBytes: number;
  isEncrypted: boolean;
}

/**
 * Writes everything but rows of nodes, as of one version, and then blobs that lie outside of the store: those that were purged since are left out. Without a view (FoundationDB) no node may run, and the store is read a second time to be sure.
 * Throws `TransferRefused`, `TransferInterrupted`, `KvError`; the sink holds nothing then.
 */
export async function writeBackup(options: BackupOptions): Promise<BackupResult> {
  const { from, sink, clock, signal } = options;
  let reader: RowReader | undefined;
  try {
    if ('store' in from) await refuseLiveNodes(from.store, clock, true, signal);
    reader = 'store' in from ? await openReader(from.store) : viewReader(from.view);
    await refuseUnfinished(reader);
    const result = await new BackupWriter(options, reader).run();
    await sink.finish();
    return result;
  } catch (error) {
    await sink.abort();
    throw error;
  } finally {
    await reader?.close();
  }
}

class BackupWriter {
  readonly #o: BackupOptions;
  readonly #reader: RowReader;
  readonly #hash = createHash('sha256');
  readonly #tally = new Tally();
  readonly #external = new ExternalCount();
  readonly #objects = new ObjectTally();
  readonly #packer = new RowPacker();
  #coder!: BlockCoder;
  #blocks = 0;
  #fileBytes = 0;
  #totalBytes = 0;
  /** The block that is being compressed and written while the next one fills. */
  #writing: Promise<void> = Promise.resolve();

  constructor(options: BackupOptions, reader: RowReader) {
    this.#o = options;
    this.#reader = reader;
  }

  async run(): Promise<BackupResult> {
    this.#totalBytes = await estimateBytes(this.#reader);
    const head = await this.#writeHead();
    for await (const rows of installationRows(this.#reader)) {
      for (const row of rows) await this.#add(row);
      this.#report();
    }
    if (!this.#packer.isEmpty) await this.#flush();
    await this.#writing;
    if (!this.#reader.isConsistent) await confirmUnchanged(this.#reader, this.#tally, this.#o.onProgress, this.#o.signal);
    const totals: TransferTotals = { ...this.#tally.totals(), externalBlobs: await this.#carryBlobs() };
    await this.#writeEnd(totals);
    return { ...totals, backupId: head.backupId, fileBytes: this.#fileBytes, isEncrypted: head.salt !== undefined };
  }

  async #writeHead(): Promise<BackupHead> {
    const { from, clusterKey, clock, random, software } = this.#o;
    const salt = clusterKey && random.bytes(32);
    const key = salt && backupKey(clusterKey!, salt);
    const head: BackupHead = {
      backupId: random.bytes(16).toString('hex'),
      installationId: await installationId(this.#reader),
      createdAt: new Date(clock.nowMs()).toISOString(),
      software,
      backend: 'store' in from ? from.store.backend : from.backend,
      ...('view' in from && { storeVersion: String(from.view.version) }),
      ...(salt && key && { salt: salt.toString('base64'), keyCheck: keyCheckOf(key) }),
    };
    const bytes = encodeHead(head);
    this.#coder = new BlockCoder(bytes, key);
    await this.#write(bytes);
    return head;
  }

  async #add(row: KeyValue): Promise<void> {
    this.#tally.add(row.key, row.value);
    this.#external.see(row);
    if (this.#packer.add(row)) return;
    await this.#flush();
    this.#packer.add(row);
  }

  async #flush(): Promise<void> {
    await this.#start(blockType.rows, this.#packer.take());
  }

  /** Begins a block as soon as the one before is written. */
  async #start(type: number, raw: Buffer): Promise<void> {
    await this.#writing;
    if (this.#o.signal?.aborted) throw new TransferInterrupted('the backup was interrupted; begin it again');
    this.#writing = this.#writeBlock(type, raw);
    // Heard of at the next block.
    this.#writing.catch(() => {});
  }

  /** What the rows name that is not in them. */
  async #carryBlobs(): Promise<TransferTotals['externalBlobs']> {
    const { blobs, logger } = this.#o;
    const { totals } = this.#external;
    if (!blobs || totals.count === 0) return totals;
    const options = await blobs(this.#reader.read);
    const storages = await openStoragesFor(this.#o, options, await this.#reader.read(marksOf));
    const objects = new ObjectReader(storages, (body) => this.#readNewest(body), logger);
    for await (const blob of externalBlobs(this.#reader)) await this.#carry(objects, blob);
    await this.#writing;
    const { gone, damaged } = objects;
    return { ...totals, carried: this.#objects.totals(), ...(gone > 0 && { gone }), ...(damaged > 0 && { damaged }) };
  }

  async #carry(objects: ObjectReader, blob: ExternalBlob): Promise<void> {
    const { storageId, place, index } = blob.head;
    const storedBytes = storedBytesOf(index);
    const cutter = new PieceCutter();
    let position = 0;
    const add = async (bytes: Buffer, end: ObjectPiece['end']) => {
      await this.#addPiece({ storageId, place, end, position, storedBytes, bytes });
      position += bytes.length;
    };
    const pieces = objects.read(blob);
    for (;;) {
      const { value, done } = await pieces.next();
      if (!done) {
        for (const piece of cutter.push(value)) await add(piece, 'more');
      } else {
        if (value) await add(cutter.take(), 'whole');
        else if (position > 0) await add(Buffer.alloc(0), 'dropped');
        return;
      }
    }
  }

  async #addPiece(piece: ObjectPiece): Promise<void> {
    const raw = encodePiece(piece);
    this.#objects.add(piece, raw);
    await this.#start(blockType.blob, raw);
    const { count, bytes } = this.#objects;
    this.#o.onProgress?.({ stage: 'objects', keys: count, bytes, totalBytes: this.#external.totals.bytes });
  }

  async #readNewest<T>(body: (reads: KvReads) => Promise<T>): Promise<T> {
    const { from } = this.#o;
    if ('store' in from) return from.store.read(body, { label: 'transfer-read' });
    const view = await from.newest();
    try {
      return await body(view);
    } finally {
      await view.close();
    }
  }

  async #writeBlock(type: number, raw: Buffer): Promise<void> {
    await this.#write(await this.#coder.encode(type, this.#blocks++, raw));
  }

  async #writeEnd(totals: TransferTotals): Promise<void> {
    await this.#writeBlock(blockType.trailer, Buffer.from(JSON.stringify(totals)));
    await this.#o.sink.write(Buffer.concat([this.#hash.digest(), endMagic]));
    this.#fileBytes += 48;
  }

  async #write(bytes: Buffer): Promise<void> {
    this.#hash.update(bytes);
    this.#fileBytes += bytes.length;
    await this.#o.sink.write(bytes);
  }

  #report(): void {
    const { keys, bytes } = this.#tally;
    this.#o.onProgress?.({ stage: 'reading', keys, bytes, totalBytes: this.#totalBytes, isEstimate: true });
  }
}

export interface VerifyOptions {
  source: BackupSource;
  /** One of them opens an encrypted backup; without any it is checked as it lies there, its content isn't. */
  clusterKeys?: readonly Uint8Array[];
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

export interface VerifyResult {
  head: BackupHead;
  fileBytes: number;
  /** Absent where the content could not be read for want of the key. */
  totals?: TransferTotals;
}

/** Reads a backup from the first byte to the last. Throws `BackupDamaged`. */
export async function verifyBackup(options: VerifyOptions): Promise<VerifyResult> {
  const { source, clusterKeys, onProgress, signal } = options;
  const fileBytes = await source.sizeBytes();
  const reader = await BackupReader.open(source.open(), clusterKeys);
  try {
    const tally = new Tally();
    const report = (stage: 'verifying' | 'objects' = 'verifying') => {
      if (signal?.aborted) throw new TransferInterrupted('interrupted while the backup was verified');
      onProgress?.({
        stage,
        keys: stage === 'objects' ? reader.objects.count : tally.keys,
        bytes: reader.bytes,
        ...(fileBytes !== undefined && { totalBytes: fileBytes }),
      });
    };
    if (!reader.isReadable) {
      for await (const _ of reader.blocks()) report();
      return { head: reader.head, fileBytes: reader.bytes };
    }
    for await (const rows of reader.rows()) {
      for (const { key, value } of rows) tally.add(key, value);
      report();
    }
    for await (const _ of reader.objectPieces()) report('objects');
    confirmTotals(reader, tally);
    return { head: reader.head, fileBytes: reader.bytes, totals: reader.trailer! };
  } finally {
    await reader.close();
  }
}

/** Throws `BackupDamaged` unless the rows and objects that were read are those that the trailer tells of. */
export function confirmTotals(reader: BackupReader, tally: Tally): void {
  const { trailer } = reader;
  if (!trailer) throw new BackupDamaged('the backup has no end');
  const { subspaces } = tally.totals();
  const { count, carried, gone = 0 } = trailer.externalBlobs;
  const found = reader.objects.totals();
  const areObjectsWhole = carried
    ? carried.count + gone === count && carried.count === found.count && carried.digest === found.digest
    : found.count === 0;
  if (!areObjectsWhole) throw new BackupDamaged('the blobs in the backup are not those that its end tells of');
  if (trailer.keys !== tally.keys || !sameSubspaces(trailer.subspaces, subspaces)) {
    throw new BackupDamaged('the content of the backup is not what its end tells of');
  }
}

function sameSubspaces(a: TransferTotals['subspaces'], b: TransferTotals['subspaces']): boolean {
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...names].every((name) => a[name]?.keys === b[name]?.keys && a[name]?.digest === b[name]?.digest);
}
