/** What the cases of the conformance suite share: the room each works in, and short ways to fill it and look at it. */
import { type KeyValue, KvError, type KvStore, type KvTransaction } from './contract.js';

/** What a case gets: an open store, and keys of its own. */
export interface CaseRoom {
  readonly store: KvStore;
  /** A key below the case's prefix. */
  key(name: string | Uint8Array): Buffer;
  /** All keys of the case. */
  readonly begin: Buffer;
  readonly end: Buffer;
}

export type ConformanceCase = readonly [name: string, run: (room: CaseRoom) => Promise<void>];

/** The text of keys without the case's prefix, and of values: `a=1 b=2`. */
export function shown(rows: readonly KeyValue[]): string {
  return rows.map(({ key, value }) => `${key.subarray(3).toString('latin1')}=${value.toString('latin1')}`).join(' ');
}

export function bytes(text: string): Buffer {
  return Buffer.from(text, 'latin1');
}

/** Sets `a=1 b=2 …` in one transaction. */
export async function fill(room: CaseRoom, pairs: string): Promise<void> {
  await room.store.transact(async (tx) => {
    for (const pair of pairs.split(' ')) tx.set(room.key(pair.split('=')[0]!), bytes(pair.split('=')[1]!));
  });
}

export async function everything(room: CaseRoom): Promise<string> {
  return shown(await room.store.read((reads) => reads.getRange(room.begin, room.end)));
}

/** Runs one body without retries; its error's code, or `done`. */
export async function once(store: KvStore, body: (tx: KvTransaction) => Promise<unknown>): Promise<string> {
  try {
    await store.transact(body, { maxAttempts: 1 });
    return 'done';
  } catch (error) {
    if (error instanceof KvError) return error.code;
    throw error;
  }
}
