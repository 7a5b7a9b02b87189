/**
 * The queue's way of a message: enqueue, save, release. What must be true after every commit: a destination is due (one due entry, and one of its line while it
 * waits in one), claimed (one claim entry) or held (neither); a message record exists exactly as long as one of its destinations does.
 */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { BlobStore } from '../blobs/contract.js';
import type { KvStore, KvTransaction } from '../kv/contract.js';
import { claimsOf, createClaiming, current, currentAll, maxPerTransaction } from './claims.js';
import {
  type Admission,
  type Claim,
  type ClaimedDestination,
  ClaimLost,
  type Destination,
  type NewQueueMessage,
  type NodeIdentity,
  type Queue,
  type QueueMessage,
  queueLimits,
  type SaveInput,
  type SaveOutcome,
} from './contract.js';
import { asDue, clearEntries, traitsOf, writeClaimed, writeDue } from './entries.js';
import type { History } from './history-contract.js';
import { createQueueIds, firstIdAt } from './ids.js';
import { createParking, endSecondsOf } from './lines.js';
import { createQueueNodes, leaveReceipt } from './nodes.js';
import { createQueueOperators } from './operators.js';
import { keptReply, splitIntoParts } from './parts.js';
import * as records from './records.js';
import { createQueueScan } from './scan.js';
import type { Tell } from './tell.js';
import { countUsage, createUsageReader, forgetZeroUsage } from './usage.js';

const empty = Buffer.alloc(0);
/** Longer than any transaction is tried again. */
const receiptLifetimeSeconds = 3600;

export interface QueueDependencies {
  kv: KvStore;
  blobs: BlobStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Where claims that came free and what operators did is told; `nodeId`: who tells it. */
  history?: { book: Pick<History, 'append'>; nodeId: string };
}

