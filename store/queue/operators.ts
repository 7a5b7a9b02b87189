/** What operators ask of the queue: list, show, retry, hold, cancel, counts. */
import type { BlobStore } from '../blobs/contract.js';
import { keyItems } from '../keyspace.js';
import { type KvReads, type KvStore, type KvTransaction, keyAfter } from '../kv/contract.js';
import type { Destination, Queue, QueueId } from './contract.js';
import * as records from './records.js';
import { allShards } from './shards.js';

const empty = Buffer.alloc(0);

type QueueOperators = Pick<Queue, 'list' | 'show' | 'retryNow' | 'hold' | 'unhold' | 'cancel' | 'counts'>;

export function createQueueOperators(kv: KvStore, blobs: BlobStore, announceDue: () => void): QueueOperators {
  /** Moves every destination in state `from` on; answers how many. */
  async function change(id: QueueId, label: string, from: Destination['state'], to: 'due' | 'held', nowSeconds: number) {
    const count = await kv.transact(
      async (tx) => {
        const chosen = (await destinationsOf(tx, id)).filter(({ state }) => state === from);
        for (const destination of chosen) {
          if (from === 'due') tx.clear(records.dueKey(destination, destination.dueAtSeconds));
          const dueAtSeconds = to === 'due' ? nowSeconds : destination.dueAtSeconds;
          tx.set(records.destinationKey(destination), records.encodeDestination({ ...destination, state: to, dueAtSeconds }));
          if (to === 'due') tx.set(records.dueKey(destination, nowSeconds), empty);
        }
        return chosen.length;
      },
      { label },
    );
    if (to === 'due' && count > 0) announceDue();
    return count;
  }

  return {
    async list({ afterQueueId, limit = 100 } = {}) {
      const { begin, end } = records.messageRange();
      const from = afterQueueId === undefined ? begin : keyAfter(records.messageKey(afterQueueId));
      return kv.read(async (reads) => {
        const found = await reads.getRange(from, end, { limit });
        return Promise.all(
          found.map(async ({ key, value }) => {
            const id = keyItems(key)[2] as string;
            return { message: records.decodeMessage(id, value), destinations: await destinationsOf(reads, id) };
          }),
        );
      });
    },

    async show(id) {
      return kv.read(async (reads) => {
        const value = await reads.get(records.messageKey(id));
        return value && { message: records.decodeMessage(id, value), destinations: await destinationsOf(reads, id) };
      });
    },

    retryNow: (id, nowSeconds) => change(id, 'retry-now', 'due', 'due', nowSeconds),
    hold: (id) => change(id, 'hold', 'due', 'held', 0),
    unhold: (id, nowSeconds) => change(id, 'unhold', 'held', 'due', nowSeconds),

    async cancel(id) {
      return kv.transact(
        async (tx) => {
          const value = await tx.get(records.messageKey(id));
          if (!value) return false;
          for (const destination of await destinationsOf(tx, id)) {
            tx.clear(records.destinationKey(destination));
            if (destination.state === 'due') tx.clear(records.dueKey(destination, destination.dueAtSeconds));
            if (destination.claim) tx.clear(records.claimKey(destination.claim.nodeId, destination));
          }
          tx.clear(records.messageKey(id));
          // Nor must an enqueue whose commit is unknown bring it back.
          tx.set(records.receiptKey(id), empty);
          blobs.unlink(tx, records.decodeMessage(id, value).blobId, { kind: 'queue', queueId: id });
          return true;
        },
        { label: 'cancel' },
      );
    },

    async counts(nowSeconds, limitPerShard = 1000) {
      return kv.read(
        async (reads) => {
          const claims = records.allClaimsRange();
          const claimLimit = limitPerShard * 8;
          const [claimed, ...shards] = await Promise.all([
            reads.getRange(claims.begin, claims.end, { limit: claimLimit }),
            ...allShards.map((shard) => {
              const { begin, end } = records.shardRange(shard);
              return reads.getRange(begin, end, { limit: limitPerShard });
            }),
          ]);
          let dueNow = 0;
          let scheduled = 0;
          for (const shard of shards) {
            for (const { key } of shard) {
              if (records.dueEntry(key).dueAtSeconds <= nowSeconds) dueNow++;
              else scheduled++;
            }
          }
          const isComplete = claimed.length < claimLimit && shards.every(({ length }) => length < limitPerShard);
          return { dueNow, scheduled, claimed: claimed.length, isComplete };
        },
        { label: 'queue-counts' },
      );
    },
  };
}

async function destinationsOf(reads: KvReads | KvTransaction, id: QueueId): Promise<Destination[]> {
  const { begin, end } = records.destinationRange(id);
  return (await reads.getRange(begin, end)).map(({ key, value }) => records.destinationAt(key, value));
}
