/**
 * The one connection that writes, on the writer thread: plays a batch into one SQLite transaction, makes it durable, and moves the log
 * into the database file when it has grown. After any failure the batch is rolled back as a whole.
 */
import { type AtomicKind, applyAtomic } from '../atomic.js';
import { type BatchTarget, decodeBatch } from './batch.js';
import type { FailureKind, WriterSettings } from './messages.js';
import { type Database, failureKind, openWriteConnection, type Statement } from './sqlite.js';

/**
 * Written bytes (keys, values, and a share of a page for each) between two looks at the log. In a large file nearly every row is in a page of its own, and a page
 * that many commits have changed is moved once. Commits wait meanwhile: among a million queued messages one claim in a hundred took 440 ms with 4 MiB, 46 with 16.
 */
const checkpointEveryBytes = 16 * 1024 * 1024;
const estimatedRowOverheadBytes = 512;
/** From this many pages on, the checkpoint waits a moment for readers, so that the log can start anew (64 MiB). */
const restartLogPages = 16_384;
const restartWaitMs = 200;
/** Rows of one statement: a call of the engine costs more than a row. */
const rowsPerPut = 16;

/** A batch that did not commit. */
export class BatchFailure extends Error {
  constructor(
    readonly kind: FailureKind,
    message: string,
    /** The version that readers see now. */
    readonly visibleVersion: number,
  ) {
    super(message);
  }
}

interface Connection {
  readonly db: Database;
  readonly put: Statement;
  /** `rowsPerPut` rows at once, in their order. */
  readonly putMany: Statement;
  readonly get: Statement;
  readonly clear: Statement;
  readonly clearRange: Statement;
  readonly version: Statement;
  readonly setVersion: Statement;
}

export class Writer implements BatchTarget {
  readonly #settings: WriterSettings;
  #open: Connection | undefined;
  #version: number;
  #bytesSinceCheckpoint = 0;
  /** A log of this many pages is worth waiting for. */
  #restartFromPages = restartLogPages;
  /** Keys and values in turn, of puts that came one after another and are not in the transaction yet. */
  #puts: Uint8Array[] = [];

  constructor(settings: WriterSettings) {
    this.#settings = settings;
    this.#version = this.#readVersion(this.#connection());
  }

  /** The last committed version. */
  get version(): number {
    return this.#version;
  }

  /** Commits a batch durably, or throws `BatchFailure`. */
  commit(version: number, buffer: ArrayBuffer, length: number): void {
    let atCommit = false;
    try {
      const { db, setVersion } = this.#connection();
      db.exec('BEGIN IMMEDIATE');
      this.#puts = [];
      decodeBatch(buffer, length, this);
      this.#flushPuts();
      setVersion.run(version);
      atCommit = true;
      db.exec('COMMIT');
    } catch (error) {
      throw this.#recover(error, atCommit);
    }
    this.#version = version;
    this.#bytesSinceCheckpoint += length;
  }

  put(key: Uint8Array, value: Uint8Array): void {
    if (this.#puts.push(key, value) === rowsPerPut * 2) {
      this.#open!.putMany.run(...this.#puts);
      this.#puts = [];
    }
    this.#bytesSinceCheckpoint += estimatedRowOverheadBytes;
  }

  clear(key: Uint8Array): void {
    this.#flushPuts();
    this.#open!.clear.run(key);
    this.#bytesSinceCheckpoint += estimatedRowOverheadBytes;
  }

  clearRange(begin: Uint8Array, end: Uint8Array): void {
    this.#flushPuts();
    const { changes } = this.#open!.clearRange.run(begin, end);
    this.#bytesSinceCheckpoint += Number(changes) * estimatedRowOverheadBytes;
  }

  atomic(kind: AtomicKind, key: Uint8Array, operand: bigint): void {
    this.#flushPuts();
    const row = this.#open!.get.get(key) as [Uint8Array] | undefined;
    this.put(key, applyAtomic(kind, operand, row?.[0]));
  }

