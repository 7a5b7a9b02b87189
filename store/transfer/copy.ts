/** Copies a whole installation from one store into another, empty one, between any two backends. */
import { hash } from 'node:crypto';
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { KvReads, KvStore } from '../kv/contract.js';
import { type BlobOutcome, settleBlobs } from './claim.js';
import { type OnProgress, TransferInterrupted, TransferRefused, type TransferTotals } from './contract.js';
import { type CopyBlobs, moveBlobs, refuseSharing } from './copy-objects.js';
import { estimateBytes } from './estimate.js';
import { countExternal } from './external.js';
import { allGoAhead } from './go-ahead.js';
import { unfinishedIn } from './marker.js';
import { identityKey, liveNodes } from './nodes.js';
import { pour } from './pour.js';
import { installationRows, openReader, type RowReader } from './rows.js';
import { wholeSpace } from './spaces.js';
import { Tally } from './tally.js';

export interface CopyOptions {
  source: KvStore;
  target: KvStore;
  /** For people: where the source is. */
  sourceName: string;
  /** For people: where the target is. */
  targetName: string;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Copies blobs that lie in files into another directory. Without it the target shares the storage, and the source is marked as moved. */
  blobs?: CopyBlobs;
  /** Copy although nodes run on the source: what they do from now on stays there. */
  mayBeOnline?: boolean;
  /** Rows per transaction. Default 4,000. */
  maxBatchRows?: number;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

/**
 * Copies, or goes on with a copy that was interrupted. Everything but rows and fences of nodes; claims of the source's nodes are freed. Verified by count
 * and digest of each subspace. Throws `TransferRefused`, `TransferInterrupted`, `KvError`.
 */
export async function copyStore(options: CopyOptions): Promise<TransferTotals> {
  const { source, target, clock, logger, onProgress, signal } = options;
  await refuseLiveNodes(source, clock, options.mayBeOnline ?? false, signal);
  const reader = await openReader(source);
  try {
    await refuseUnfinished(reader);
    await refuseSharing(options);
    let outcome: BlobOutcome | undefined;
    const [first] = await reader.read((reads) => reads.getRange(wholeSpace.begin, wholeSpace.end, { limit: 1 }));
    if (!first) throw new TransferRefused('the source is empty');
    const totalBytes = await estimateBytes(reader);
    const tally = await pour({
      target,
      clock,
      logger,
      kind: 'copy',
      sourceId: await installationId(reader),
      source: options.sourceName,
      rows: () => installationRows(reader),
      confirm: async (written) => {
        if (!reader.isConsistent) await confirmUnchanged(reader, written, onProgress, signal);
      },
      move: () => moveBlobs(options, reader),
      settle: async () => {
        // What the source does from now on, its users see, and do not find here.
        if (options.mayBeOnline) await allGoAhead({ kv: target, clock, random: options.random, signal });
        outcome = await settleBlobs(target, options.blobs);
      },
      onChanged: 'restart',
      totalBytes,
      maxBatchRows: options.maxBatchRows,
      isEstimate: true,
      onProgress,
      signal,
    });
    logger.info({ keys: tally.keys, bytes: tally.bytes }, 'store copied');
    return { ...tally.totals(), externalBlobs: outcome?.totals ?? (await countExternal(target)) };
  } finally {
    await reader.close();
  }
}

/** 32 hex digits; the same for a store and its copies. */
export async function installationId(reader: RowReader): Promise<string> {
  const secret = await reader.read((reads: KvReads) => reads.get(identityKey));
  return hash('sha256', secret ?? Buffer.alloc(0), 'hex').slice(0, 32);
}

export async function refuseUnfinished(reader: RowReader): Promise<void> {
  const problem = await reader.read(unfinishedIn);
  if (problem) throw new TransferRefused(problem);
}

/** Throws where nodes run: unless that is wanted, and always where the engine has no view that would keep still. */
export async function refuseLiveNodes(kv: KvStore, clock: Clock, mayBeOnline: boolean, signal?: AbortSignal): Promise<void> {
  if (mayBeOnline && kv.openView) return;
  const live = await liveNodes(kv, clock, signal);
  if (live.length === 0) return;
  const nodes = `${live.length === 1 ? 'a node runs' : `${live.length} nodes run`} on the source (${live.join(', ')})`;
  if (kv.openView) throw new TransferRefused(`${nodes}: stop ${live.length === 1 ? 'it' : 'them'}, or say --online`);
  throw new TransferRefused(
    `${nodes}, and ${kv.backend} gives no view for longer than 5 s: stop all nodes first, or use the engine's own tool (fdbbackup)`,
  );
}

/** A store without views is read a second time: it must have stood still. */
export async function confirmUnchanged(
  reader: RowReader,
  written: Tally,
  onProgress?: OnProgress,
  signal?: AbortSignal,
): Promise<void> {
  const again = new Tally();
  for await (const rows of installationRows(reader)) {
    if (signal?.aborted) throw new TransferInterrupted('interrupted while comparing; the same command goes on from there');
    for (const { key, value } of rows) again.add(key, value);
    onProgress?.({ stage: 'comparing', keys: again.keys, bytes: again.bytes, totalBytes: written.bytes });
  }
  const difference = written.differenceTo(again);
  if (difference) {
    throw new TransferRefused(`the source changed while it was read (${difference}); stop everything that uses it and try again`);
  }
}
