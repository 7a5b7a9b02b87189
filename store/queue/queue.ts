/**
 * The queue's way of a message: enqueue, due, claim, save, release. What must be true after every commit: a destination is due (one due entry),
 * claimed (one claim entry) or held (neither); a message record exists exactly as long as one of its destinations does.
 */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import { counter } from '../../ops/telemetry/index.js';
import type { BlobStore } from '../blobs/contract.js';
import { type KeyValue, type KvStore, type KvTransaction, keyAfter } from '../kv/contract.js';
import {
  type Claim,
  type ClaimedDestination,
  ClaimLost,
  type Destination,
  type DueEntry,
  type NodeIdentity,
  type Queue,
  type QueueMessage,
  queueLimits,
  type SaveInput,
  type SaveOutcome,
} from './contract.js';
import { createQueueIds, firstIdAt } from './ids.js';
import { createQueueNodes, leaveReceipt } from './nodes.js';
import { createQueueOperators } from './operators.js';
import { keptReply, splitIntoParts } from './parts.js';
import * as records from './records.js';

const claimsTotal = counter<'result'>(
  'starling_queue_claims_total',
  'Claims: won, lost to another node, stale due entry removed, record that this node can not read',
  ['result'],
);

const empty = Buffer.alloc(0);
/** 50 records of 90 kB are read and written in one transaction. */
const maxPerTransaction = 50;
/** Longer than any transaction is tried again. */
const receiptLifetimeSeconds = 3600;

export interface QueueDependencies {
  kv: KvStore;
  blobs: BlobStore;
  clock: Clock;
  random: Random;
  logger: Logger;
}

export function createQueue({ kv, blobs, clock, random, logger }: QueueDependencies): Queue {
  const listeners = new Set<() => void>();
  const announceDue = () => {
    for (const listener of listeners) listener();
  };

  let claiming: Promise<unknown> = Promise.resolve();

  async function claimAll(node: NodeIdentity, entries: readonly DueEntry[]): Promise<ClaimedDestination[]> {
    const won: ClaimedDestination[] = [];
    for (let at = 0; at < entries.length; at += maxPerTransaction) {
      const chunk = entries.slice(at, at + maxPerTransaction);
      const tried = new Map<DueEntry, number>();
      const outcome = await kv.transact((tx) => claimChunk(tx, node, chunk, tried), { label: 'claim' });
      claimsTotal.inc({ result: 'won' }, outcome.claimed.length);
      claimsTotal.inc({ result: 'lost' }, outcome.lost);
      claimsTotal.inc({ result: 'stale' }, outcome.stale);
      claimsTotal.inc({ result: 'unreadable' }, outcome.unreadable.length);
      if (outcome.unreadable.length > 0)
        logger.error({ queueIds: outcome.unreadable }, 'queue records that this node can not read');
      if (outcome.orphans.length > 0) logger.error({ orphans: outcome.orphans }, 'queue destinations without a message removed');
      for (const one of outcome.claimed) won.push(one);
    }
    return won;
  }

  return {
    newId: createQueueIds(clock, random),
    ...createQueueNodes(kv, announceDue, logger),
    ...createQueueOperators(kv, blobs, announceDue),

    async enqueue(tx, input, { nowSeconds, claimFor }) {
      const { blob, destinations, ...envelope } = input;
      if (claimFor && !(await tx.get(records.fenceKey(claimFor.nodeId))))
        throw new ClaimLost(`node ${claimFor.nodeId} is fenced`);
      if (tx.mayHaveCommitted) {
        const [existing, receipt] = await tx.getMany([records.messageKey(input.id), records.receiptKey(input.id)]);
        if (existing) return bornClaims(tx, records.decodeMessage(input.id, existing), blob.id, claimFor);
        // An earlier run of this body was committed, and the message has been delivered meanwhile: this node may even have been fenced for it.
        if (receipt) return [];
      }

      const parts = splitIntoParts(input.id, destinations, nowSeconds);
      const message: QueueMessage = { ...envelope, blobId: blob.id, sizeBytes: blob.sizeBytes, partCount: parts.length };
      const claimed: ClaimedDestination[] = [];
      for (const part of parts) {
        if (claimFor && claimed.length < queueLimits.maxBornClaimed) {
          const claim: Claim = { ...claimFor, epoch: 1 };
          const destination: Destination = { ...part, state: 'claimed', epoch: 1, claim };
          writeClaimed(tx, destination);
          claimed.push({ message, destination, claim });
        } else {
          tx.set(records.destinationKey(part), records.encodeDestination(part));
          tx.set(records.dueKey(part, nowSeconds), empty);
        }
      }
      tx.set(records.messageKey(input.id), records.encodeMessage(message));
      if (!claimFor) tx.set(records.receiptKey(input.id), empty);
      await blobs.linkPrepared(tx, blob, { kind: 'queue', queueId: input.id });
      return claimed;
    },

    due: (shards, nowSeconds, limit) => dueEntries(kv, shards, nowSeconds, limit),

    claim(node, entries) {
      // One at a time, so that a claim of this node that an unknown commit left behind is known to be this call's own.
      const claimed = claiming.then(() => claimAll(node, entries));
      claiming = claimed.catch(() => {});
      return claimed;
    },

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
              writeDue(tx, destination, dueAtSeconds);
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
    },
  };
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

