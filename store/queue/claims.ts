/** Claims: winning due entries and places in lines, finding what a node holds, and asserting a claim before anything is done under it. */
import type { Logger } from '../../ops/telemetry/index.js';
import { counter } from '../../ops/telemetry/index.js';
import { type KeyValue, type KvStore, type KvTransaction, keyAfter } from '../kv/contract.js';
import {
  type Claim,
  type ClaimedDestination,
  ClaimLost,
  type Destination,
  type DueEntry,
  type LineEntry,
  type NodeIdentity,
  type QueueMessage,
} from './contract.js';
import { clearEntries, clearLeftBehind, clearStale, keyOf, leadsTo, traitsOf, writeClaimed } from './entries.js';
import * as records from './records.js';

const claimsTotal = counter<'result'>(
  'starling_queue_claims_total',
  'Claims: won, lost to another node, stale due entry removed, record that this node can not read',
  ['result'],
);

/** 50 records of 90 kB are read and written in one transaction. */
export const maxPerTransaction = 50;

export type AnyEntry = DueEntry | LineEntry;

/** Claims these, one call at a time, so that a claim of this node that an unknown commit left behind is known to be this call's own. */
export function createClaiming(kv: KvStore, logger: Logger) {
  let claiming: Promise<unknown> = Promise.resolve();

  async function claimAll(node: NodeIdentity, entries: readonly AnyEntry[]): Promise<ClaimedDestination[]> {
    const won: ClaimedDestination[] = [];
    for (let at = 0; at < entries.length; at += maxPerTransaction) {
      const chunk = entries.slice(at, at + maxPerTransaction);
      const tried = new Map<AnyEntry, number>();
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

  return (node: NodeIdentity, entries: readonly AnyEntry[]): Promise<ClaimedDestination[]> => {
    const claimed = claiming.then(() => claimAll(node, entries));
    claiming = claimed.catch(() => {});
    return claimed;
  };
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
  entries: readonly AnyEntry[],
  tried: Map<AnyEntry, number>,
): Promise<ChunkOutcome> {
  const outcome: ChunkOutcome = { claimed: [], lost: 0, stale: 0, orphans: [], unreadable: [] };
  const [fence, ...values] = await tx.getMany([
    records.fenceKey(node.nodeId),
    ...entries.map(records.destinationKey),
    ...entries.map((entry) => records.messageKey(entry.queueId)),
  ]);
  /** They don't stand for what their destinations are now: whoever was quicker has cleared them, or nobody will. */
  const beaten: AnyEntry[] = [];
  if (!fence) throw new ClaimLost(`node ${node.nodeId} is fenced`);
  const messages = new Map<string, QueueMessage>();
  for (const [i, entry] of entries.entries()) {
    const record = readRecords(messages, entry, values[i], values[entries.length + i]);
    if (record === 'unreadable') {
      outcome.unreadable.push(entry.queueId);
      continue;
    }
    const { destination, message } = record;
    if (!destination || !message) {
      // TRAPS 13: an entry whose message is gone would be read by every scan of every node.
      clearStale(tx, entry);
      outcome.stale++;
      if (destination) {
        tx.clear(records.destinationKey(entry));
        clearEntries(tx, destination);
        outcome.orphans.push(entry.queueId);
      }
      continue;
    }
    const isForced = 'isForced' in entry && entry.isForced ? { isForced: true } : {};
    if (leadsTo(entry, destination)) {
      const claim: Claim = { ...node, epoch: destination.epoch + 1 };
      tried.set(entry, claim.epoch);
      clearEntries(tx, destination);
      const { line: _line, ...rest } = destination;
      // Nodes of an earlier release leave no traits: from here on it has them again.
      const traits = destination.traits ?? traitsOf(message, destination.isLocal);
      const mine: Destination = { ...rest, traits, state: 'claimed', epoch: claim.epoch, claim };
      writeClaimed(tx, mine);
      outcome.claimed.push({ message, destination: mine, claim, ...isForced });
    } else if (destination.claim?.nodeId === node.nodeId && destination.claim.epoch === tried.get(entry)) {
      outcome.claimed.push({ message, destination, claim: destination.claim, ...isForced });
    } else beaten.push(entry);
  }
  if (beaten.length > 0) await clearBeaten(tx, beaten, outcome);
  return outcome;
}

/** Losing a race is cheap: only what is still there is cleared. */
async function clearBeaten(tx: KvTransaction, entries: readonly AnyEntry[], outcome: ChunkOutcome): Promise<void> {
  const values = await tx.getMany(entries.map(keyOf));
  for (const [i, entry] of entries.entries()) {
    if (values[i]) {
      clearStale(tx, entry);
      outcome.stale++;
      continue;
    }
    // What a node of an earlier release has claimed leaves its express entry behind.
    if (entry.traits?.isExpress) await clearLeftBehind(tx, entry);
    outcome.lost++;
  }
}

/**
 * What these values say; `unreadable` when this node can't read them (damaged, or written by a newer version): they are left for whoever can, and must not
 * stop the others.
 */
export function readRecords(
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

/** Claims that the store holds under a node (`Queue.claimsOf`). */
export async function claimsOf(
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

/** The destination as it is now; throws ClaimLost where claim or fence are gone. */
export async function current(tx: KvTransaction, claimed: ClaimedDestination): Promise<Destination> {
  const [destination] = await currentAll(tx, [claimed]);
  if (!destination) throw new ClaimLost(`claim on ${claimed.message.id} ${claimed.destination.domain} is lost`);
  return destination;
}

export async function currentAll(
  tx: KvTransaction,
  claimed: readonly ClaimedDestination[],
): Promise<(Destination | undefined)[]> {
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
