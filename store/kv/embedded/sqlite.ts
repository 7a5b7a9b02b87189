/**
 * The SQLite side of the embedded store: the file, its schema and settings, and what SQLite's error codes mean to us. One table
 * `kv(k, v)` clustered by key, and one row `meta` with the version of the last commit, written in the same SQLite transaction.
 */
import { statfsSync } from 'node:fs';
import { dirname } from 'node:path';
import { type DatabaseSyncInstance as Database, DatabaseSync } from '@photostructure/sqlite';
import type { FailureKind, WriterSettings } from './messages.js';

export {
  DatabaseSync,
  type DatabaseSyncInstance as Database,
  type StatementSyncInstance as Statement,
} from '@photostructure/sqlite';

const formatVersion = 1;
const pageBytes = 4096;
/** Memory of the writer for pages that it changes; what does not fit spills to the log. */
const writerCacheKiB = 8192;
/** Pages that were already checkpointed are read from a mapping that all read connections share. */
const readMappingBytes = 256 * 1024 * 1024;
/** A read connection's own cache is void after each foreign commit, so it only has to hold one transaction's pages. */
const readerCacheKiB = 512;
/** The log file is cut back to this when it starts anew. */
const logSizeLimitBytes = 64 * 1024 * 1024;
const busyTimeoutMs = 1000;
/** Less free space than this next to an I/O error means that the disk is full. */
const fullDiskBytes = 256 * 1024;

/** Opens the one connection that writes, and makes the schema if there is none. */
export function openWriteConnection(settings: WriterSettings): Database {
  const db = new DatabaseSync(settings.file, { timeout: busyTimeoutMs });
  try {
    db.exec(`PRAGMA page_size = ${pageBytes}; PRAGMA journal_mode = WAL`);
    db.exec(`PRAGMA synchronous = ${settings.durability === 'none' ? 'OFF' : 'FULL'}`);
    db.exec(`PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = ${logSizeLimitBytes}`);
    db.exec(`PRAGMA cache_size = -${writerCacheKiB}; PRAGMA temp_store = MEMORY`);
    if (settings.maxFileBytes > 0) db.exec(`PRAGMA max_page_count = ${Math.ceil(settings.maxFileBytes / pageBytes)}`);
    makeSchema(db);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

function makeSchema(db: Database): void {
  db.exec(`
    BEGIN IMMEDIATE;
    CREATE TABLE IF NOT EXISTS kv(k BLOB PRIMARY KEY NOT NULL, v BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS meta(id INTEGER PRIMARY KEY CHECK(id = 0), version INTEGER NOT NULL, format INTEGER NOT NULL);
    INSERT OR IGNORE INTO meta(id, version, format) VALUES(0, 0, ${formatVersion});
    COMMIT`);
  const { format } = db.prepare('SELECT format FROM meta').get() as { format: number };
  if (format !== formatVersion) throw new Error(`the store has format ${format}; this program reads format ${formatVersion}`);
}

/** Opens a connection for snapshots; it can't write. The writer must have opened the file before. */
export function openReadConnection(file: string): Database {
  const db = new DatabaseSync(file, { readOnly: true, timeout: busyTimeoutMs });
  db.exec(`PRAGMA cache_size = -${readerCacheKiB}; PRAGMA mmap_size = ${readMappingBytes}; PRAGMA query_only = ON`);
  return db;
}

/** SQLite's primary result code of an error that a statement threw; 0 when it is not SQLite's. */
export function resultCode(error: unknown): number {
  const code = (error as { errcode?: unknown } | undefined)?.errcode;
  return typeof code === 'number' ? code & 0xff : 0;
}

export const sqliteBusy = 5;
export const sqliteLocked = 6;
const sqliteIoError = 10;
const sqliteFull = 13;

/** What a failed write means. `atCommit`: the failing statement was COMMIT itself. */
export function failureKind(error: unknown, atCommit: boolean, file: string): FailureKind {
  const code = resultCode(error);
  // SQLITE_FULL comes from a refused write(2), which always precedes the sync that would make a commit last.
  if (code === sqliteFull) return 'no-space';
  if (atCommit) return 'unknown';
  return code === sqliteIoError && isDiskFull(file) ? 'no-space' : 'io';
}

function isDiskFull(file: string): boolean {
  try {
    const { bavail, bsize } = statfsSync(dirname(file));
    return bavail * bsize < fullDiskBytes;
  } catch {
    return false;
  }
}
