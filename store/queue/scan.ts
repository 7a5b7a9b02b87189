/** Looks at what is due and at lines: index entries only, no records; each look reads a bounded number of them, however long the queue is. */
import { type KeyRange, keyItems } from '../keyspace.js';
import type { KeyValue, KvReads, KvStore } from '../kv/contract.js';
import type { DueEntry, LineEntry, Queue } from './contract.js';
import { dueEntry, lineEntry } from './entries.js';
import * as records from './records.js';

/** Of a look, for what has priority: the rest is for all others, so that they are never kept out. */
const expressShare = 0.75;

export type QueueScan = Pick<Queue, 'due' | 'lines' | 'lineEntries'>;

export function createQueueScan(kv: KvStore): QueueScan {
  return {
    due: (shards, nowSeconds, limit) =>
      kv.read((reads) => due(reads, shards, nowSeconds, limit), {
        label: 'due',
      }),

    lines: (after, limit) =>
      kv.read(
        async (reads) => {
          const names: string[] = [];
          const { begin, end } = records.allLinesRange();
          let from = after === undefined ? begin : records.lineRange(after).end;
          while (names.length < limit) {
            const [first] = await reads.getRange(from, end, { limit: 1 });
            if (!first) break;
            const name = keyItems(first.key)[2] as string;
            names.push(name);
            // Over all its other entries to the next line's.
            from = records.lineRange(name).end;
          }
          return names;
        },
        { label: 'lines' },
      ),

    lineEntries: (line, shards, limit) =>
      kv.read(
        async (reads) => {
          const ranges = shards.map((shard) => records.lineShardRange(line, shard));
          const { entries } = await inTurn<LineEntry & { dueAtSeconds?: number }>(reads, ranges, limit, lineEntry, () => true);
          return entries;
        },
        { label: 'line' },
      ),
  };
}

async function due(reads: KvReads, shards: readonly number[], nowSeconds: number, limit: number) {
  const isDue = (entry: DueEntry) => entry.dueAtSeconds <= nowSeconds;
  const express = await dueExpress(reads, shards, isDue, Math.ceil(limit * expressShare));
  const ranges = shards.map((shard) => records.shardRange(shard));
  const others = await inTurn(reads, ranges, limit - express.entries.length, dueEntry, isDue);
  const seen = new Set(express.entries.map(nameOf));
  const entries = express.entries;
  for (const entry of others.entries) if (seen.size === 0 || !seen.has(nameOf(entry))) entries.push(entry);
  const isCut = others.isCut || express.isCut;
  const nextDueAtSeconds = isCut ? nowSeconds : others.firstLeftOut?.dueAtSeconds;
  return { entries, nextDueAtSeconds };
}

/** As a rule there are none at all, which one read tells. */
async function dueExpress(
  reads: KvReads,
  shards: readonly number[],
  isDue: (entry: DueEntry) => boolean,
  limit: number,
): Promise<Found<DueEntry>> {
  const all = records.allExpressRange();
  if ((await reads.getRange(all.begin, all.end, { limit: 1 })).length === 0) return { entries: [], isCut: false };
  return inTurn(
    reads,
    shards.map((shard) => records.expressRange(shard)),
    limit,
    dueEntry,
    isDue,
  );
}

const nameOf = ({ queueId, domain, part }: DueEntry) => `${queueId}/${domain}/${part}`;

interface Found<E> {
  entries: E[];
  /** There are more of those that are wanted. */
  isCut: boolean;
  /** The earliest of those that are not wanted (yet). */
  firstLeftOut?: E;
}

/** What is wanted at the front of these ranges, read in parallel; each gives its share first, then those with more fill up what is left. */
async function inTurn<E extends { dueAtSeconds?: number }>(
  reads: KvReads,
  ranges: KeyRange[],
  limit: number,
  read: (pair: KeyValue) => E,
  isWanted: (entry: E) => boolean,
): Promise<Found<E>> {
  const entries: E[] = [];
  let firstLeftOut: E | undefined;
  let open = ranges;
  while (open.length > 0 && entries.length < limit) {
    // One more than the share: it tells whether there is more, or when the next one is due.
    const share = Math.ceil((limit - entries.length) / open.length);
    const pages = await Promise.all(open.map(({ begin, end }) => reads.getRange(begin, end, { limit: share + 1 })));
    const more: KeyRange[] = [];
    for (const [i, page] of pages.entries()) {
      const found = page.map(read);
      const firstUnwanted = found.findIndex((entry) => !isWanted(entry));
      if (firstUnwanted >= 0) {
        const leftOut = found[firstUnwanted]!;
        if (!firstLeftOut || leftOut.dueAtSeconds! < firstLeftOut.dueAtSeconds!) firstLeftOut = leftOut;
        found.length = firstUnwanted;
      } else if (found.length > share) {
        more.push({ begin: page[share]!.key, end: open[i]!.end });
        found.length = share;
      }
      for (const entry of found) entries.push(entry);
    }
    open = more;
  }
  const isCut = open.length > 0 || entries.length > limit;
  entries.length = Math.min(entries.length, limit);
  return { entries, isCut, firstLeftOut };
}
