/** What operators do with the queue: list and search it, retry, hold, cancel, reroute, one message or all that a filter means. */
import type { Clock, Logger } from '../../ops/telemetry/index.js';
import type { BlobStore } from '../blobs/contract.js';
import { type KeyRange, keyItems } from '../keyspace.js';
import { type KvReads, type KvStore, type KvTransaction, keyAfter } from '../kv/contract.js';
import { applyAction, type Change } from './actions.js';
import type { Destination, Queue, QueuedMessage, QueueFilter, QueueId, QueueMessage } from './contract.js';
import { meansDestination, meansMessage } from './filter.js';
import * as records from './records.js';
import { allShards } from './shards.js';
import type { Tell } from './tell.js';

type QueueOperators = Pick<
  Queue,
  'list' | 'search' | 'show' | 'change' | 'changeAll' | 'retryNow' | 'hold' | 'unhold' | 'cancel' | 'counts'
>;

const messagesPerPage = 100;
const defaultMaxRead = 1000;
/** Changed in one transaction; a single message may have more. */
const destinationsPerTransaction = 100;

interface OperatorDependencies {
  kv: KvStore;
  blobs: BlobStore;
  clock: Pick<Clock, 'nowMs'>;
  announceDue: () => void;
  logger: Logger;
  tell: Tell;
}

export function createQueueOperators({ kv, blobs, clock, announceDue, logger, tell }: OperatorDependencies): QueueOperators {
  const change = async (changes: readonly Change[], filter: QueueFilter): Promise<number> => {
    const atMs = clock.nowMs();
    const count = await kv.transact(
      async (tx) => {
        let changed = 0;
        for (const one of changes) changed += await changeOne(tx, one, filter, atMs);
        return changed;
      },
      { label: 'operate' },
    );
    if (count > 0) announceDue();
    return count;
  };

  async function changeOne(tx: KvTransaction, one: Change, filter: QueueFilter, atMs: number): Promise<number> {
    const value = await tx.get(records.messageKey(one.id));
    if (!value) return 0;
    const message = records.decodeMessage(one.id, value);
    if (!meansMessage(filter, message)) return 0;
    const destinations = await destinationsOf(tx, one.id);
    const meant = destinations.filter((destination) => meansDestination(filter, destination));
    const changed = applyAction(tx, blobs, { message, destinations, meant }, one);
    if (changed > 0) tell(tx, one.id, { kind: 'operator', action: one.action.kind, by: one.by ?? '', note: one.note }, atMs);
    return changed;
  }

  /** Up to `maxRead` messages after this one, page by page, those that can be read. */
  async function* pages(after: QueueId | undefined, maxRead: number, perPage = messagesPerPage) {
    const { begin, end } = records.messageRange();
    let from = after === undefined ? begin : keyAfter(records.messageKey(after));
    for (let read = 0; read < maxRead; ) {
      const limit = Math.min(perPage, maxRead - read);
      const page = await kv.read((reads) => reads.getRange(from, end, { limit }), { label: 'queue-list' });
      const messages = page.flatMap(({ key, value }) => {
        const id = keyItems(key)[2] as string;
        try {
          return [records.decodeMessage(id, value)];
        } catch (error) {
          logger.warn({ queueId: id, err: error }, 'left out of a list: this node can not read it');
          return [];
        }
      });
      const last = page.at(-1);
      yield { messages, last: last && (keyItems(last.key)[2] as string), isEnd: page.length < limit };
      if (!last || page.length < limit) return;
      read += page.length;
      from = keyAfter(last.key);
    }
  }

  const withDestinations = (messages: readonly QueueMessage[]): Promise<QueuedMessage[]> =>
    kv.read(
      (reads) =>
        Promise.all(messages.map(async (message) => ({ message, destinations: await destinationsOf(reads, message.id) }))),
      { label: 'queue-list' },
    );

  const byId = (id: QueueId, kind: 'retry' | 'hold' | 'unhold', nowSeconds: number) =>
    change([{ id, action: { kind }, nowSeconds, isForced: true }], {});

  return {
    async list({ afterQueueId, limit = 100 } = {}) {
      const found: QueuedMessage[] = [];
      for await (const { messages } of pages(afterQueueId, limit)) found.push(...(await withDestinations(messages)));
      return found;
    },

    async search({ filter, afterQueueId, limit = 100, maxRead = defaultMaxRead }) {
      const found: QueuedMessage[] = [];
      let readOnAfter: QueueId | undefined;
      for await (const page of pages(afterQueueId, maxRead)) {
        const likely = page.messages.filter((message) => meansMessage(filter, message));
        for (const one of await withDestinations(likely)) {
          if (!one.destinations.some((destination) => meansDestination(filter, destination))) continue;
          found.push(one);
          if (found.length >= limit) return { found, readOnAfter: one.message.id };
        }
        readOnAfter = page.isEnd ? undefined : page.last;
      }
      return { found, readOnAfter };
    },

    async show(id) {
      return kv.read(async (reads) => {
        const value = await reads.get(records.messageKey(id));
        return value && { message: records.decodeMessage(id, value), destinations: await destinationsOf(reads, id) };
      });
    },

    change: (id, action, { domain, ...facts }) => change([{ id, action, ...facts, isForced: true }], { domain }),

    async changeAll({ filter, action, afterQueueId, maxRead = defaultMaxRead, nowSeconds, by, note }) {
      let changed = 0;
      let readOnAfter: QueueId | undefined;
      for await (const page of pages(afterQueueId, maxRead)) {
        let batch: Change[] = [];
        let size = 0;
        const flush = async () => {
          if (batch.length > 0) changed += await change(batch, filter);
          batch = [];
          size = 0;
        };
        for (const message of page.messages) {
          if (!meansMessage(filter, message)) continue;
          if (size + message.partCount > destinationsPerTransaction) await flush();
          batch.push({ id: message.id, action, nowSeconds, by, note });
          size += message.partCount;
        }
        await flush();
        readOnAfter = page.isEnd ? undefined : page.last;
      }
      return { changed, readOnAfter };
    },

    retryNow: (id, nowSeconds) => byId(id, 'retry', nowSeconds),
    hold: (id) => byId(id, 'hold', 0),
    unhold: (id, nowSeconds) => byId(id, 'unhold', nowSeconds),
    cancel: async (id) => (await change([{ id, action: { kind: 'cancel' }, nowSeconds: 0 }], {})) > 0,
    counts: (nowSeconds, limitPerShard = 1000) => counts(kv, nowSeconds, limitPerShard),
  };
}

