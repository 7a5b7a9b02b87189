/**
 * How far the expansion of a large list has got. Members are taken in one order, a batch in each transaction, which also moves the mark; so a crash in
 * the middle neither loses nor doubles a member, also when the list changes meanwhile.
 */
import { Packr } from 'msgpackr';
import { key, keyItems, keysUnder, subspace } from '../keyspace.js';
import type { KvReads, KvTransaction } from '../kv/contract.js';
import type { QueueId } from './contract.js';
import { firstIdAt } from './ids.js';
import { messageKey } from './records.js';

const format = 1;
const packr = new Packr({ useRecords: false });
const table = 'expansion';
const rowsPerPass = 250;

const markKey = (id: QueueId, list: string) => key(subspace.queue, table, id, list);

export interface ExpansionMark {
  /** The last member in order that has its copy. */
  last: string;
  /** Members that have theirs. */
  members: number;
}

/** Of the recipient `list` of a message; undefined before the first batch. */
export async function readExpansionMark(reads: KvReads, id: QueueId, list: string): Promise<ExpansionMark | undefined> {
  const value = await reads.get(markKey(id, list));
  if (!value) return undefined;
  const [, last, members] = packr.unpack(value) as [number, string, number];
  return { last, members };
}

export function setExpansionMark(tx: KvTransaction, id: QueueId, list: string, { last, members }: ExpansionMark): void {
  tx.set(markKey(id, list), packr.pack([format, last, members]));
}

/** With the list's own status, in its transaction. */
export function clearExpansionMark(tx: KvTransaction, id: QueueId, list: string): void {
  tx.clear(markKey(id, list));
}

/** Clears marks of messages that were accepted before `beforeMs` and taken out of the queue in the middle; a bounded pass. */
export async function forgetExpansionMarks(tx: KvTransaction, beforeMs: number): Promise<void> {
  const rows = await tx.getRange(keysUnder(subspace.queue, table).begin, key(subspace.queue, table, firstIdAt(beforeMs)), {
    limit: rowsPerPass,
  });
  const messages = await tx.getMany(rows.map((row) => messageKey(keyItems(row.key)[2] as string)));
  for (const [i, row] of rows.entries()) if (!messages[i]) tx.clear(row.key);
}