export function createQueue({ kv, blobs, clock, random, logger, history }: QueueDependencies): Queue {
  const listeners = new Set<() => void>();
  const announceDue = () => {
    for (const listener of listeners) listener();
  };
  const tell: Tell = (tx, queueId, event, atMs = clock.nowMs()) =>
    history?.book.append(tx, queueId, { atMs, nodeId: history.nodeId, event });

  let admission: Admission | undefined;
  const deadlineSecondsOf: Admission['deadlineSecondsOf'] = (message, destination) =>
    Math.min(admission?.deadlineSecondsOf(message, destination) ?? Number.POSITIVE_INFINITY, endSecondsOf(message));

  return {
    newId: createQueueIds(clock, random),
    ...createQueueNodes(kv, announceDue, logger, tell),
    ...createQueueOperators({ kv, blobs, clock, announceDue, logger, tell }),
    ...createQueueScan(kv),
    usage: createUsageReader(kv, clock),
    park: createParking(kv, clock, logger, deadlineSecondsOf),

    admitBy(by) {
      admission = by;
    },

    async enqueue(tx, input, { nowSeconds, claimFor }) {
      if (claimFor && !(await tx.get(records.fenceKey(claimFor.nodeId))))
        throw new ClaimLost(`node ${claimFor.nodeId} is fenced`);
      if (tx.mayHaveCommitted) {
        const [existing, receipt] = await tx.getMany([records.messageKey(input.id), records.receiptKey(input.id)]);
        if (existing) return bornClaims(tx, records.decodeMessage(input.id, existing), input.blob.id, claimFor);
        // An earlier run of this body was committed, and the message has been delivered meanwhile: this node may even have been fenced for it.
        if (receipt) return [];
      }
      const { message, parts, isLater } = newRecords(input, nowSeconds);
      const claimed: ClaimedDestination[] = [];
      for (const part of parts) {
        const line = isLater ? undefined : admission?.lineFor(part.domain, part.traits!);
        if (claimFor && !isLater && line === undefined && claimed.length < queueLimits.maxBornClaimed) {
          const claim: Claim = { ...claimFor, epoch: 1 };
          const destination: Destination = { ...part, state: 'claimed', epoch: 1, claim };
          writeClaimed(tx, destination);
          claimed.push({ message, destination, claim });
          continue;
        }
        const deadlineSeconds = line === undefined ? 0 : Math.ceil(deadlineSecondsOf(message, part));
        writeDue(tx, deadlineSeconds > nowSeconds ? { ...part, line, dueAtSeconds: deadlineSeconds } : part);
      }
      tx.set(records.messageKey(input.id), records.encodeMessage(message));
      countUsage(tx, message, 1);
      // With a claim by birth the message stays until this node knows of it, or leaves a receipt.
      if (claimed.length === 0) tx.set(records.receiptKey(input.id), empty);
      await blobs.linkPrepared(tx, input.blob, { kind: 'queue', queueId: input.id });
      return claimed;
    },

    claim: createClaiming(kv, logger),

    async save(tx, claimed, input) {
      const destination = input.current ?? (await current(tx, claimed));
      return save(tx, claimed.message, destination, input, blobs);
    },

    current,
    currentAll,

    claimsOf: (node, limit, isKnown = () => false) => claimsOf(kv, node, limit, isKnown),

    async release(claimed, dueAtSeconds) {
      for (let at = 0; at < claimed.length; at += maxPerTransaction) {
        const chunk = claimed.slice(at, at + maxPerTransaction);
        await kv.transact(
          async (tx) => {
            for (const destination of await currentAll(tx, chunk)) {
              if (!destination) continue;
              leaveReceipt(tx, destination.queueId, destination.claim);
              tell(tx, destination.queueId, {
                kind: 'freed',
                domain: destination.domain,
                fromNode: destination.claim!.nodeId,
                reason: 'handed-back',
              });
              clearEntries(tx, destination);
              writeDue(tx, asDue(destination, dueAtSeconds));
            }
          },
          { label: 'release' },
        );
      }
      if (claimed.length > 0) announceDue();
    },

    onDue(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    announceDue,

    async forgetReceipts(nowSeconds, assert) {
      const { begin } = records.receiptRange();
      const before = records.receiptKey(firstIdAt((nowSeconds - receiptLifetimeSeconds) * 1000));
      const forget = async (tx: KvTransaction) => {
        await assert?.(tx);
        tx.clearRange(begin, before);
      };
      await kv.transact(forget, { label: 'forget-receipts' });
      await forgetZeroUsage(kv, assert);
    },
  };
}

interface NewRecords {
  message: QueueMessage;
  parts: Destination[];
  /** It is not due yet. */
  isLater: boolean;
}

/** What a new message is kept as. Throws KvError `too-large`. */
function newRecords(input: NewQueueMessage, nowSeconds: number): NewRecords {
  const { blob, destinations, notBeforeSeconds = 0, ...envelope } = input;
  const isLater = notBeforeSeconds > nowSeconds;
  const split = splitIntoParts(input.id, destinations, isLater ? Math.ceil(notBeforeSeconds) : nowSeconds);
  // All destinations of a kind share what is said of their message.
  const local = traitsOf(envelope, true);
  const remote = traitsOf(envelope, false);
  const parts = split.map((part) => ({ ...part, traits: part.isLocal ? local : remote }));
  const message: QueueMessage = { ...envelope, blobId: blob.id, sizeBytes: blob.sizeBytes, partCount: parts.length };
  if (isLater) message.notBeforeSeconds = Math.ceil(notBeforeSeconds);
  return { message, parts, isLater };
}

/** What an enqueue that had been committed already answers: the destinations that were born claimed. */
async function bornClaims(
  tx: KvTransaction,
  message: QueueMessage,
  blobId: string,
  claimFor: NodeIdentity | undefined,
): Promise<ClaimedDestination[]> {
  if (message.blobId !== blobId) throw new Error(`queue id ${message.id} is taken by another message`);
  if (!claimFor) return [];
  const range = records.destinationRange(message.id);
  const claimed: ClaimedDestination[] = [];
  for (const { key, value } of await tx.getRange(range.begin, range.end)) {
    const destination = records.destinationAt(key, value);
    const { claim } = destination;
    if (claim?.nodeId === claimFor.nodeId && claim.epoch === 1) claimed.push({ message, destination, claim });
  }
  return claimed;
}

async function save(
  tx: KvTransaction,
  message: QueueMessage,
  destination: Destination,
  input: SaveInput,
  blobs: BlobStore,
): Promise<SaveOutcome> {
  const results = new Map(input.results.map((result) => [result.address, result]));
  const recipients = destination.recipients.map((recipient) => {
    const result = results.get(recipient.address);
    if (!result || recipient.status !== 'pending') return recipient;
    return {
      ...recipient,
      status: result.status,
      lastReply: result.lastReply ? keptReply(result.lastReply) : recipient.lastReply,
      isDelayNotified: result.isDelayNotified ?? recipient.isDelayNotified,
    };
  });
  const saved: Destination = { ...destination, recipients };
  if (input.attempted) {
    saved.attempts++;
    saved.lastAttemptAtMs = input.attempted.atMs;
  }
  if (!recipients.some(({ status }) => status === 'pending')) {
    const isMessageDone = await removeDestination(tx, message, destination, blobs, input.isLinkedElsewhere);
    return { isDestinationDone: true, isMessageDone };
  }
  if (input.keepClaim) {
    tx.set(records.destinationKey(saved), records.encodeDestination(saved));
  } else {
    if (input.nextDueAtSeconds === undefined) throw new RangeError('recipients are pending: nextDueAtSeconds is needed');
    clearEntries(tx, saved);
    writeDue(tx, asDue(saved, input.nextDueAtSeconds));
  }
  return { isDestinationDone: false, isMessageDone: false };
}

/** Removes a claimed destination, and the message when it was the last one. */
async function removeDestination(
  tx: KvTransaction,
  message: QueueMessage,
  destination: Destination,
  blobs: BlobStore,
  isLinkedElsewhere = false,
) {
  tx.clear(records.destinationKey(destination));
  clearEntries(tx, destination);
  if (message.partCount > 1) {
    // Two that finish at once each read the other's record, so one of them conflicts and finds itself the last when it runs again.
    const { begin, end } = records.destinationRange(message.id);
    if ((await tx.getRange(begin, end, { limit: 1 })).length > 0) return false;
  }
  tx.clear(records.messageKey(message.id));
  countUsage(tx, message, -1);
  blobs.unlink(tx, message.blobId, { kind: 'queue', queueId: message.id }, { isLinkedElsewhere });
  return true;
}
