/**
 * One attempt of a transaction over any backend that gives consistent snapshots and takes a whole commit at once: reads go to the
 * snapshot and are merged with the transaction's own writes, what was read is noted for conflict detection, limits are kept.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import type { Attempt, CommitRequest, MaybePromise, Snapshot, SnapshotBackend } from './backend.js';
import {
  type KeyValue,
  KvError,
  type KvReads,
  type KvTransaction,
  type KvWatch,
  kvLimits,
  type RangeOptions,
} from './contract.js';
import { asBuffer, type KeyRange, keyBytes, keyText } from './key-text.js';
import { mergeRange } from './merge-range.js';
import { Watch, watchLost } from './watches.js';
import { WriteBuffer } from './write-buffer.js';

export class BufferedTransaction implements KvTransaction, Attempt {
  readonly #backend: SnapshotBackend;
  readonly #clock: Clock;
  readonly #atLeastVersion: number | undefined;
  readonly #writes = new WriteBuffer();
  readonly #readPoints = new Set<string>();
  readonly #readRanges: KeyRange[] = [];
  readonly #writeConflictPoints: string[] = [];
  readonly #writeConflictRanges: KeyRange[] = [];
  readonly #watches: Watch[] = [];
  #snapshotReads: KvReads | undefined;
  #view: MaybePromise<Snapshot> | undefined;
  #begunAtMs = 0;
  #bytes = 0;
  #over = false;

  constructor(
    backend: SnapshotBackend,
    clock: Clock,
    atLeastVersion: bigint | undefined,
    readonly mayHaveCommitted: boolean,
  ) {
    this.#backend = backend;
    this.#clock = clock;
    this.#atLeastVersion = atLeastVersion === undefined ? undefined : Number(atLeastVersion);
  }

  get tx(): KvTransaction {
    return this;
  }

  get snapshot(): KvReads {
    this.#snapshotReads ??= {
      get: (key) => this.#get(key, false),
      getMany: (keys) => this.#getMany(keys, false),
      getRange: (begin, end, options) => this.#getRange(begin, end, options, false),
    };
    return this.#snapshotReads;
  }

  get(key: Uint8Array): Promise<Buffer | undefined> {
    return this.#get(key, true);
  }

  getMany(keys: readonly Uint8Array[]): Promise<(Buffer | undefined)[]> {
    return this.#getMany(keys, true);
  }

  getRange(begin: Uint8Array, end: Uint8Array, options?: RangeOptions): Promise<KeyValue[]> {
    return this.#getRange(begin, end, options, true);
  }

  set(key: Uint8Array, value: Uint8Array): void {
    const text = this.#writableKey(key);
    checkValue(value);
    this.#grow(key.length + value.length);
    this.#writes.set(text, Buffer.from(value));
  }

  clear(key: Uint8Array): void {
    const text = this.#writableKey(key);
    this.#grow(key.length);
    this.#writes.clear(text);
  }

  clearRange(begin: Uint8Array, end: Uint8Array): void {
    this.#assertOpen();
    checkKeyLength(begin.length);
    checkKeyLength(end.length);
    this.#grow(begin.length + end.length);
    this.#writes.clearRange(keyText(begin), keyText(end));
  }

  add(key: Uint8Array, delta: bigint): void {
    const text = this.#writableKey(key);
    this.#grow(key.length + 8);
    this.#writes.atomic(text, 'add', BigInt.asUintN(64, delta));
  }

  max(key: Uint8Array, value: bigint): void {
    checkUnsigned(value);
    const text = this.#writableKey(key);
    this.#grow(key.length + 8);
    this.#writes.atomic(text, 'max', value);
  }

  min(key: Uint8Array, value: bigint): void {
    checkUnsigned(value);
    const text = this.#writableKey(key);
    this.#grow(key.length + 8);
    this.#writes.atomic(text, 'min', value);
  }

  setVersionstampedKey(prefix: Uint8Array, suffix: Uint8Array, value: Uint8Array): void {
    this.#assertOpen();
    const keyLength = prefix.length + versionstampBytes + suffix.length;
    checkKeyLength(keyLength);
    checkValue(value);
    this.#grow(keyLength + value.length);
    this.#writes.setStamped(keyText(prefix), keyText(suffix), Buffer.from(value));
  }

  addReadConflictRange(begin: Uint8Array, end: Uint8Array): void {
    this.#assertOpen();
    const range = { begin: keyText(begin), end: keyText(end) };
    // An empty range holds no key, so nothing that is written can meet it.
    if (range.begin >= range.end) return;
    this.#grow(begin.length + end.length);
    this.#pinView();
    this.#readRanges.push(range);
  }

  addReadConflictKey(key: Uint8Array): void {
    this.#assertOpen();
    this.#grow(key.length);
    this.#pinView();
    this.#readPoints.add(keyText(key));
  }

  addWriteConflictRange(begin: Uint8Array, end: Uint8Array): void {
    this.#assertOpen();
    const range = { begin: keyText(begin), end: keyText(end) };
    if (range.begin >= range.end) return;
    this.#grow(begin.length + end.length);
    this.#writeConflictRanges.push(range);
  }

  addWriteConflictKey(key: Uint8Array): void {
    this.#assertOpen();
    this.#grow(key.length);
    this.#writeConflictPoints.push(keyText(key));
  }

  async readVersion(): Promise<bigint> {
    this.#assertOpen();
    const view = await this.#acquire();
    await view.ready?.();
    return BigInt(view.version);
  }

  watch(key: Uint8Array): KvWatch {
    this.#assertOpen();
    this.#pinView();
    const watch = new Watch(keyText(key));
    this.#watches.push(watch);
    return watch;
  }

  async commit(): Promise<bigint> {
    this.#assertOpen();
    const writesNothing =
      this.#writes.isEmpty && this.#writeConflictPoints.length === 0 && this.#writeConflictRanges.length === 0;
    if (writesNothing) return this.#commitReadOnly();
    const view = this.#view instanceof Promise ? await this.#view : this.#view;
    if (view?.ready) await view.ready();
    this.#assertFresh();
    this.#over = true;
    const committing = this.#backend.commit({
      readVersion: view?.version,
      reads: { points: this.#readPoints, ranges: this.#readRanges },
      writes: this.#writes,
      writeConflicts: { points: this.#writeConflictPoints, ranges: this.#writeConflictRanges },
      watches: this.#watches,
    });
    // The check against other commits is done by now; a snapshot that is kept until the disk answers would hold up checkpoints.
    view?.release();
    try {
      return BigInt(await committing);
    } catch (error) {
      this.#failWatches(error);
      throw error;
    }
  }

  discard(): void {
    if (!this.#over) {
      this.#over = true;
      this.#failWatches(undefined);
    }
    const view = this.#view;
    if (view instanceof Promise) view.then(release, ignore);
    else view?.release();
  }

  async #commitReadOnly(): Promise<bigint> {
    const view = await this.#acquire();
    if (view.ready) await view.ready();
    this.#over = true;
    if (this.#watches.length > 0) this.#backend.watch(this.#watches, view.version);
    view.release();
    return BigInt(view.version);
  }

  async #get(key: Uint8Array, conflicting: boolean): Promise<Buffer | undefined> {
    this.#assertOpen();
    checkKeyLength(key.length);
    const text = keyText(key);
    const own = this.#writes.isEmpty ? undefined : this.#writes.own(text);
    if (own?.known) return own.value;
    const view = this.#view === undefined || this.#view instanceof Promise ? await this.#acquire() : this.#fresh(this.#view);
    if (conflicting) this.#notePoint(text);
    const answer = view.get(key);
    const base = answer instanceof Promise ? await answer : answer;
    return own === undefined ? base : this.#writes.overlay(text, base);
  }

  async #getMany(keys: readonly Uint8Array[], conflicting: boolean): Promise<(Buffer | undefined)[]> {
    this.#assertOpen();
    const values = new Array<Buffer | undefined>(keys.length).fill(undefined);
    const asked: Uint8Array[] = [];
    const askedAt: number[] = [];
    for (let at = 0; at < keys.length; at++) {
      const key = keys[at]!;
      checkKeyLength(key.length);
      const own = this.#writes.own(keyText(key));
      if (own.known) {
        values[at] = own.value;
        continue;
      }
      asked.push(key);
      askedAt.push(at);
    }
    if (asked.length === 0) return values;
    const view = await this.#acquire();
    const texts = asked.map(keyText);
    if (conflicting) for (const text of texts) this.#notePoint(text);
    const bases = await view.getMany(asked);
    for (let at = 0; at < asked.length; at++) values[askedAt[at]!] = this.#writes.overlay(texts[at]!, bases[at]);
    return values;
  }

  async #getRange(
    begin: Uint8Array,
    end: Uint8Array,
    options: RangeOptions | undefined,
    conflicting: boolean,
  ): Promise<KeyValue[]> {
    this.#assertOpen();
    const limit = options?.limit ?? Number.POSITIVE_INFINITY;
    const reverse = options?.reverse ?? false;
    const range = { begin: keyText(begin), end: keyText(end) };
    if (limit <= 0 || range.begin >= range.end) return [];
    // A copy of the bounds: the caller's buffers may change while this waits.
    const [low, high] = [keyBytes(range.begin), keyBytes(range.end)];
    const view = await this.#acquire();
    const rows = this.#writes.meets(range.begin, range.end)
      ? await mergeRange(view, this.#writes, range, limit, reverse)
      : await view.getRange(low, high, limit, reverse);
    if (conflicting) this.#noteRange(readPart(range, rows, limit, reverse));
    return rows;
  }

  #acquire(): MaybePromise<Snapshot> {
    if (this.#view === undefined) this.#pinView();
    const view = this.#view!;
    return view instanceof Promise ? view.then((snapshot) => this.#fresh(snapshot)) : this.#fresh(view);
  }

  /** Fixes the version that this transaction reads, if that has not happened yet. */
  #pinView(): void {
    if (this.#view !== undefined) return;
    this.#begunAtMs = this.#clock.monotonicMs();
    const view = this.#backend.acquire(this.#atLeastVersion);
    this.#view = view;
    if (!(view instanceof Promise)) return;
    view.then((snapshot) => {
      if (this.#view === view) this.#view = snapshot;
      if (this.#over) snapshot.release();
    }, ignore);
  }

  #fresh(view: Snapshot): Snapshot {
    this.#assertOpen();
    this.#assertFresh();
    return view;
  }

  #assertFresh(): void {
    if (this.#view === undefined || this.#clock.monotonicMs() - this.#begunAtMs <= kvLimits.maxTransactionMs) return;
    throw new KvError('too-old', `the transaction has run for more than ${kvLimits.maxTransactionMs} ms`);
  }

  #assertOpen(): void {
    if (this.#over) throw new Error('this transaction is over; its handle was used after the body had ended');
  }

  #notePoint(text: string): void {
    if (this.#readPoints.has(text)) return;
    this.#grow(text.length);
    this.#readPoints.add(text);
  }

  #noteRange(range: KeyRange): void {
    this.#grow(range.begin.length + range.end.length);
    this.#readRanges.push(range);
  }

  #writableKey(key: Uint8Array): string {
    this.#assertOpen();
    checkKeyLength(key.length);
    return keyText(key);
  }

  #grow(bytes: number): void {
    if (this.#bytes + bytes > kvLimits.maxTransactionBytes) {
      throw new KvError('too-large', `the transaction is larger than ${kvLimits.maxTransactionBytes} bytes`);
    }
    this.#bytes += bytes;
  }

  #failWatches(cause: unknown): void {
    for (const watch of this.#watches) watch.fail(watchLost(cause));
  }
}

