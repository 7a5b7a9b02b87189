/**
 * One snapshot of the server, shared by the transactions that began before it was taken. While it waits for a connection it gathers
 * them and their first reads; all that goes out together with BEGIN. Later reads of one turn of the event loop share a flight, too.
 */
import type { Snapshot } from '../backend.js';
import { type KeyValue, KvError } from '../contract.js';
import { asBuffer } from '../key-text.js';
import { BinaryArray, unpackPairs, unpackValues } from './binary.js';
import { errorCode, isCancelled, unavailable } from './errors.js';
import { maxPlainKeyBytes } from './functions.js';
import type { Link, Row } from './link.js';
import { countFlight, snapshotPassengers } from './metrics.js';
import { beginSnapshot, endSnapshot, maxPageRows, nextSnapshot, type ReadStatements } from './statements.js';

type Values = (Buffer | undefined)[];

interface Asked<T> {
  resolve(answer: T): void;
  reject(error: KvError): void;
}

/** Keys that are asked for by one statement. */
class KeyQuery {
  readonly keys = new BinaryArray('bytea', 256);
  readonly asked: { readonly from: number; readonly count: number; readonly by: Asked<Values> }[] = [];

  add(keys: readonly Uint8Array[], by: Asked<Values>): void {
    this.asked.push({ from: this.keys.count, count: keys.length, by });
    for (const key of keys) this.keys.bytes(key);
  }

  answer(packed: string | null | undefined): void {
    const values: Values = new Array(this.keys.count).fill(undefined);
    unpackValues(packed, values);
    if (this.asked.length === 1) this.asked[0]!.by.resolve(values);
    else for (const { from, count, by } of this.asked) by.resolve(values.slice(from, from + count));
  }

  reject(error: KvError): void {
    for (const { by } of this.asked) by.reject(error);
  }
}

interface PageQuery extends Asked<Row> {
  readonly begin: Buffer;
  readonly end: Buffer;
  readonly rows: number;
  readonly reverse: boolean;
}

export interface SnapshotOwner {
  readonly statements: ReadStatements;
  /** The snapshot was taken; `version` is what it shows. */
  onVersion(version: number): void;
  /** Nobody uses it any more, or it has failed; its connection, if it lives, is free. */
  onEnd(snapshot: SharedSnapshot, link: Link | undefined): void;
}

export class SharedSnapshot {
  users = 0;
  version = 0;
  openedAtMs = 0;
  /** Resolves when `version` is known. */
  readonly opened: Promise<void>;
  #passengers = 0;
  #onOpened!: () => void;
  #onFailed!: (error: KvError) => void;
  #link: Link | undefined;
  #isOver = false;
  /** Why it is over, when it did not end by itself. */
  #failure: KvError | undefined;
  #keys = new KeyQuery();
  #longKeys = new KeyQuery();
  #pages: PageQuery[] = [];
  #flushScheduled = false;

  constructor(readonly owner: SnapshotOwner) {
    this.opened = new Promise((resolve, reject) => {
      this.#onOpened = resolve;
      this.#onFailed = reject;
    });
    this.opened.catch(() => {});
  }

  board(): void {
    this.users++;
    this.#passengers++;
  }

  leave(): void {
    if (--this.users > 0 || !this.#link || this.#isOver) return;
    const link = this.#link;
    this.#isOver = true;
    // With nothing on its way, the end can wait a moment for whatever is sent next on this connection.
    if (link.outstanding === 0) {
      link.isInSnapshot = true;
      this.owner.onEnd(this, link);
      return;
    }
    // Reads that nobody waits for are still being answered; others should not stand behind them.
    link.run(endSnapshot).then(
      () => this.owner.onEnd(this, link),
      (error: unknown) => {
        link.destroy(error as Error);
        this.owner.onEnd(this, undefined);
      },
    );
  }

  /** Takes the snapshot, with the reads that have gathered. */
  begin(link: Link, nowMs: number): void {
    this.#link = link;
    this.openedAtMs = nowMs;
    snapshotPassengers.observe(this.#passengers);
    countFlight('begin');
    link.flight(() => {
      const begin = link.isInSnapshot ? nextSnapshot : beginSnapshot;
      link.isInSnapshot = false;
      link.run(begin).catch((error: unknown) => this.fail(error));
      const keys = this.#keys;
      this.#keys = new KeyQuery();
      this.#run(link, this.owner.statements.first(keys.keys.take()), keys, (row) => {
        this.version = Number(row[0]);
        this.owner.onVersion(this.version);
        this.#onOpened();
        keys.answer(row[1]);
      });
      this.#sendOthers(link);
    });
  }