  /** Before whatever is not a put, so that operations on one key keep their order. */
  #flushPuts(): void {
    const puts = this.#puts;
    if (puts.length === 0) return;
    this.#puts = [];
    for (let at = 0; at < puts.length; at += 2) this.#open!.put.run(puts[at]!, puts[at + 1]!);
  }

  /** Moves the log into the database when enough was written since the last time. Throws what SQLite throws; nothing is lost then. */
  checkpointIfDue(): void {
    if (this.#bytesSinceCheckpoint < checkpointEveryBytes) return;
    this.#bytesSinceCheckpoint = 0;
    const { db } = this.#connection();
    const logPages = checkpoint(db, 'PASSIVE').log;
    if (logPages < this.#restartFromPages) return;
    // Readers of older snapshots hold the log; they are short, so a moment's patience lets it start from its beginning.
    db.exec(`PRAGMA busy_timeout = ${restartWaitMs}`);
    const { busy } = checkpoint(db, 'RESTART');
    db.exec('PRAGMA busy_timeout = 1000');
    // A view is open, perhaps for hours: commits must not wait for it again and again.
    this.#restartFromPages = busy ? logPages + restartLogPages : restartLogPages;
  }

  /** Empties the log into the database file and closes it. */
  close(): void {
    const db = this.#open?.db;
    this.#open = undefined;
    if (!db) return;
    try {
      checkpoint(db, 'TRUNCATE');
    } finally {
      db.close();
    }
  }

  #connection(): Connection {
    if (this.#open) return this.#open;
    const db = openWriteConnection(this.#settings);
    const get = db.prepare('SELECT v FROM kv WHERE k = ?');
    get.setReturnArrays(true);
    this.#open = {
      db,
      get,
      put: db.prepare(putSql(1)),
      putMany: db.prepare(putSql(rowsPerPut)),
      clear: db.prepare('DELETE FROM kv WHERE k = ?'),
      clearRange: db.prepare('DELETE FROM kv WHERE k >= ? AND k < ?'),
      version: db.prepare('SELECT version FROM meta'),
      setVersion: db.prepare('UPDATE meta SET version = ?'),
    };
    return this.#open;
  }

  /** Rolls back, and after anything but a full disk opens the file anew: what a broken connection still holds is not to be trusted. */
  #recover(error: unknown, atCommit: boolean): BatchFailure {
    const kind = failureKind(error, atCommit, this.#settings.file);
    const message = error instanceof Error ? error.message : String(error);
    try {
      if (this.#open?.db.isTransaction) this.#open.db.exec('ROLLBACK');
      if (kind !== 'no-space') this.#reopen();
      this.#version = this.#readVersion(this.#connection());
    } catch {
      // The next batch tries to open the file again; until then readers see what they saw.
      this.#discardConnection();
    }
    return new BatchFailure(kind, message, this.#version);
  }

  #reopen(): void {
    this.#discardConnection();
    this.#connection();
  }

  #discardConnection(): void {
    const db = this.#open?.db;
    this.#open = undefined;
    try {
      db?.close();
    } catch {
      // Closing a broken connection may fail; its file descriptor goes with the process.
    }
  }

  #readVersion(connection: Connection): number {
    return (connection.version.get() as { version: number }).version;
  }
}

function putSql(rows: number): string {
  const places = new Array(rows).fill('(?, ?)').join(', ');
  return `INSERT INTO kv(k, v) VALUES ${places} ON CONFLICT(k) DO UPDATE SET v = excluded.v`;
}

/** Gives the pages in the log before it, and whether somebody was in the way. */
function checkpoint(db: Database, mode: 'PASSIVE' | 'RESTART' | 'TRUNCATE'): { log: number; busy: number } {
  return db.prepare(`PRAGMA wal_checkpoint(${mode})`).get() as { log: number; busy: number };
}
