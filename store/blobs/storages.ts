/**
 * The external storages of a blob store: one to write to, all of them to read from and to remove from.
 */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import { KvError, type KvStore } from '../kv/contract.js';
import type { ExternalBlobOptions, ExternalPlace, ExternalStorage } from './external.js';
import { openFileStorage } from './files.js';
import { openS3Storage } from './s3.js';

export interface ExternalStorages {
  /** Where content longer than `thresholdBytes` goes; undefined: into the key-value store. */
  readonly writeTo: ExternalStorage | undefined;
  readonly thresholdBytes: number;
  readonly frameBytes: number;
  /** All that are set up. */
  readonly all: readonly ExternalStorage[];
  /** Throws KvError `unavailable` for a place that is not set up: the blobs there can't be read now. */
  storage(place: ExternalPlace): ExternalStorage;
}

const maxThresholdBytes = 8 * 1024 * 1024;
const maxFrameBytes = 1024 * 1024;

/** Throws RangeError for options that make no sense; looks at no storage yet. */
export function openStorages(
  parts: { kv: KvStore; clock: Clock; random: Random; logger: Logger },
  options: ExternalBlobOptions = {},
): ExternalStorages {
  const { writeTo, thresholdBytes = 1024 * 1024, frameBytes = 131_072, files, s3 } = options;
  if (!Number.isSafeInteger(thresholdBytes) || thresholdBytes < 0 || thresholdBytes > maxThresholdBytes)
    throw new RangeError(`thresholdBytes must be 0 to ${maxThresholdBytes}, not ${thresholdBytes}`);
  if (!Number.isSafeInteger(frameBytes) || frameBytes < 1 || frameBytes > maxFrameBytes)
    throw new RangeError(`frameBytes must be 1 to ${maxFrameBytes}, not ${frameBytes}`);
  const byPlace = new Map<ExternalPlace, ExternalStorage>();
  if (files) byPlace.set('files', openFileStorage(parts, files));
  if (s3) byPlace.set('s3', openS3Storage(parts, s3));
  if (writeTo && !byPlace.has(writeTo)) throw new RangeError(`blobs are to be written to ${writeTo}, which is not set up`);
  return {
    writeTo: writeTo && byPlace.get(writeTo),
    thresholdBytes,
    frameBytes,
    all: [...byPlace.values()],
    storage(place) {
      const storage = byPlace.get(place);
      if (storage) return storage;
      throw new KvError('unavailable', `there are blobs in ${place}, which is not set up`, 'outage');
    },
  };
}
