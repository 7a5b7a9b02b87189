/**
 * What a blob store is made from, and its limits with their defaults.
 */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { KvStore } from '../kv/contract.js';
import { maxChunkBytes } from './chunk.js';
import type { ExternalBlobOptions } from './external.js';
import { BlobIds } from './ids.js';
import { type ExternalStorages, openStorages } from './storages.js';

export interface BlobStoreOptions {
  kv: KvStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Content up to this length stays in memory and is written by the transaction that links it. Default 131,072. */
  inlineLimitBytes?: number;
  /** Content per chunk before compression, 1 to 89,995; kept in each blob's head, so it may change. Default 65,536. */
  chunkBytes?: number;
  /** Stored bytes up to which content lies in the head: one key instead of two, and still a cheap read for links. Default 4,096. */
  headLimitBytes?: number;
  /** Stored bytes per transaction while a stream is written; two such batches are in memory at most. Default 786,432. */
  batchBytes?: number;
  /** From the last unlink to the tombstone, and from the tombstone to removal (s). Default 60. */
  generationSeconds?: number;
  /** A stream that nothing linked is given up this long after it began (s). Default 86,400. */
  abandonedUploadSeconds?: number;
  /** Lifetime of links of the owner kind `upload` (s). Default 86,400. */
  uploadLifetimeSeconds?: number;
  /** Storages outside of `kv`, and what goes there. Default: none. */
  external?: ExternalBlobOptions;
  /** Whether every node knows ids that begin with the time (TRAPS 23); asked for each unique blob. Default: yes. */
  mayUseTimeIds?: () => boolean;
}

export type BlobSettings = Required<Omit<BlobStoreOptions, 'external' | 'mayUseTimeIds'>> & {
  external: ExternalStorages;
  ids: BlobIds;
};
type Limit = Exclude<keyof BlobStoreOptions, 'kv' | 'clock' | 'random' | 'logger' | 'external' | 'mayUseTimeIds'>;

/** Longest content that `prepare` takes: it is written in the linking transaction, whose limit is 10 MB. */
export const maxPreparedBytes = 4 * 1024 * 1024;
/** Longest range that `read` gathers in one Buffer; what is longer is streamed. */
export const maxReadBytes = 256 * 1024 * 1024;

export function blobSettings(options: BlobStoreOptions): BlobSettings {
  const settings: BlobSettings = {
    inlineLimitBytes: 131_072,
    chunkBytes: 65_536,
    headLimitBytes: 4_096,
    batchBytes: 786_432,
    generationSeconds: 60,
    abandonedUploadSeconds: 86_400,
    uploadLifetimeSeconds: 86_400,
    ...options,
    external: openStorages(options, options.external),
    ids: new BlobIds({ ...options, mayUseTime: options.mayUseTimeIds ?? (() => true) }),
  };
  const check = (name: Limit, min: number, max: number) => {
    const value = settings[name];
    if (!Number.isSafeInteger(value) || value < min || value > max)
      throw new RangeError(`${name} must be ${min} to ${max}, not ${value}`);
  };
  check('inlineLimitBytes', 0, maxPreparedBytes);
  check('chunkBytes', 1, maxChunkBytes);
  check('headLimitBytes', 5, maxChunkBytes);
  check('batchBytes', 1, 4 * 1024 * 1024);
  check('generationSeconds', 1, 86_400);
  check('abandonedUploadSeconds', 600, 30 * 86_400);
  check('uploadLifetimeSeconds', 60, 365 * 86_400);
  return settings;
}

export const nowSecondsOf = (clock: Clock): number => Math.floor(clock.nowMs() / 1000);
