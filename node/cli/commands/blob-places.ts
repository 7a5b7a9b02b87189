/** Where blobs lie that are not in a store, for commands on whole stores: as the settings in it say, or as the command line says instead. */
import { isAbsolute } from 'node:path';
import type { Logger } from '../../../ops/telemetry/index.js';
import { systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import { externalFromSettings } from '../../../store/blobs/index.js';
import { keysUnder, subspace } from '../../../store/keyspace.js';
import { type KvStore, keyAfter, openMemoryStore } from '../../../store/kv/index.js';
import { type ReadStorageOptions, TransferRefused } from '../../../store/transfer/index.js';
import type { Config } from '../../config/schema.js';
import { openNodeSettings } from '../../settings/index.js';
import { UsageError } from '../arguments.js';

/** Instead of what the settings say. */
export interface BlobPlaces {
  directory?: string;
  bucket?: string;
}

const rowsPerRead = 500;

export function blobPlacesIn(values: Partial<Record<'blobs-directory' | 'blobs-bucket', string | boolean>>): BlobPlaces {
  const { 'blobs-directory': directory, 'blobs-bucket': bucket } = values;
  if (typeof directory === 'string' && !isAbsolute(directory)) throw new UsageError('--blobs-directory takes an absolute path');
  return { ...(typeof directory === 'string' && { directory }), ...(typeof bucket === 'string' && { bucket }) };
}

/** Reads the settings in a store, with the cluster key of `config`; the store itself is only read. Throws `StartError` without the key. */
export function storageOptions(config: Config, logger: Logger, places: BlobPlaces = {}): ReadStorageOptions {
  return async (read) => {
    // Settings are opened on a copy of their rows: who opens them may write, which a view or a half-made store does not take.
    const kv = openMemoryStore({ clock: systemClock });
    const { begin, end } = keysUnder(subspace.settings);
    for (let from = begin; ; ) {
      const start = from;
      const rows = await read((reads) => reads.getRange(start, end, { limit: rowsPerRead }));
      await kv.transact(async (tx) => {
        for (const { key, value } of rows) tx.set(key, value);
      });
      if (rows.length < rowsPerRead) break;
      from = keyAfter(rows.at(-1)!.key);
    }
    const settings = await openNodeSettings(config, { kv, clock: systemClock, random: systemRandom, logger });
    try {
      const blobs = settings.opened('blobs');
      if (places.bucket !== undefined && !blobs.s3) throw new TransferRefused('--blobs-bucket: the settings name no S3 storage');
      return externalFromSettings(
        {
          ...blobs,
          ...(places.directory !== undefined && { files: { directory: places.directory } }),
          ...(places.bucket !== undefined && blobs.s3 && { s3: { ...blobs.s3, bucket: places.bucket } }),
        },
        process.env,
      );
    } catch (error) {
      if (error instanceof RangeError) throw new TransferRefused(`blobs: ${error.message}`, { cause: error });
      throw error;
    } finally {
      await settings.close();
      await kv.close();
    }
  };
}

/** The settings of a finished store name from now on where its blobs were put. */
export async function settleBlobPlaces(config: Config, kv: KvStore, places: BlobPlaces, logger: Logger): Promise<void> {
  const set = [
    ...(places.directory === undefined ? [] : [{ path: 'blobs.files.directory', value: places.directory }]),
    ...(places.bucket === undefined ? [] : [{ path: 'blobs.s3.bucket', value: places.bucket }]),
  ];
  if (set.length === 0) return;
  const settings = await openNodeSettings(config, { kv, clock: systemClock, random: systemRandom, logger });
  try {
    await settings.change({ set }, { who: 'starling store', comment: 'where the blobs were put' });
  } finally {
    await settings.close();
  }
}