/** Bytes of a versionstamp: version (8, big-endian) and order among the commits of that version (2, big-endian). */
export const versionstampBytes = 10;

/** The versionstamp of a commit, as key text. */
export function versionstampText(version: number, order: number): string {
  const stamp = Buffer.allocUnsafe(versionstampBytes);
  stamp.writeBigUInt64BE(BigInt(version), 0);
  stamp.writeUInt16BE(order, 8);
  return keyText(stamp);
}

/** All keys and ranges that count as written by `request`, when its versionstamp is `stamp`. */
export function writtenBy(request: CommitRequest, stamp: string): { points: string[]; ranges: KeyRange[] } {
  const points = [...request.writes.points.keys()];
  for (const write of request.writes.stamped) points.push(write.prefix + stamp + write.suffix);
  for (const key of request.writeConflicts.points) points.push(key);
  return { points, ranges: [...request.writes.clearedRanges, ...request.writeConflicts.ranges] };
}

/** The part of `range` that an answer of `rows` depends on: not what lies beyond a limit that was reached. */
function readPart(range: KeyRange, rows: readonly KeyValue[], limit: number, reverse: boolean): KeyRange {
  if (rows.length < limit) return range;
  const last = keyText(asBuffer(rows.at(-1)!.key));
  return reverse ? { begin: last, end: range.end } : { begin: range.begin, end: `${last}\0` };
}

function checkKeyLength(length: number): void {
  if (length > kvLimits.maxKeyBytes) throw new KvError('too-large', `a key is longer than ${kvLimits.maxKeyBytes} bytes`);
}

function checkValue(value: Uint8Array): void {
  if (value.length <= kvLimits.maxValueBytes) return;
  throw new KvError('too-large', `a value is longer than ${kvLimits.maxValueBytes} bytes`);
}

function checkUnsigned(value: bigint): void {
  if (BigInt.asUintN(64, value) !== value) throw new RangeError('an atomic maximum or minimum takes an unsigned 64-bit number');
}

function release(view: Snapshot): void {
  view.release();
}

function ignore(): void {}
