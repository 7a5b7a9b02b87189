/**
 * One attempt of a transaction on FoundationDB. The client library keeps the snapshot, the transaction's own writes and its conflict
 * ranges; here are the contract's limits, which the library does not all keep or tells only at the commit.
 */
import type { NativeTransaction } from 'foundationdb/dist/lib/native.js';
import type { Attempt } from '../backend.js';
import {
  type KeyValue,
  KvError,
  type KvReads,
  type KvTransaction,
  type KvWatch,
  keyAfter,
  kvLimits,
  type RangeOptions,
} from '../contract.js';
import { asBuffer, keyBytes, keyText } from '../key-text.js';
import { Watch, watchLost } from '../watches.js';
import { closedError } from './errors.js';
import type { Loan, TransactionHost, WatchedValue } from './host.js';
import { checkKeyLength, checkOwnKey, checkUnsigned, checkValue, clamped } from './limits.js';
import { readRange } from './range.js';

/** Numbers of `fdb_c_options.g.h`. */
const mutation = { add: 2, max: 12, min: 13, setVersionstampedKey: 14 } as const;
const versionstampBytes = 10;
const stampPlaceBytes = 4;

/** A key that is known only at commit; `key` as the client takes it: with a gap for the stamp, and its place at the end. */
interface StampedWrite {
  readonly key: Buffer;
  readonly value: Buffer;
}

export class FoundationTransaction implements KvTransaction, Attempt {
  readonly #host: TransactionHost;
  readonly #atLeastVersion: bigint | undefined;
  readonly #watches: Watch[] = [];
  readonly #stamped: StampedWrite[] = [];
  #snapshotReads: KvReads | undefined;
  #loan: Loan | undefined;
  /** When the version that is read was asked for; undefined as long as nothing was read. */
  #pinnedAtMs: number | undefined;
  /** Rejects when the version that is read is below `atLeastVersion`. */
  #floor: Promise<void> | undefined;
  #bytes = 0;
  #writes = false;
  #over = false;

  constructor(
    host: TransactionHost,
    atLeastVersion: bigint | undefined,
    readonly mayHaveCommitted: boolean,
  ) {
    this.#host = host;
    this.#atLeastVersion = atLeastVersion;
  }

  get tx(): KvTransaction {
    return this;
  }

