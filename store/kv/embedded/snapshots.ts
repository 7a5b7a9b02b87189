/**
 * Consistent views on the main thread: a few read-only connections, each holding a snapshot of the log while transactions use it.
 * Transactions that begin at the same version share one.
 *
 * What must be true: a view that is handed out shows every commit that was acknowledged before, and none is held for longer than a
 * transaction may last.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock, Timer } from '../../../ops/telemetry/index.js';
import type { MaybePromise, Snapshot } from '../backend.js';
import { type KeyValue, KvError, kvLimits } from '../contract.js';
import type { CommitHistory } from '../history.js';
import { asBuffer, keyText } from '../key-text.js';
import type { ReadCache } from './read-cache.js';
import { type Database, openReadConnection, type Statement } from './sqlite.js';

const maxConnections = 16;
/** A view older than this gets no new transactions, so that each has its full time. */
const shareMs = 250;
const sweepMs = 1000;
/** A long range is read in pages of about this size; between them others get their turn. */
const pageBytes = 512 * 1024;
const firstPageRows = 64;
const maxPageRows = 512;

export class SnapshotPool {
  readonly #idle: ReadConnection[] = [];
  readonly #views = new Set<View>();
  readonly #waiting: (() => void)[] = [];
  #connections = 0;
  #current: View | undefined;
  #sweeper: Timer | undefined;
  #closed = false;

  constructor(
    readonly file: string,
    readonly clock: Clock,
    readonly history: CommitHistory,
    readonly cache: ReadCache,
  ) {}

  /** A view of version `minVersion` or later. */
  acquire(minVersion: number): MaybePromise<Snapshot> {
    if (this.#closed) throw new KvError('unavailable', 'the store is closed', 'closed');
    const nowMs = this.clock.monotonicMs();
    const current = this.#current;
    if (current && current.version >= minVersion && nowMs - current.openedAtMs < shareMs)
      return new SharedSnapshot(this, current);
    if (current && current.users === 0) this.end(current, 'released');
    const connection = this.#connect();
    if (!connection) return this.#afterOthers(minVersion);
    const view = new View(connection, this.#begin(connection), nowMs);
    this.#views.add(view);
    this.#current = view;
    this.history.pin(view.version);
    this.#sweeper ??= this.clock.setTimer(sweepMs, () => this.#sweep(), { background: true });
    return new SharedSnapshot(this, view);
  }

  /** Waits for a connection. Whoever can't get a view after all lets the next one find out, too: there may be no view left whose end would wake it. */
  async #afterOthers(minVersion: number): Promise<Snapshot> {
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await this.acquire(minVersion);
    } catch (error) {
      this.#waiting.shift()?.();
      throw error;
    }
  }