/** Due entries of the shards, read in parallel; each shard gives its share first, then those with more fill up what is left. */
async function dueEntries(kv: KvStore, shards: readonly number[], nowSeconds: number, limit: number) {
  return kv.read(
    async (reads) => {
      const entries: DueEntry[] = [];
      let nextDueAtSeconds: number | undefined;
      let open = shards.map((shard) => ({ ...records.shardRange(shard) }));
      while (open.length > 0 && entries.length < limit) {
        // One more than the share: it tells whether there is more, or when the next one is due.
        const share = Math.ceil((limit - entries.length) / open.length);
        const pages = await Promise.all(open.map(({ begin, end }) => reads.getRange(begin, end, { limit: share + 1 })));
        const more: typeof open = [];
        for (const [i, page] of pages.entries()) {
          const found = page.map(({ key }) => records.dueEntry(key));
          const firstLater = found.findIndex((entry) => entry.dueAtSeconds > nowSeconds);
          if (firstLater >= 0) {
            nextDueAtSeconds = Math.min(nextDueAtSeconds ?? Number.POSITIVE_INFINITY, found[firstLater]!.dueAtSeconds);
            found.length = firstLater;
          } else if (found.length > share) {
            more.push({ begin: page[share]!.key, end: open[i]!.end });
            found.length = share;
          }
          for (const entry of found) entries.push(entry);
        }
        open = more;
      }
      if (open.length > 0) nextDueAtSeconds = nowSeconds;
      entries.length = Math.min(entries.length, limit);
      return { entries, nextDueAtSeconds };
    },
    { label: 'due' },
  );
}

interface ChunkOutcome {
  claimed: ClaimedDestination[];
  lost: number;
  stale: number;
  orphans: string[];
  unreadable: string[];
}

/** `tried`: epochs that earlier runs of this body wrote, for the case that one of them was committed after all. */
async function claimChunk(
  tx: KvTransaction,
  node: NodeIdentity,
  entries: readonly DueEntry[],
  tried: Map<DueEntry, number>,
): Promise<ChunkOutcome> {
  const outcome: ChunkOutcome = { claimed: [], lost: 0, stale: 0, orphans: [], unreadable: [] };
  const [fence, ...values] = await tx.getMany([
    records.fenceKey(node.nodeId),
    ...entries.map(records.destinationKey),
    ...entries.map((entry) => records.messageKey(entry.queueId)),
    ...entries.map((entry) => records.dueKey(entry, entry.dueAtSeconds)),
  ]);
  if (!fence) throw new ClaimLost(`node ${node.nodeId} is fenced`);
  const messages = new Map<string, QueueMessage>();
  for (const [i, entry] of entries.entries()) {
    const value = values[i];
    const messageValue = values[entries.length + i];
    const record = readRecords(messages, entry, value, messageValue);
    if (record === 'unreadable') {
      outcome.unreadable.push(entry.queueId);
      continue;
    }
    const { destination, message } = record;
    if (!destination || !message) {
      // TRAPS 13: an entry whose message is gone would be read by every scan of every node.
      tx.clear(records.dueKey(entry, entry.dueAtSeconds));
      outcome.stale++;
      if (destination) {
        tx.clear(records.destinationKey(entry));
        if (destination.claim) tx.clear(records.claimKey(destination.claim.nodeId, entry));
        outcome.orphans.push(entry.queueId);
      }
      continue;
    }
    const isDue = destination.state === 'due' && destination.dueAtSeconds === entry.dueAtSeconds;
    const own = destination.claim?.nodeId === node.nodeId && destination.claim.epoch === tried.get(entry);
    if (isDue) {
      const claim: Claim = { ...node, epoch: destination.epoch + 1 };
      tried.set(entry, claim.epoch);
      const mine: Destination = { ...destination, state: 'claimed', epoch: claim.epoch, claim };
      tx.clear(records.dueKey(entry, entry.dueAtSeconds));
      writeClaimed(tx, mine);
      outcome.claimed.push({ message, destination: mine, claim });
    } else if (own) {
      const { claim } = destination;
      outcome.claimed.push({ message, destination, claim: claim! });
    } else if (values[entries.length * 2 + i]) {
      tx.clear(records.dueKey(entry, entry.dueAtSeconds));
      outcome.stale++;
    } else {
      outcome.lost++;
    }
  }
  return outcome;
}

