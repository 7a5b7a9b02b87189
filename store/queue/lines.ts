/**
 * Lines: where due destinations wait that can't be worked yet, out of the way of those that can. One that waits is still due: its due entry stands at its
 * deadline, so that notices and the end of its time come when they should, whatever becomes of the line.
 */
import type { Clock, Logger } from '../../ops/telemetry/index.js';
import type { KvStore, KvTransaction } from '../kv/contract.js';
import { type AnyEntry, readRecords } from './claims.js';
import type { Admission, Queue, QueueMessage } from './contract.js';
import { clearEntries, clearLeftBehind, clearStale, isLineEntry, leadsTo, writeDue } from './entries.js';
import * as records from './records.js';

const maxPerTransaction = 200;
/** Of records that are read and written in one transaction; what would go beyond it stays for the next look. */
const maxBytes = 4_000_000;

/** The end of the message's own time, where nobody knows of anything earlier. */
export function endSecondsOf({ expiresAtMs, deliverBy }: QueueMessage): number {
  return Math.ceil((deliverBy?.mode === 'return' ? Math.min(deliverBy.untilMs, expiresAtMs) : expiresAtMs) / 1000);
}

export function createParking(
  kv: KvStore,
  clock: Clock,
  logger: Logger,
  deadlineSecondsOf: Admission['deadlineSecondsOf'],
): Queue['park'] {
  async function parkChunk(tx: KvTransaction, entries: readonly AnyEntry[], lineOf: (entry: AnyEntry) => string) {
    const outcome = { parked: 0, overdue: [] as AnyEntry[], unreadable: [] as string[] };
    const values = await tx.getMany([
      ...entries.map(records.destinationKey),
      ...entries.map(({ queueId }) => records.messageKey(queueId)),
    ]);
    const messages = new Map<string, QueueMessage>();
    const nowSeconds = clock.nowMs() / 1000;
    let bytes = 0;
    for (const [i, entry] of entries.entries()) {
      const value = values[i];
      const record = readRecords(messages, entry, value, values[entries.length + i]);
      if (record === 'unreadable') {
        outcome.unreadable.push(entry.queueId);
        continue;
      }
      const { destination, message } = record;
      if (!destination || !message || !leadsTo(entry, destination)) {
        // A claim deals with orphans; here only what is certainly stale goes.
        if (destination && !message) outcome.overdue.push(entry);
        else if (destination?.state === 'claimed') await clearLeftBehind(tx, entry);
        else clearStale(tx, entry);
        continue;
      }
      const line = lineOf(entry);
      if (isLineEntry(entry) && entry.line === line) continue;
      const deadlineSeconds = Math.ceil(deadlineSecondsOf(message, destination));
      if (deadlineSeconds <= nowSeconds || destination.cancelReply) {
        outcome.overdue.push(entry);
        continue;
      }
      bytes += value!.length + 500;
      if (bytes > maxBytes) break;
      clearEntries(tx, destination);
      writeDue(tx, { ...destination, line, dueAtSeconds: deadlineSeconds });
      outcome.parked++;
    }
    return outcome;
  }

  return async (entries, lineOf) => {
    const result: Awaited<ReturnType<Queue['park']>> = { parked: 0, overdue: [] };
    for (let at = 0; at < entries.length; at += maxPerTransaction) {
      const chunk = entries.slice(at, at + maxPerTransaction);
      const outcome = await kv.transact((tx) => parkChunk(tx, chunk, lineOf), { label: 'park' });
      if (outcome.unreadable.length > 0)
        logger.error({ queueIds: outcome.unreadable }, 'queue records that this node can not read');
      result.parked += outcome.parked;
      result.overdue.push(...outcome.overdue);
    }
    return result;
  };
}