  getMany(keys: readonly Uint8Array[]): Promise<Values> {
    return new Promise((resolve, reject) => {
      if (this.#isOver) return reject(this.#over());
      if (keys.every((key) => key.length <= maxPlainKeyBytes)) this.#keys.add(keys, { resolve, reject });
      else this.#getMixed(keys, { resolve, reject });
      this.#scheduleFlush();
    });
  }

  get(key: Uint8Array): Promise<Buffer | undefined> {
    return new Promise((resolve, reject) => {
      if (this.#isOver) return reject(this.#over());
      const query = key.length <= maxPlainKeyBytes ? this.#keys : this.#longKeys;
      query.add([key], { resolve: (values) => resolve(values[0]), reject });
      this.#scheduleFlush();
    });
  }

  async getRange(begin: Uint8Array, end: Uint8Array, limit: number, reverse: boolean): Promise<KeyValue[]> {
    const found: KeyValue[] = [];
    let low: Buffer = Buffer.from(begin);
    let high: Buffer = Buffer.from(end);
    for (;;) {
      const rows = Math.min(limit - found.length, maxPageRows);
      const before = found.length;
      const [packed, looked] = await this.#page(low, high, rows, reverse);
      unpackPairs(packed, found);
      if (found.length >= limit || (Number(looked) < rows && found.length - before === Number(looked))) return found;
      const last = found.at(-1)!.key;
      if (reverse) high = last;
      else low = Buffer.concat([last, Buffer.of(0)]);
    }
  }

  /** Ends it for everybody. */
  fail(cause: unknown): void {
    if (this.#isOver) return;
    const link = this.#link;
    const error = cause instanceof KvError ? cause : failure(cause, link);
    this.#isOver = true;
    this.#failure = error;
    this.#onFailed(error);
    this.#keys.reject(error);
    this.#longKeys.reject(error);
    for (const page of this.#pages.splice(0)) page.reject(error);
    link?.destroy(error);
    this.owner.onEnd(this, undefined);
  }

  #over(): KvError {
    return this.#failure ?? gone('it has ended');
  }

  #page(begin: Buffer, end: Buffer, rows: number, reverse: boolean): Promise<Row> {
    return new Promise((resolve, reject) => {
      if (this.#isOver) return reject(this.#over());
      this.#pages.push({ begin, end, rows, reverse, resolve, reject });
      this.#scheduleFlush();
    });
  }

  #getMixed(keys: readonly Uint8Array[], by: Asked<Values>): void {
    const values: Values = new Array(keys.length).fill(undefined);
    const parts = [keys.map((_, at) => at).filter((at) => keys[at]!.length <= maxPlainKeyBytes)];
    parts.push(keys.map((_, at) => at).filter((at) => keys[at]!.length > maxPlainKeyBytes));
    let left = 2;
    parts.forEach((places, part) => {
      const resolve = (found: Values) => {
        places.forEach((place, at) => {
          values[place] = found[at];
        });
        if (--left === 0) by.resolve(values);
      };
      const query = part === 0 ? this.#keys : this.#longKeys;
      query.add(
        places.map((at) => keys[at]!),
        { resolve, reject: by.reject },
      );
    });
  }

  #scheduleFlush(): void {
    // Before it has begun, whatever gathers goes with BEGIN.
    if (!this.#link || this.#flushScheduled) return;
    this.#flushScheduled = true;
    setImmediate(() => {
      this.#flushScheduled = false;
      if (!this.#isOver) this.#flush(this.#link!);
    });
  }

  #flush(link: Link): void {
    countFlight('read');
    link.flight(() => {
      const keys = this.#keys;
      if (keys.asked.length > 0) {
        this.#keys = new KeyQuery();
        this.#run(link, this.owner.statements.values(keys.keys.take()), keys, (row) => keys.answer(row[0]));
      }
      this.#sendOthers(link);
    });
  }

  #sendOthers(link: Link): void {
    const long = this.#longKeys;
    if (long.asked.length > 0) {
      this.#longKeys = new KeyQuery();
      this.#run(link, this.owner.statements.longValues(long.keys.take()), long, (row) => long.answer(row[0]));
    }
    for (const page of this.#pages.splice(0)) {
      const statement = this.owner.statements.page(page.begin, page.end, page.rows, page.reverse);
      this.#run(link, statement, page, (row) => page.resolve(row));
    }
  }

  #run(
    link: Link,
    statement: Parameters<Link['run']>[0],
    asker: { reject(error: KvError): void },
    take: (row: Row) => void,
  ): void {
    link.run(statement).then(
      (rows) => take(rows[0]!),
      (error: unknown) => {
        this.fail(error);
        asker.reject(this.#failure ?? failure(error, link));
      },
    );
  }
}

/** Ends the snapshot that its last user has left open. Nobody waits for the answer: what is sent next comes after it. */
export function endLastSnapshot(link: Link): void {
  if (!link.isInSnapshot) return;
  link.isInSnapshot = false;
  link.run(endSnapshot).catch((error: unknown) => link.destroy(error as Error));
}

/** A lost connection, a cancelled statement: the same transaction over a new snapshot may well succeed. */
function failure(cause: unknown, link: Link | undefined): KvError {
  if (cause instanceof KvError) return cause;
  if (!link || link.isLost || isCancelled(cause) || /^(57|25P0)/.test(errorCode(cause) ?? '')) return gone(cause);
  return unavailable(cause, 'reading the store failed');
}

export function gone(cause: unknown): KvError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new KvError('too-old', `the snapshot that this transaction reads is gone: ${why}`, undefined, { cause });
}