/** Rows of one range in memory while they are counted: with a long queue all that are counted would be tens of megabytes. */
const rowsCountedAtOnce = 1000;
const shardsCountedAtOnce = 4;

/** How many rows a range has, up to `limit`. */
async function countRange(reads: KvReads, { begin, end }: KeyRange, limit: number): Promise<number> {
  let from = begin;
  for (let count = 0; ; ) {
    const rows = await reads.getRange(from, end, { limit: Math.min(rowsCountedAtOnce, limit - count) });
    count += rows.length;
    if (rows.length < rowsCountedAtOnce || count >= limit) return count;
    from = keyAfter(rows.at(-1)!.key);
  }
}

/** Index entries only, so many of each shard. */
function counts(kv: KvStore, nowSeconds: number, limitPerShard: number): ReturnType<Queue['counts']> {
  return kv.read(
    async (reads) => {
      const claimLimit = limitPerShard * 8;
      const claimed = await countRange(reads, records.allClaimsRange(), claimLimit);
      const waiting = await countRange(reads, records.allLinesRange(), claimLimit);
      let dueNow = 0;
      let scheduled = 0;
      let isComplete = claimed < claimLimit && waiting < claimLimit;
      const countShard = async (shard: number) => {
        const { begin, end } = records.shardRange(shard);
        const later = records.dueEnd(shard, nowSeconds);
        const due = await countRange(reads, { begin, end: later }, limitPerShard);
        const rest = due < limitPerShard ? await countRange(reads, { begin: later, end }, limitPerShard - due) : 0;
        dueNow += due;
        scheduled += rest;
        if (due + rest === limitPerShard) isComplete = false;
      };
      for (let from = 0; from < allShards.length; from += shardsCountedAtOnce)
        await Promise.all(allShards.slice(from, from + shardsCountedAtOnce).map(countShard));
      return { dueNow, scheduled, waiting, claimed, isComplete };
    },
    { label: 'queue-counts' },
  );
}

async function destinationsOf(reads: KvReads | KvTransaction, id: QueueId): Promise<Destination[]> {
  const { begin, end } = records.destinationRange(id);
  return (await reads.getRange(begin, end)).map(({ key, value }) => records.destinationAt(key, value));
}
