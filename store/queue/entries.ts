/**
 * The entries that make a destination reachable: its due entry, the express entry beside it (high priority), the entry of the line that it waits in, its claim.
 * Written and cleared together with its record, and nowhere else.
 */
import { keyItems } from '../keyspace.js';
import type { KeyValue, KvTransaction } from '../kv/contract.js';
import type { Destination, DueEntry, EntryTraits, LineEntry, QueueMessage } from './contract.js';
import * as records from './records.js';
import { hash32 } from './shards.js';

const flags = { isLocal: 1, isForced: 2, isExpress: 4 } as const;
const fixedBytes = 5;
const empty = Buffer.alloc(0);

/** What entries tell of a message's destinations. */
export function traitsOf(message: Pick<QueueMessage, 'from' | 'priority' | 'queueName'>, isLocal: boolean): EntryTraits {
  const queueName = message.queueName === 'default' ? '' : (message.queueName ?? '');
  return { isLocal, isExpress: message.priority > 0, senderHash: hash32(message.from.toLowerCase()), queueName };
}

/** One byte of flags, the sender's hash, the queue's name. */
function entryValue({ traits, isLocal }: Destination, isForced: boolean): Buffer {
  if (!traits && !isForced) return empty;
  const { isExpress = false, senderHash = 0, queueName = '' } = traits ?? {};
  const value = Buffer.allocUnsafe(fixedBytes + Buffer.byteLength(queueName));
  value[0] = (isLocal ? flags.isLocal : 0) | (isForced ? flags.isForced : 0) | (isExpress ? flags.isExpress : 0);
  value.writeUInt32BE(senderHash, 1);
  value.write(queueName, fixedBytes, 'utf8');
  return value;
}

function readValue(value: Buffer): Pick<DueEntry, 'traits' | 'isForced'> {
  if (value.length < fixedBytes) return {};
  const bits = value[0]!;
  const traits: EntryTraits = {
    isLocal: (bits & flags.isLocal) !== 0,
    isExpress: (bits & flags.isExpress) !== 0,
    senderHash: value.readUInt32BE(1),
    queueName: value.toString('utf8', fixedBytes),
  };
  return bits & flags.isForced ? { traits, isForced: true } : { traits };
}

type DueItems = [number, string, number, number, string, string, number];
type LineItems = [number, string, string, number, string, string, number];

/** The entry that a due or an express key stands for. */
export function dueEntry({ key, value }: KeyValue): DueEntry {
  const [, , shard, dueAtSeconds, queueId, domain, part] = keyItems(key) as DueItems;
  return { shard, dueAtSeconds, queueId, domain, part, ...readValue(value) };
}

/** The entry that a line's key stands for. */
export function lineEntry({ key, value }: KeyValue): LineEntry {
  const [, , line, shard, queueId, domain, part] = keyItems(key) as LineItems;
  return { line, shard, queueId, domain, part, ...readValue(value) };
}

export const isLineEntry = (entry: DueEntry | LineEntry): entry is LineEntry => 'line' in entry;

/** Writes a destination that is due as its record says, its entries with it. What it was reachable by before must have been cleared (`clearEntries`). */
export function writeDue(tx: KvTransaction, destination: Destination, isForced = false): void {
  const { line, traits, dueAtSeconds, route } = destination;
  tx.set(records.destinationKey(destination), records.encodeDestination(destination));
  // Whether its own domain is down says nothing about one that goes elsewhere.
  const value = entryValue(destination, isForced || route !== undefined);
  tx.set(records.dueKey(destination, dueAtSeconds), value);
  if (line !== undefined) tx.set(records.lineKey(line, destination), value);
  else if (traits?.isExpress) tx.set(records.expressKey(destination, dueAtSeconds), value);
}

/** Clears what it can be reached by; its record is the caller's business. */
export function clearEntries(tx: KvTransaction, destination: Destination): void {
  const { state, line, traits, dueAtSeconds, claim } = destination;
  if (claim) tx.clear(records.claimKey(claim.nodeId, destination));
  if (state !== 'due') return;
  tx.clear(records.dueKey(destination, dueAtSeconds));
  if (line !== undefined) tx.clear(records.lineKey(line, destination));
  else if (traits?.isExpress) tx.clear(records.expressKey(destination, dueAtSeconds));
}

/** Clears an entry that leads to nothing any more. */
export function clearStale(tx: KvTransaction, entry: DueEntry | LineEntry): void {
  if (isLineEntry(entry)) {
    tx.clear(records.lineKey(entry.line, entry));
    return;
  }
  tx.clear(records.dueKey(entry, entry.dueAtSeconds));
  if (entry.traits?.isExpress) tx.clear(records.expressKey(entry, entry.dueAtSeconds));
}

/** As `clearStale`, but only what is there: as a rule whoever was quicker has cleared it, and a lost race is to write nothing. */
export async function clearLeftBehind(tx: KvTransaction, entry: DueEntry | LineEntry): Promise<void> {
  const keys = [keyOf(entry)];
  if (!isLineEntry(entry) && entry.traits?.isExpress) keys.push(records.expressKey(entry, entry.dueAtSeconds));
  const values = await tx.getMany(keys);
  for (const [i, key] of keys.entries()) if (values[i]) tx.clear(key);
}

/** The key that an entry was found under. */
export const keyOf = (entry: DueEntry | LineEntry): Buffer =>
  isLineEntry(entry) ? records.lineKey(entry.line, entry) : records.dueKey(entry, entry.dueAtSeconds);

/** Whether an entry stands for what the destination is now. */
export function leadsTo(entry: DueEntry | LineEntry, destination: Destination): boolean {
  if (destination.state !== 'due') return false;
  return isLineEntry(entry) ? destination.line === entry.line : destination.dueAtSeconds === entry.dueAtSeconds;
}

/** The destination as a claimed one gives it back: without claim and line, due then. */
export function asDue(destination: Destination, dueAtSeconds: number): Destination {
  const { claim: _claim, line: _line, ...rest } = destination;
  return { ...rest, state: 'due', dueAtSeconds: Math.max(0, Math.ceil(dueAtSeconds)) };
}

/** Writes a claimed destination with its claim entry. */
export function writeClaimed(tx: KvTransaction, destination: Destination): void {
  const claim = destination.claim!;
  const epoch = Buffer.allocUnsafe(4);
  epoch.writeUInt32BE(claim.epoch);
  tx.set(records.destinationKey(destination), records.encodeDestination(destination));
  tx.set(records.claimKey(claim.nodeId, destination), epoch);
}
