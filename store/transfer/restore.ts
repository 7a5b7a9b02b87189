/** Restores a backup into an empty store. */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { KeyValue, KvStore } from '../kv/contract.js';
import { confirmTotals, verifyBackup } from './backup.js';
import { BackupReader } from './backup-reader.js';
import { type BlobOutcome, noteOutcome, settleBlobs } from './claim.js';
import { type ExternalTotals, type OnProgress, TransferRefused, type TransferTotals } from './contract.js';
import { countExternal } from './external.js';
import { allGoAhead } from './go-ahead.js';
import type { BackupSource } from './places.js';
import { pour } from './pour.js';
import { type RestoreBlobs, restoreObjects } from './restore-objects.js';
import { Tally } from './tally.js';

export interface RestoreOptions {
  source: BackupSource;
  target: KvStore;
  /** One of them opens an encrypted backup. */
  clusterKeys?: readonly Uint8Array[];
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Where blobs go that lay in files or on S3, if the backup has them. */
  blobs?: RestoreBlobs;
  /** Rows per transaction. Default 4,000. */
  maxBatchRows?: number;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

/**
 * Restores, or goes on with it. A backup that can be read twice is verified as a whole before anything is written; what comes from a pipe is checked block
 * by block, and its target stays unusable until its end has been seen. Throws `TransferRefused`, `TransferInterrupted`, `BackupDamaged`, `KvError`.
 */
export async function restoreBackup(options: RestoreOptions): Promise<TransferTotals> {
  const { source, target, clusterKeys, clock, random, logger, onProgress, signal } = options;
  let told: TransferTotals | undefined;
  if (source.isRepeatable) {
    const verified = await verifyBackup({ source, clusterKeys, onProgress, signal });
    if (!verified.totals) throw new TransferRefused('the backup is encrypted: the cluster key is needed');
    told = verified.totals;
    refuseLeftOut(told.externalBlobs, options);
  }
  const reader = await BackupReader.open(source.open(), clusterKeys);
  try {
    if (!reader.isReadable) throw new TransferRefused('the backup is encrypted: the cluster key is needed');
    const { backupId, createdAt } = reader.head;
    const read = new Tally();
    let outcome: BlobOutcome | undefined;
    const tally = await pour({
      target,
      clock,
      logger,
      kind: 'restore',
      sourceId: backupId,
      source: `the backup of ${createdAt}`,
      rows: () => tallied(reader.rows(), read),
      confirm: async () => {
        await restoreObjects(reader, options, told?.externalBlobs.carried?.bytes);
        confirmTotals(reader, read);
        const totals = (told ?? reader.trailer)?.externalBlobs ?? (await countExternal(target));
        refuseLeftOut(totals, options);
        const { inPlace, destination } = options.blobs ?? {};
        await noteOutcome(target, random, { totals, keepsMarks: inPlace === true, ...(destination && { destination }) });
      },
      settle: async () => {
        await allGoAhead({ kv: target, clock, random, signal });
        outcome = await settleBlobs(target, options.blobs);
      },
      onChanged: 'refuse',
      totalBytes: told?.bytes,
      maxBatchRows: options.maxBatchRows,
      onProgress,
      signal,
    });
    logger.info({ keys: tally.keys, bytes: tally.bytes, backupId }, 'backup restored');
    return { ...tally.totals(), externalBlobs: outcome?.totals ?? (await countExternal(target)) };
  } finally {
    await reader.close();
  }
}

/** The storage that blobs were left in is that of the saved installation: perhaps it runs. */
function refuseLeftOut({ count, carried }: ExternalTotals, { blobs }: RestoreOptions): void {
  if (count === 0 || carried || blobs?.inPlace) return;
  throw new TransferRefused(
    `${count} blobs in files or on S3 were left out of this backup: say --blobs-in-place when the installation that it was made of is gone for good`,
  );
}

async function* tallied(pages: AsyncIterable<KeyValue[]>, tally: Tally): AsyncGenerator<KeyValue[], void, undefined> {
  for await (const rows of pages) {
    for (const { key, value } of rows) tally.add(key, value);
    yield rows;
  }
}
