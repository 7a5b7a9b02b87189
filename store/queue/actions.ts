/** What an operator's action does to the records of one message. */
import type { BlobStore } from '../blobs/contract.js';
import type { KvTransaction } from '../kv/contract.js';
import type { Destination, OperatorAction, QueueId, QueueMessage } from './contract.js';
import { asDue, clearEntries, writeDue } from './entries.js';
import { leaveReceipt } from './nodes.js';
import { keptReply } from './parts.js';
import * as records from './records.js';
import { countUsage } from './usage.js';

export interface Change {
  id: QueueId;
  action: OperatorAction;
  nowSeconds: number;
  by?: string;
  note?: string;
  /** Attempted whatever is known of its domain. */
  isForced?: boolean;
}

export interface Meant {
  message: QueueMessage;
  /** All of the message. */
  destinations: readonly Destination[];
  /** Those that the operator means. */
  meant: readonly Destination[];
}

/** In the transaction that has read them; answers how many destinations it has changed. */
export function applyAction(tx: KvTransaction, blobs: BlobStore, all: Meant, change: Change): number {
  const { action } = change;
  if (action.kind === 'cancel' && !action.reply) return remove(tx, blobs, all);
  let changed = 0;
  for (const destination of all.meant) if (applyToOne(tx, all.message, destination, change)) changed++;
  return changed;
}

function applyToOne(
  tx: KvTransaction,
  { notBeforeSeconds = 0 }: Pick<QueueMessage, 'notBeforeSeconds'>,
  destination: Destination,
  { action, nowSeconds, isForced = false }: Change,
): boolean {
  const { state } = destination;
  // RFC 4865 4: its sender has said when it may go at the earliest. Only who retries this very message knows better.
  const dueAtSeconds = Math.max(nowSeconds, notBeforeSeconds);
  if (action.kind === 'retry') {
    if (state !== 'due' || (!isForced && (destination.line !== undefined || notBeforeSeconds > nowSeconds))) return false;
    clearEntries(tx, destination);
    writeDue(tx, asDue(destination, nowSeconds), isForced);
  } else if (action.kind === 'hold') {
    if (state !== 'due') return false;
    clearEntries(tx, destination);
    const { line: _line, ...rest } = destination;
    tx.set(records.destinationKey(destination), records.encodeDestination({ ...rest, state: 'held' }));
  } else if (action.kind === 'unhold') {
    if (state !== 'held') return false;
    writeDue(tx, asDue(destination, dueAtSeconds));
  } else if (action.kind === 'reroute') {
    // What is delivered here goes nowhere else.
    if (destination.isLocal) return false;
    const rerouted = { ...destination, route: action.route };
    if (state === 'due') {
      clearEntries(tx, destination);
      writeDue(tx, asDue(rerouted, dueAtSeconds), isForced);
    } else tx.set(records.destinationKey(destination), records.encodeDestination(rerouted));
  } else {
    cancelWithReport(tx, destination, keptReply(action.reply!), nowSeconds);
  }
  return true;
}

/** Whoever works on it loses it; whoever claims it next fails it with this reply. */
function cancelWithReport(
  tx: KvTransaction,
  destination: Destination,
  cancelReply: NonNullable<Destination['cancelReply']>,
  nowSeconds: number,
): void {
  leaveReceipt(tx, destination.queueId, destination.claim);
  clearEntries(tx, destination);
  const epoch = destination.epoch + (destination.claim ? 1 : 0);
  writeDue(tx, { ...asDue(destination, nowSeconds), epoch, cancelReply }, true);
}

/** Without a word to anybody; with its last destination the message goes. */
function remove(tx: KvTransaction, blobs: BlobStore, { message, destinations, meant }: Meant): number {
  for (const destination of meant) {
    tx.clear(records.destinationKey(destination));
    clearEntries(tx, destination);
  }
  if (meant.length < destinations.length) return meant.length;
  tx.clear(records.messageKey(message.id));
  countUsage(tx, message, -1);
  // Nor must an enqueue whose commit is unknown bring it back.
  tx.set(records.receiptKey(message.id), Buffer.alloc(0));
  blobs.unlink(tx, message.blobId, { kind: 'queue', queueId: message.id });
  // A message without destinations is gone, too.
  return Math.max(1, meant.length);
}