/** One transaction's share of a snapshot. */
export class Passenger implements Snapshot {
  #left = false;

  constructor(
    readonly shared: SharedSnapshot,
    readonly atLeastVersion: number | undefined,
  ) {
    shared.board();
  }

  get version(): number {
    return this.shared.version;
  }

  /** Resolves when `version` is known. Throws `unavailable` when it is below what was asked for. */
  async ready(): Promise<void> {
    await this.shared.opened;
    const { atLeastVersion, version } = this;
    if (atLeastVersion === undefined || version >= atLeastVersion) return;
    throw new KvError('unavailable', `version ${atLeastVersion} is above everything that this store has committed`, 'outage');
  }

  get(key: Uint8Array): Promise<Buffer | undefined> {
    const answer = this.shared.get(key);
    return this.atLeastVersion === undefined ? answer : this.#checked(answer);
  }

  getMany(keys: readonly Uint8Array[]): Promise<Values> {
    const answer = this.shared.getMany(keys);
    return this.atLeastVersion === undefined ? answer : this.#checked(answer);
  }

  getRange(begin: Uint8Array, end: Uint8Array, limit: number, reverse: boolean): Promise<KeyValue[]> {
    const answer = this.shared.getRange(asBuffer(begin), asBuffer(end), limit, reverse);
    return this.atLeastVersion === undefined ? answer : this.#checked(answer);
  }

  release(): void {
    if (this.#left) return;
    this.#left = true;
    this.shared.leave();
  }

  async #checked<T>(answer: Promise<T>): Promise<T> {
    answer.catch(() => {});
    await this.ready();
    return answer;
  }
}
