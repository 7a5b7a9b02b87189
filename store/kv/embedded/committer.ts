/**
 * Group commit: transactions are checked one after another on the main thread, their writes gathered in a batch, and each batch is
 * made durable by the writer thread as one SQLite transaction. While one batch is on its way to the disk the next one fills.
 *
 * What must be true: a transaction is checked against every commit before it, those on their way included; its promise resolves only
 * after the disk has it; a batch that failed leaves neither versions nor conflicts behind.
 */
import { type Clock, histogram, type Logger } from '../../../ops/telemetry/index.js';
import type { CommitRequest } from '../backend.js';
import { KvError } from '../contract.js';
import { CommitHistory, type CommitRecord } from '../history.js';
import { versionstampText, writtenBy } from '../transaction.js';
import { type Watch, WatchRegistry } from '../watches.js';
import type { WriteBuffer } from '../write-buffer.js';
import { BatchEncoder } from './batch.js';
import type { FailureKind, FromWriter, WriterSettings } from './messages.js';
import { ReadCache } from './read-cache.js';
import { WriterThread } from './writer-thread.js';

const batchTransactions = histogram(
  'starling_kv_batch_transactions',
  'Transactions that shared one durable write.',
  ['backend'],
  [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
).labels('embedded');
const batchSeconds = histogram('starling_kv_batch_seconds', 'From handing a batch to the writer thread to its answer.', [
  'backend',
]).labels('embedded');

/** A fuller batch is closed and the next one begun, so that no commit waits for an endless write. */
const maxBatchBytes = 4 * 1024 * 1024;
/** With the writer idle, this much is sent without waiting for more. */
const worthwhileBytes = 32 * 1024;
const maxBatchTransactions = 10_000;
/** Larger buffers are not kept for the next batch. */
const maxKeptBufferBytes = 1024 * 1024;
const maxKeptBuffers = 2;
/** For rows that are read again and again. */
const readCacheBytes = 8 * 1024 * 1024;

interface Waiting {
  readonly record: CommitRecord;
  /** Watches of this transaction whose key somebody else has changed already. */
  readonly changed: readonly Watch[];
  resolve(version: number): void;
  reject(error: KvError): void;
}

interface Batch {
  readonly version: number;
  readonly encoder: BatchEncoder;
  readonly waiting: Waiting[];
  /** Resolves when readers see the batch, or it has failed. */
  readonly settled: Promise<void>;
  readonly settle: () => void;
  sentAtMs: number;
}

export class Committer {
  readonly history = new CommitHistory();
  readonly cache = new ReadCache(readCacheBytes);
  readonly #watches = new WatchRegistry();
  readonly #queue: Batch[] = [];
  readonly #spareBuffers: ArrayBuffer[] = [];
  readonly #drained: (() => void)[] = [];
  #thread: WriterThread | undefined;
  #starting = false;
  #inFlight: Batch | undefined;
  #sendScheduled = false;
  #durableVersion = 0;
  #lastVersion = 0;
  #closing = false;

  constructor(
    readonly settings: WriterSettings,
    readonly clock: Clock,
    readonly logger: Logger,
  ) {}

  /** The newest version that is known to be durable: what a new transaction must see at least. */
  get durableVersion(): number {
    return this.#durableVersion;
  }

  /** The newest version that was given to a batch. */
  get lastVersion(): number {
    return this.#lastVersion;
  }

  async start(): Promise<void> {
    const { thread, version } = await WriterThread.start(this.settings, {
      onMessage: (message) => this.#onMessage(message),
      onLost: (error) => this.#onLost(error),
    });
    this.#thread = thread;
    this.#durableVersion = version;
    this.history.startAt(version);
    this.#lastVersion = Math.max(this.#lastVersion, version);
  }

  /** Checks against everything before it, at once; resolves when durable. */
  async commit(request: CommitRequest): Promise<number> {
    this.#assertOpen();
    this.history.assertNoConflict(request);
    const batch = this.#openBatch();
    const stamp = versionstampText(batch.version, batch.waiting.length);
    encode(batch.encoder, request.writes, stamp);
    const record: CommitRecord = { version: batch.version, ...writtenBy(request, stamp), settled: batch.settled };
    const changed = this.#armWatches(request, record);
    this.history.record(record);
    this.cache.written(record, request.writes.points);
    return this.#await(batch, record, changed);
  }

  /** A durable write of nothing but the version. */
  async check(): Promise<void> {
    this.#assertOpen();
    const batch = this.#openBatch();
    const record: CommitRecord = { version: batch.version, points: [], ranges: [], settled: batch.settled };
    await this.#await(batch, record, []);
  }

  /** Arms watches of a transaction that read `readVersion` and wrote nothing. */
  watch(watches: readonly Watch[], readVersion: number): void {
    for (const watch of watches) {
      const writer = this.history.writerSince(watch.key, readVersion);
      if (!writer) this.#watches.add(watch);
      else if (writer.version <= this.#durableVersion) watch.fire();
      else writer.settled!.then(() => watch.fire());
    }
  }

  /** Resolves when `version` is visible to new transactions, or can't become so any more. */
  async settled(version: number): Promise<void> {
    for (const batch of [this.#inFlight, ...this.#queue]) {
      if (batch && batch.version >= version) return batch.settled;
    }
  }

  /** Takes no more commits and resolves when all that were taken are done. */
  async drain(): Promise<void> {
    this.#closing = true;
    if (this.#inFlight || this.#queue.length > 0) await new Promise<void>((resolve) => this.#drained.push(resolve));
    this.#watches.failAll(closedError());
  }

  /** Empties the log and ends the writer thread. All readers must be gone. */
  async stop(): Promise<void> {
    await this.#thread?.close();
  }

  #openBatch(): Batch {
    const last = this.#queue.at(-1);
    if (last && last.encoder.length < maxBatchBytes && last.waiting.length < maxBatchTransactions) return last;
    const { promise: settled, resolve: settle } = deferred();
    const batch: Batch = {
      version: ++this.#lastVersion,
      encoder: new BatchEncoder(this.#spareBuffers.pop()),
      waiting: [],
      settled,
      settle,
      sentAtMs: 0,
    };
    this.#queue.push(batch);
    return batch;
  }

  /** Arms the watches of a writing transaction; tells those that are to fire with its commit. */
  #armWatches(request: CommitRequest, record: CommitRecord): Watch[] {
    const changed: Watch[] = [];
    for (const watch of request.watches) {
      watch.owner = record;
      if (this.history.writerSince(watch.key, request.readVersion ?? 0)) changed.push(watch);
      else this.#watches.add(watch);
    }
    return changed;
  }

  /** Resolves when `batch`, which holds the transaction by now, is durable. */
  #await(batch: Batch, record: CommitRecord, changed: readonly Watch[]): Promise<number> {
    const done = new Promise<number>((resolve, reject) => batch.waiting.push({ record, changed, resolve, reject }));
    // A batch worth a write goes at once, so that disk and main thread work at the same time.
    if (!this.#inFlight && batch.encoder.length >= worthwhileBytes) this.#send();
    else this.#scheduleSend();
    return done;
  }

  /** Sends at the end of this turn of the event loop, so that everything that commits in it shares one durable write. */
  #scheduleSend(): void {
    if (this.#inFlight || this.#sendScheduled) return;
    this.#sendScheduled = true;
    setImmediate(() => {
      this.#sendScheduled = false;
      this.#send();
    });
  }

  #send(): void {
    if (this.#inFlight || this.#starting) return;
    if (!this.#thread) {
      if (this.#queue.length > 0) void this.#restart();
      return;
    }
    const batch = this.#queue.shift();
    if (!batch) {
      this.#thread.idle();
      for (const resolve of this.#drained.splice(0)) resolve();
      return;
    }
    this.#inFlight = batch;
    batch.sentAtMs = this.clock.monotonicMs();
    batchTransactions.observe(batch.waiting.length);
    const { buffer, length } = batch.encoder.take();
    this.#thread.commit(batch.version, buffer, length);
  }

  #onMessage(message: FromWriter): void {
    if (message.type === 'warning') this.logger.warn({ reason: message.message }, 'the log could not be moved into the database');
    if (message.type !== 'done' && message.type !== 'failed') return;
    const batch = this.#inFlight;
    // A thread that was given up may still be heard: only the answer to what is on its way now counts.
    if (batch?.version !== message.version) return;
    this.#inFlight = undefined;
    this.#keepBuffer(message.buffer);
    batchSeconds.observe((this.clock.monotonicMs() - batch.sentAtMs) / 1000);
    // The next batch is on its way before anybody runs on with this one's results.
    this.#durableVersion = message.type === 'done' ? message.version : message.visibleVersion;
    this.#send();
    if (message.type === 'done') this.#succeed(batch);
    else this.#fail(batch, message.kind, message.message, message.visibleVersion);
  }

  #succeed(batch: Batch): void {
    // Those that lost to this batch go first: they have waited longer than those that are done.
    batch.settle();
    for (const { record } of batch.waiting) this.#watches.fire(record.points, record.ranges, record);
    for (const { resolve, changed } of batch.waiting) {
      resolve(batch.version);
      for (const watch of changed) watch.fire();
    }
    this.history.prune(this.#durableVersion);
  }

  #fail(batch: Batch, kind: FailureKind, message: string, visibleVersion: number): void {
    this.logger.error({ reason: message, kind, transactions: batch.waiting.length }, 'a batch of commits failed');
    // Rare, and what the file has now is best read from it.
    this.cache.clear();
    if (visibleVersion >= batch.version) {
      for (const { record } of batch.waiting) this.#watches.fire(record.points, record.ranges, record);
    } else this.history.drop(batch.version);
    batch.settle();
    for (const { reject } of batch.waiting) reject(failure(kind, message));
    this.history.prune(this.#durableVersion);
  }

  /** The thread is gone: nobody knows about the batch that it had. The file tells when it is opened again. */
  #onLost(error: Error): void {
    this.logger.error({ err: error }, 'the writer thread was lost');
    this.cache.clear();
    this.#thread = undefined;
    const batch = this.#inFlight;
    void this.#restart().then(() => {
      // The new thread may be at work on the next batch already.
      if (batch && this.#inFlight === batch) {
        this.#inFlight = undefined;
        this.#fail(batch, 'unknown', error.message, this.#durableVersion);
      }
      this.#send();
    });
  }

  /** Opens the file again; when that fails, everything that waits is told, and the next commit tries anew. */
  async #restart(): Promise<void> {
    if (this.#starting) return;
    this.#starting = true;
    try {
      await this.start();
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const reason = error instanceof KvError && error.reason === 'no-space' ? 'no-space' : 'io';
      for (const batch of this.#queue.splice(0)) this.#fail(batch, reason, message, this.#durableVersion);
      for (const resolve of this.#drained.splice(0)) resolve();
    } finally {
      this.#starting = false;
    }
    if (this.#thread && !this.#inFlight) this.#send();
  }

  #keepBuffer(buffer: ArrayBuffer): void {
    if (buffer.byteLength <= maxKeptBufferBytes && this.#spareBuffers.length < maxKeptBuffers) this.#spareBuffers.push(buffer);
  }

  #assertOpen(): void {
    if (this.#closing) throw closedError();
  }
}

/** Adds one transaction's writes, all or none. */
function encode(encoder: BatchEncoder, writes: WriteBuffer, stamp: string): void {
  const start = encoder.length;
  try {
    for (const range of writes.clearedRanges) encoder.clearRange(range.begin, range.end);
    for (const [key, write] of writes.points) {
      if (write === null) encoder.clear(key);
      else if (Buffer.isBuffer(write)) encoder.put(key, write);
      else for (const { kind, operand } of write) encoder.atomic(kind, key, operand);
    }
    for (const { prefix, suffix, value } of writes.stamped) encoder.put(prefix + stamp + suffix, value);
  } catch (error) {
    encoder.truncate(start);
    throw error;
  }
}

function failure(kind: FailureKind, message: string): KvError {
  if (kind === 'unknown') return new KvError('commit-unknown', `the commit may not have reached the disk: ${message}`);
  const what = kind === 'no-space' ? 'there is no space left for the store' : 'writing the store failed';
  return new KvError('unavailable', `${what}: ${message}`, kind);
}

export function closedError(): KvError {
  return new KvError('unavailable', 'the store is closed', 'closed');
}

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
