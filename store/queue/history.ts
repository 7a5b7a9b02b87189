/**
 * Writes, reads and forgets the history of messages. A row's key is made of what it says (time, kind, a hash of its value), so nothing is read to
 * write it, two nodes never overwrite each other, and a transaction that runs again writes the same row.
 */
import { hash } from 'node:crypto';
import { type KeyRange, key, keyItems, keysUnder, subspace } from '../keyspace.js';
import { type KeyValue, type KvStore, type KvTransaction, keyAfter } from '../kv/contract.js';
import type { QueueId } from './contract.js';
import { forgetExpansionMarks } from './expansions.js';
import type { History, HistoryEvent, HistoryRecord } from './history-contract.js';
import { decodeRow, encodeRow, rankOf } from './history-records.js';
import { firstIdAt } from './ids.js';
import { messageKey } from './records.js';

const { queue } = subspace;
const table = 'history';

/** Rows that one transaction of `forget` looks at. */
const rowsPerBatch = 250;
/** More rows of one message are not read: a message for 10,000 recipients that was tried for days. */
const maxRowsRead = 20_000;
const rowsPerRead = 1_000;

const rowsOf = (id: QueueId): KeyRange => keysUnder(queue, table, id);

interface RowKey {
  id: QueueId;
  atMs: number;
}

function rowKey(packed: Buffer): RowKey {
  const [, , id, atMs] = keyItems(packed) as [number, string, string, number];
  return { id, atMs };
}

/** `kv`: the store that the transactions handed to `append` belong to. */
export function createHistory({ kv }: { kv: KvStore }): History {
  return {
    append(tx, id, { atMs, nodeId, event }, ...more) {
      const value = encodeRow(nodeId, [event, ...more]);
      // 48 bits: two rows of one message, millisecond and kind that differ meet with a chance of one in 2^48.
      const discriminator = hash('sha256', value, 'buffer').readUIntBE(0, 6);
      tx.set(key(queue, table, id, Math.max(0, Math.floor(atMs)), rankOf(event), discriminator), value);
    },

    async read(reads, id) {
      const { begin, end } = rowsOf(id);
      const written: { rank: number; records: HistoryRecord[] }[] = [];
      let from = begin;
      for (let read = 0; read < maxRowsRead; ) {
        const page = await reads.getRange(from, end, { limit: rowsPerRead });
        for (const row of page) {
          const { nodeId, events } = decodeRow(row.value);
          const { atMs } = rowKey(row.key);
          written.push({ rank: placeOf(events), records: events.map((event) => ({ atMs, nodeId, event })) });
        }
        if (page.length < rowsPerRead) break;
        read += page.length;
        from = keyAfter(page.at(-1)!.key);
      }
      // Nodes' clocks differ: what can only be the beginning or the end is, whatever they say.
      return written.sort((one, other) => one.rank - other.rank).flatMap(({ records }) => records);
    },

    async forget(beforeMs, assert) {
      // Ids are made in the order of time: what was accepted later can't have ended before.
      const end = key(queue, table, firstIdAt(beforeMs));
      let from: Buffer | undefined = keysUnder(queue, table).begin;
      let forgotten = 0;
      const forgetMarks = async (tx: KvTransaction) => {
        await assert?.(tx);
        await forgetExpansionMarks(tx, beforeMs);
      };
      await kv.transact(forgetMarks, { label: 'forget-history' });
      while (from) {
        const begin: Buffer = from;
        const batch: Batch = await kv.transact(
          async (tx) => {
            await assert?.(tx);
            return forgetBatch(tx, begin, end, beforeMs);
          },
          { label: 'forget-history' },
        );
        forgotten += batch.forgotten;
        from = batch.next;
      }
      return forgotten;
    },
  };
}

/** 0: the message's beginning, 2: its end, 1: what lies between. */
function placeOf(events: readonly HistoryEvent[]): 0 | 1 | 2 {
  if (events.some(({ kind }) => kind === 'accepted')) return 0;
  return events.some(({ kind }) => kind === 'done') ? 2 : 1;
}

interface Batch {
  forgotten: number;
  /** Where to go on; undefined at the end. */
  next: Buffer | undefined;
}

/** Clears messages that have left the queue and of which nothing was written since `beforeMs`; whoever writes meanwhile makes this conflict. */
async function forgetBatch(tx: KvTransaction, begin: Buffer, end: Buffer, beforeMs: number): Promise<Batch> {
  const page = await tx.getRange(begin, end, { limit: rowsPerBatch });
  const ids = lastTimes(page);
  const lastId = [...ids.keys()].at(-1);
  if (lastId === undefined) return { forgotten: 0, next: undefined };
  const isMore = page.length === rowsPerBatch;
  if (isMore) {
    // The page may end within this message's rows.
    const range = rowsOf(lastId);
    const [newest] = await tx.getRange(range.begin, range.end, { limit: 1, reverse: true });
    ids.set(lastId, rowKey(newest!.key).atMs);
  }
  const old = [...ids].filter(([, atMs]) => atMs < beforeMs).map(([id]) => id);
  const queued = await tx.getMany(old.map(messageKey));
  let forgotten = 0;
  for (const [i, id] of old.entries()) {
    if (queued[i]) continue;
    const range = rowsOf(id);
    tx.clearRange(range.begin, range.end);
    forgotten++;
  }
  return { forgotten, next: isMore ? rowsOf(lastId).end : undefined };
}

/** The newest row's time of each message on a page. */
function lastTimes(page: readonly KeyValue[]): Map<QueueId, number> {
  const times = new Map<QueueId, number>();
  for (const row of page) {
    const { id, atMs } = rowKey(row.key);
    times.set(id, atMs);
  }
  return times;
}
