/**
 * The claims of nodes. A node's fence stands as long as the node may save; the cluster's membership raises and breaks it. Whoever declares a node
 * dead breaks the fence first; only then are its claims freed here, with higher epochs (DESIGN 3.5, TRAPS 11).
 */
import type { Logger } from '../../ops/telemetry/index.js';
import { type KeyRange, keyItems } from '../keyspace.js';
import { type KvStore, type KvTransaction, keyAfter } from '../kv/contract.js';
import type { Claim, Destination, Queue } from './contract.js';
import { asDue, writeDue } from './entries.js';
import * as records from './records.js';
import type { Tell } from './tell.js';

/** Destination records are up to 90 kB and are read and written: this many of the largest stay under 10 MB. */
const maxReleasedPerTransaction = 50;
const countPage = 1000;

export type QueueNodes = Pick<Queue, 'releaseClaimsOf' | 'claimHolders' | 'countClaimsOf'>;

/**
 * To be called where a claim is taken from whoever was born with it, or given back unworked: the enqueue that wrote it may not know yet that it was
 * committed, and must find a trace of its message when it runs again, also when somebody else has delivered it meanwhile.
 */
export function leaveReceipt(tx: KvTransaction, queueId: string, claim: Claim | undefined): void {
  if (claim?.epoch === 1) tx.set(records.receiptKey(queueId), Buffer.alloc(0));
}

/** Undefined for a record that this node can't read: it is left, claim and all, for a node that can. */
function readDestination(ref: records.DestinationRef, value: Buffer): Destination | undefined {
  try {
    return records.decodeDestination(ref, value);
  } catch {
    return undefined;
  }
}

export function createQueueNodes(kv: KvStore, announceDue: () => void, logger: Logger, tell: Tell = () => {}): QueueNodes {
  return {
    claimHolders() {
      return kv.read(
        async (reads) => {
          const holders: string[] = [];
          let { begin, end }: KeyRange = records.allClaimsRange();
          for (;;) {
            const [first] = await reads.getRange(begin, end, { limit: 1 });
            if (!first) return holders;
            const nodeId = keyItems(first.key)[2] as string;
            holders.push(nodeId);
            // Over all its other claims to the next node's.
            begin = records.claimRange(nodeId).end;
          }
        },
        { label: 'claim-holders' },
      );
    },

    countClaimsOf(nodeId, limit) {
      return kv.read(
        async (reads) => {
          let { begin, end } = records.claimRange(nodeId);
          for (let count = 0; ; ) {
            const page = await reads.getRange(begin, end, { limit: Math.min(countPage, limit - count) });
            count += page.length;
            if (page.length < countPage || count >= limit) return count;
            begin = keyAfter(page.at(-1)!.key);
          }
        },
        { label: 'claim-count' },
      );
    },

    async releaseClaimsOf(nodeId, nowSeconds, limit = maxReleasedPerTransaction) {
      let { begin, end } = records.claimRange(nodeId);
      for (;;) {
        const page = await kv.transact((tx) => releasePage(tx, nodeId, { begin, end }, nowSeconds, limit, tell), {
          label: 'take-over',
        });
        if (page.unreadable.length > 0)
          logger.error({ deadNodeId: nodeId, queueIds: page.unreadable }, 'claims on queue records that this node can not read');
        if (page.released > 0) announceDue();
        if (page.released > 0 || !page.last) return page.released;
        // What can't be read must not keep what comes after it from being freed.
        begin = keyAfter(page.last);
      }
    },
  };
}

interface ReleasedPage {
  released: number;
  unreadable: string[];
  /** The last claim that was looked at; undefined when there was none. */
  last: Buffer | undefined;
}

/** One transaction's worth of claims in `range`. */
async function releasePage(
  tx: KvTransaction,
  nodeId: string,
  range: KeyRange,
  nowSeconds: number,
  limit: number,
  tell: Tell,
): Promise<ReleasedPage> {
  if (await tx.get(records.fenceKey(nodeId))) throw new Error(`the fence of ${nodeId} still stands`);
  const claims = await tx.getRange(range.begin, range.end, { limit: Math.min(limit, maxReleasedPerTransaction) });
  const page: ReleasedPage = { released: 0, unreadable: [], last: claims.at(-1)?.key };
  const refs = claims.map(({ key }) => records.claimedRef(key));
  const values = await tx.getMany(refs.map(records.destinationKey));
  for (const [i, ref] of refs.entries()) {
    const value = values[i];
    const destination = value && readDestination(ref, value);
    if (value && !destination) {
      page.unreadable.push(ref.queueId);
      continue;
    }
    tx.clear(claims[i]!.key);
    page.released++;
    if (destination?.state !== 'claimed' || destination.claim?.nodeId !== nodeId) continue;
    leaveReceipt(tx, ref.queueId, destination.claim);
    // It was due before: a clock that is far ahead must not make it wait.
    const dueAtSeconds = Math.min(nowSeconds, destination.dueAtSeconds);
    writeDue(tx, asDue({ ...destination, epoch: destination.epoch + 1 }, dueAtSeconds));
    tell(tx, ref.queueId, { kind: 'freed', domain: ref.domain, fromNode: nodeId, reason: 'dead' });
  }
  return page;
}