  /** Nobody uses `view` at the moment. It stays for those that begin in the same turn of the event loop. */
  unused(view: View): void {
    if (view !== this.#current) this.end(view, 'released');
    else setImmediate(() => view.users === 0 && this.end(view, 'released'));
  }

  end(view: View, state: 'released' | 'expired' | 'closed'): void {
    if (view.state !== 'open') return;
    view.state = state;
    this.#views.delete(view);
    if (this.#current === view) this.#current = undefined;
    this.history.unpin(view.version);
    try {
      view.connection.end.run();
      this.#idle.push(view.connection);
    } catch {
      this.#drop(view.connection);
    }
    this.#waiting.shift()?.();
  }

  /** Ends all views and closes the files. */
  close(): void {
    this.#closed = true;
    for (const view of [...this.#views]) this.end(view, 'closed');
    for (const connection of this.#idle.splice(0)) this.#drop(connection);
    for (const resolve of this.#waiting.splice(0)) resolve();
    this.#sweeper?.cancel();
  }

  #connect(): ReadConnection | undefined {
    const idle = this.#idle.pop();
    if (idle) return idle;
    if (this.#connections >= maxConnections) return undefined;
    const connection = readErrors(() => new ReadConnection(this.file));
    this.#connections++;
    return connection;
  }

  #begin(connection: ReadConnection): number {
    try {
      return readErrors(() => connection.beginSnapshot());
    } catch (error) {
      this.#drop(connection);
      throw error;
    }
  }

  #drop(connection: ReadConnection): void {
    this.#connections--;
    connection.db.close();
  }

  #sweep(): void {
    const oldestMs = this.clock.monotonicMs() - kvLimits.maxTransactionMs - shareMs;
    for (const view of [...this.#views]) if (view.openedAtMs < oldestMs) this.end(view, 'expired');
    this.#sweeper = this.#views.size > 0 ? this.clock.setTimer(sweepMs, () => this.#sweep(), { background: true }) : undefined;
  }
}

class ReadConnection {
  readonly db: Database;
  readonly begin: Statement;
  readonly end: Statement;
  readonly version: Statement;
  readonly get: Statement;
  readonly forward: Statement;
  readonly backward: Statement;

  constructor(file: string) {
    this.db = openReadConnection(file);
    const rows = (sql: string) => {
      const statement = this.db.prepare(sql);
      statement.setReturnArrays(true);
      return statement;
    };
    this.begin = this.db.prepare('BEGIN');
    this.end = this.db.prepare('COMMIT');
    this.version = rows('SELECT version FROM meta');
    this.get = rows('SELECT v FROM kv WHERE k = ?');
    this.forward = rows('SELECT k, v FROM kv WHERE k >= ? AND k < ? ORDER BY k LIMIT ?');
    this.backward = rows('SELECT k, v FROM kv WHERE k >= ? AND k < ? ORDER BY k DESC LIMIT ?');
  }

  /** Takes a snapshot and tells its version. */
  beginSnapshot(): number {
    this.begin.run();
    return (this.version.get() as unknown as [number])[0];
  }
}

/** One snapshot of the log on one connection, and how many transactions use it. */
class View {
  users = 0;
  state: 'open' | 'released' | 'expired' | 'closed' = 'open';

  constructor(
    readonly connection: ReadConnection,
    readonly version: number,
    readonly openedAtMs: number,
  ) {}

  assertOpen(): void {
    if (this.state === 'open') return;
    if (this.state === 'closed') throw new KvError('unavailable', 'the store is closed', 'closed');
    throw new KvError('too-old', 'the snapshot that this transaction reads is gone');
  }
}

/** A transaction's share of a view. */
class SharedSnapshot implements Snapshot {
  readonly version: number;
  #released = false;

  constructor(
    readonly pool: SnapshotPool,
    readonly view: View,
  ) {
    this.version = view.version;
    view.users++;
  }

  get(key: Uint8Array): Buffer | undefined {
    this.view.assertOpen();
    const { cache, history } = this.pool;
    const text = keyText(key);
    const known = cache.find(text, this.version);
    if (known) return known.value;
    const value = readErrors(() => (this.view.connection.get.get(key) as [Uint8Array] | undefined)?.[0]);
    // Its version is pinned as long as the view is open, so the history knows of all commits above it.
    if (history.writerSince(text, this.version)) return value && asBuffer(value);
    return cache.note(text, value, this.version);
  }

  getMany(keys: readonly Uint8Array[]): (Buffer | undefined)[] {
    return keys.map((key) => this.get(key));
  }

  getRange(begin: Uint8Array, end: Uint8Array, limit: number, reverse: boolean): MaybePromise<KeyValue[]> {
    const rows = Math.min(limit, firstPageRows);
    const first = this.#page(begin, end, rows, reverse);
    return first.length < rows || first.length >= limit ? first : this.#further(first, begin, end, limit, reverse);
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    if (--this.view.users === 0) this.pool.unused(this.view);
  }

  /** Reads on after the first page, letting others run in between. */
  async #further(found: KeyValue[], begin: Uint8Array, end: Uint8Array, limit: number, reverse: boolean): Promise<KeyValue[]> {
    let page = found;
    for (;;) {
      await nextTurn();
      const bytes = page.reduce((sum, row) => sum + row.key.length + row.value.length, 0);
      const roomy = Math.min(Math.max(Math.floor((pageBytes * page.length) / bytes), 4), maxPageRows);
      const rows = Math.min(limit - found.length, roomy);
      const last = found.at(-1)!.key;
      page = reverse ? this.#page(begin, last, rows, true) : this.#page(after(last), end, rows, false);
      for (const row of page) found.push(row);
      if (page.length < rows || found.length >= limit) return found;
    }
  }

  #page(begin: Uint8Array, end: Uint8Array, rows: number, reverse: boolean): KeyValue[] {
    this.view.assertOpen();
    const { forward, backward } = this.view.connection;
    return readErrors(() => {
      const found = (reverse ? backward : forward).all(begin, end, rows) as unknown as [Uint8Array, Uint8Array][];
      return found.map(([key, value]) => ({ key: asBuffer(key), value: asBuffer(value) }));
    });
  }
}

function after(key: Buffer): Buffer {
  return Buffer.concat([key, Buffer.of(0)]);
}

/** What SQLite throws, as the contract's error. */
function readErrors<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof KvError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new KvError('unavailable', `reading the store failed: ${message}`, 'io', { cause: error });
  }
}