  get snapshot(): KvReads {
    this.#snapshotReads ??= {
      get: (key) => observed(this.#get(key, true)),
      getMany: (keys) => observed(this.#getMany(keys, true)),
      getRange: (begin, end, options) => observed(this.#getRange(begin, end, options, true)),
    };
    return this.#snapshotReads;
  }

  get(key: Uint8Array): Promise<Buffer | undefined> {
    return observed(this.#get(key, false));
  }

  getMany(keys: readonly Uint8Array[]): Promise<(Buffer | undefined)[]> {
    return observed(this.#getMany(keys, false));
  }

  getRange(begin: Uint8Array, end: Uint8Array, options?: RangeOptions): Promise<KeyValue[]> {
    return observed(this.#getRange(begin, end, options, false));
  }

  set(key: Uint8Array, value: Uint8Array): void {
    this.#assertKey(key);
    checkValue(value);
    this.#write(key.length + value.length).set(asBuffer(key), asBuffer(value));
  }

  clear(key: Uint8Array): void {
    this.#assertKey(key);
    this.#write(key.length).clear(asBuffer(key));
  }

  clearRange(begin: Uint8Array, end: Uint8Array): void {
    this.#assertOpen();
    checkKeyLength(begin.length);
    checkKeyLength(end.length);
    const range = clamped(begin, end);
    if (range) this.#write(begin.length + end.length).clearRange(range.begin, range.end);
    else this.#grow(begin.length + end.length);
  }

  add(key: Uint8Array, delta: bigint): void {
    this.#atomic(mutation.add, key, BigInt.asUintN(64, delta));
  }

  max(key: Uint8Array, value: bigint): void {
    checkUnsigned(value);
    this.#atomic(mutation.max, key, value);
  }

  min(key: Uint8Array, value: bigint): void {
    checkUnsigned(value);
    this.#atomic(mutation.min, key, value);
  }

  setVersionstampedKey(prefix: Uint8Array, suffix: Uint8Array, value: Uint8Array): void {
    this.#assertOpen();
    const keyLength = prefix.length + versionstampBytes + suffix.length;
    // FoundationDB counts the place of the stamp, which is sent behind the key, as part of it.
    checkKeyLength(keyLength + stampPlaceBytes);
    checkOwnKey(prefix);
    checkValue(value);
    this.#grow(keyLength + value.length);
    const key = Buffer.alloc(keyLength + stampPlaceBytes);
    key.set(prefix);
    key.set(suffix, prefix.length + versionstampBytes);
    key.writeUInt32LE(prefix.length, keyLength);
    // Kept until the commit: the client would refuse to read where such a key may come to stand.
    this.#stamped.push({ key, value: Buffer.from(value) });
  }

  addReadConflictRange(begin: Uint8Array, end: Uint8Array): void {
    this.#assertOpen();
    const range = clamped(begin, end);
    if (!range) return;
    this.#grow(begin.length + end.length);
    this.#pin();
    this.#native().addReadConflictRange(range.begin, range.end);
  }

  addReadConflictKey(key: Uint8Array): void {
    this.#assertKey(key);
    this.#grow(key.length);
    this.#pin();
    this.#native().addReadConflictRange(asBuffer(key), keyAfter(key));
  }

  addWriteConflictRange(begin: Uint8Array, end: Uint8Array): void {
    this.#assertOpen();
    const range = clamped(begin, end);
    if (range) this.#write(begin.length + end.length).addWriteConflictRange(range.begin, range.end);
  }

  addWriteConflictKey(key: Uint8Array): void {
    this.#assertKey(key);
    this.#write(key.length).addWriteConflictRange(asBuffer(key), keyAfter(key));
  }

  readVersion(): Promise<bigint> {
    return observed(this.#readVersion());
  }

  watch(key: Uint8Array): KvWatch {
    this.#assertKey(key);
    this.#pin();
    const watch = new Watch(keyText(key));
    this.#watches.push(watch);
    return watch;
  }

  async commit(): Promise<bigint> {
    this.#assertOpen();
    try {
      return await (this.#writes || this.#stamped.length > 0 ? this.#commitWrites() : this.#commitReads());
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
    if (this.#loan) this.#host.takeBack(this.#loan);
    this.#loan = undefined;
  }

  async #commitWrites(): Promise<bigint> {
    if (this.#floor) await this.#floor;
    // Otherwise the commit would take its version whenever the cluster answers, and could come long after it was called unknown.
    if (this.#pinnedAtMs === undefined) await this.#readVersion();
    const watched = await this.#watchedValues();
    this.#assertFresh();
    const native = this.#native();
    for (const { key, value } of this.#stamped) native.atomicOp(mutation.setVersionstampedKey, key, value);
    const loan = this.#loan!;
    this.#over = true;
    this.#loan = undefined;
    const version = await this.#host.commit(loan);
    if (watched.length > 0) void this.#host.watches.setAt(version, watched);
    return version;
  }

  async #commitReads(): Promise<bigint> {
    const version = await this.#readVersion();
    this.#over = true;
    if (this.#watches.length === 0) return version;
    const { native } = this.#loan!;
    this.#host.watches.set(native, this.#watches);
    try {
      await native.commit();
    } catch (error) {
      throw this.#host.asKvError(error, 'read');
    }
    return version;
  }

  /** The values that this transaction leaves behind at the keys that it watches. */
  async #watchedValues(): Promise<WatchedValue[]> {
    if (this.#watches.length === 0) return [];
    const native = this.#native();
    try {
      const read = async (watch: Watch) => ({ watch, value: await native.get(keyBytes(watch.key), true) });
      return await Promise.all(this.#watches.map(read));
    } catch (error) {
      throw this.#host.asKvError(error, 'read');
    }
  }

  async #get(key: Uint8Array, isSnapshot: boolean): Promise<Buffer | undefined> {
    this.#assertKey(key);
    const floor = this.#read();
    const native = this.#native();
    try {
      if (!floor) return (await native.get(asBuffer(key), isSnapshot)) ?? undefined;
      // A copy: the caller's buffer may change while this waits.
      const asked = Buffer.from(key);
      await floor;
      return (await native.get(asked, isSnapshot)) ?? undefined;
    } catch (error) {
      throw this.#host.asKvError(error, 'read');
    }
  }

  #getMany(keys: readonly Uint8Array[], isSnapshot: boolean): Promise<(Buffer | undefined)[]> {
    // The client sends them all before the first answer comes.
    return Promise.all(keys.map((key) => this.#get(key, isSnapshot)));
  }

  async #getRange(
    begin: Uint8Array,
    end: Uint8Array,
    options: RangeOptions | undefined,
    isSnapshot: boolean,
  ): Promise<KeyValue[]> {
    this.#assertOpen();
    const limit = options?.limit ?? Number.POSITIVE_INFINITY;
    const range = clamped(begin, end);
    if (limit <= 0 || !range) return [];
    const copy = { begin: Buffer.from(range.begin), end: Buffer.from(range.end) };
    const floor = this.#read();
    const native = this.#native();
    try {
      if (floor) await floor;
      return await readRange(native, copy, limit, options?.reverse ?? false, isSnapshot, () => this.#assertUsable());
    } catch (error) {
      throw this.#host.asKvError(error, 'read');
    }
  }

  async #readVersion(): Promise<bigint> {
    this.#assertOpen();
    const floor = this.#read();
    try {
      const version = await this.#native().getReadVersion();
      if (floor) await floor;
      return version.readBigInt64BE();
    } catch (error) {
      throw this.#host.asKvError(error, 'read');
    }
  }

  #atomic(kind: number, key: Uint8Array, operand: bigint): void {
    this.#assertKey(key);
    const bytes = Buffer.allocUnsafe(8);
    bytes.writeBigUInt64LE(operand);
    this.#write(key.length + 8).atomicOp(kind, asBuffer(key), bytes);
  }

  /** Accounts for a write of so many bytes. */
  #write(bytes: number): NativeTransaction {
    this.#grow(bytes);
    this.#writes = true;
    return this.#native();
  }

  /** Before every read; what comes back must be awaited before the client is asked. */
  #read(): Promise<void> | undefined {
    if (this.#pinnedAtMs === undefined) this.#start();
    else this.#assertFresh();
    return this.#floor;
  }

  /** Fixes the version that is read, for what counts from it without reading. */
  #pin(): void {
    if (this.#pinnedAtMs !== undefined) return;
    this.#start();
    if (!this.#floor) this.#native().getReadVersion().catch(ignore);
  }

  #start(): void {
    const native = this.#native();
    this.#pinnedAtMs = this.#host.clock.monotonicMs();
    this.#host.limitReads(this.#loan!);
    if (this.#atLeastVersion !== undefined) this.#floor = observed(this.#assertFloor(native, this.#atLeastVersion));
  }

  async #assertFloor(native: NativeTransaction, atLeastVersion: bigint): Promise<void> {
    let version: bigint;
    try {
      version = (await native.getReadVersion()).readBigInt64BE();
    } catch (error) {
      throw this.#host.asKvError(error, 'read');
    }
    // A cluster never gives a version below what it has committed: it is another one, or has been set back.
    if (version >= atLeastVersion) return;
    throw new KvError('unavailable', `version ${atLeastVersion} is above everything that this store has committed`, 'outage');
  }

  #native(): NativeTransaction {
    this.#loan ??= this.#host.lend();
    return this.#loan.native;
  }

  #assertKey(key: Uint8Array): void {
    this.#assertOpen();
    checkKeyLength(key.length);
    checkOwnKey(key);
  }

  #assertUsable(): void {
    this.#assertOpen();
    this.#assertFresh();
  }

  #assertFresh(): void {
    if (this.#pinnedAtMs === undefined) return;
    if (this.#host.clock.monotonicMs() - this.#pinnedAtMs <= kvLimits.maxTransactionMs) return;
    throw new KvError('too-old', `the transaction has run for more than ${kvLimits.maxTransactionMs} ms`);
  }

  #assertOpen(): void {
    if (this.#over) throw new Error('this transaction is over; its handle was used after the body had ended');
    if (this.#host.isClosed) throw closedError();
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

/** A body may leave a read alone when another has failed; that must not end the process. */
function observed<T>(promise: Promise<T>): Promise<T> {
  promise.catch(ignore);
  return promise;
}

function ignore(): void {}
