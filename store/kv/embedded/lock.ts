/**
 * One process per store: an exclusive transaction on a small database file that is held as long as the store is open. The kernel
 * lets go of it when the process dies, however it dies.
 */
import { join } from 'node:path';
import { KvError } from '../contract.js';
import { type Database, DatabaseSync, resultCode, sqliteBusy, sqliteLocked } from './sqlite.js';

/** Throws `unavailable` when another store has the directory. The result lets go. */
export function lockDirectory(directory: string): () => void {
  let db: Database | undefined;
  try {
    db = new DatabaseSync(join(directory, 'LOCK'), { timeout: 0 });
    db.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
  } catch (error) {
    db?.close();
    const code = resultCode(error);
    if (code === sqliteBusy || code === sqliteLocked) {
      throw new KvError('unavailable', `the store in ${directory} is in use by another process`, 'outage', { cause: error });
    }
    const message = error instanceof Error ? error.message : String(error);
    throw new KvError('unavailable', `the store in ${directory} can't be opened: ${message}`, 'io', { cause: error });
  }
  const held = db;
  return () => held.close();
}