/**
 * What these values say; `unreadable` when this node can't read them (damaged, or written by a newer version): they are left for whoever can, and must not
 * stop the others.
 */
function readRecords(
  known: Map<string, QueueMessage>,
  ref: records.DestinationRef,
  destinationValue: Buffer | undefined,
  messageValue: Buffer | undefined,
): { destination?: Destination; message?: QueueMessage } | 'unreadable' {
  try {
    const destination = destinationValue && records.decodeDestination(ref, destinationValue);
    let message = known.get(ref.queueId);
    if (!message && messageValue) known.set(ref.queueId, (message = records.decodeMessage(ref.queueId, messageValue)));
    return { destination, message };
  } catch {
    return 'unreadable';
  }
}

async function claimsOf(
  kv: KvStore,
  node: NodeIdentity,
  limit: number,
  isKnown: (ref: records.DestinationRef) => boolean,
): Promise<ClaimedDestination[]> {
  const { begin, end } = records.claimRange(node.nodeId);
  return kv.read(
    async (reads) => {
      const refs: records.DestinationRef[] = [];
      let from = begin;
      let page: KeyValue[];
      do {
        page = await reads.getRange(from, end, { limit: 500 });
        if (page.length > 0) from = keyAfter(page.at(-1)!.key);
        refs.push(...page.map(({ key }) => records.claimedRef(key)).filter((ref) => !isKnown(ref)));
      } while (page.length === 500 && refs.length < limit);
      refs.length = Math.min(refs.length, limit);
      const values = await reads.getMany([
        ...refs.map(records.destinationKey),
        ...refs.map(({ queueId }) => records.messageKey(queueId)),
      ]);
      const claims: ClaimedDestination[] = [];
      const messages = new Map<string, QueueMessage>();
      for (const [i, ref] of refs.entries()) {
        const record = readRecords(messages, ref, values[i], values[refs.length + i]);
        if (record === 'unreadable' || !record.destination || !record.message) continue;
        const { destination, message } = record;
        if (destination.claim) claims.push({ message, destination, claim: destination.claim });
      }
      return claims;
    },
    { label: 'own-claims' },
  );
}

async function current(tx: KvTransaction, claimed: ClaimedDestination): Promise<Destination> {
  const [destination] = await currentAll(tx, [claimed]);
  if (!destination) throw new ClaimLost(`claim on ${claimed.message.id} ${claimed.destination.domain} is lost`);
  return destination;
}

async function currentAll(tx: KvTransaction, claimed: readonly ClaimedDestination[]): Promise<(Destination | undefined)[]> {
  const nodes = [...new Set(claimed.map(({ claim }) => claim.nodeId))];
  const values = await tx.getMany([
    ...claimed.map(({ destination }) => records.destinationKey(destination)),
    ...nodes.map(records.fenceKey),
  ]);
  return claimed.map(({ destination: ref, claim }, i) => {
    const value = values[i];
    const fence = values[claimed.length + nodes.indexOf(claim.nodeId)];
    if (!value || !fence) return undefined;
    const destination = records.decodeDestination(ref, value);
    const isOurs = destination.claim?.nodeId === claim.nodeId && destination.claim.epoch === claim.epoch;
    return destination.state === 'claimed' && isOurs ? destination : undefined;
  });
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
    writeDue(tx, saved, input.nextDueAtSeconds);
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
  if (destination.claim) tx.clear(records.claimKey(destination.claim.nodeId, destination));
  if (message.partCount > 1) {
    // Two that finish at once each read the other's record, so one of them conflicts and finds itself the last when it runs again.
    const { begin, end } = records.destinationRange(message.id);
    if ((await tx.getRange(begin, end, { limit: 1 })).length > 0) return false;
  }
  tx.clear(records.messageKey(message.id));
  blobs.unlink(tx, message.blobId, { kind: 'queue', queueId: message.id }, { isLinkedElsewhere });
  return true;
}

function writeClaimed(tx: KvTransaction, destination: Destination): void {
  const claim = destination.claim!;
  const epoch = Buffer.allocUnsafe(4);
  epoch.writeUInt32BE(claim.epoch);
  tx.set(records.destinationKey(destination), records.encodeDestination(destination));
  tx.set(records.claimKey(claim.nodeId, destination), epoch);
}

/** Turns a claimed destination into a due one. */
function writeDue(tx: KvTransaction, claimed: Destination, dueAtSeconds: number): void {
  const { claim, ...rest } = claimed;
  if (claim) tx.clear(records.claimKey(claim.nodeId, claimed));
  const due: Destination = { ...rest, state: 'due', dueAtSeconds: Math.ceil(dueAtSeconds) };
  tx.set(records.destinationKey(due), records.encodeDestination(due));
  tx.set(records.dueKey(due, due.dueAtSeconds), empty);
}
