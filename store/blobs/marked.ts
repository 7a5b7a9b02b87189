/**
 * External storages as somebody opens them who is no node: a backup that reads from a view, a restore into an installation that is not whole yet. Their marks
 * are handed in, and nothing is read from or written to a store.
 */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import { openMemoryStore } from '../kv/index.js';
import type { ExternalBlobOptions, ExternalPlace } from './external.js';
import { encodeMark } from './identity.js';
import { storageKey } from './keys.js';
import { type ExternalStorages, openStorages } from './storages.js';

/** `isWritten`: the storage must have it already; otherwise a storage without any is marked at its first use. */
export interface StorageMark {
  /** 32 hex digits. */
  mark: string;
  isWritten: boolean;
}

/** Storages that take only these marks for theirs. Throws RangeError for options that make no sense. */
export async function openMarkedStorages(
  parts: { clock: Clock; random: Random; logger: Logger },
  options: ExternalBlobOptions,
  marks: ReadonlyMap<ExternalPlace, StorageMark>,
): Promise<ExternalStorages> {
  const kv = openMemoryStore({ clock: parts.clock });
  await kv.transact(async (tx) => {
    for (const [place, { mark, isWritten }] of marks) tx.set(storageKey(place), encodeMark(mark, isWritten));
  });
  return openStorages({ ...parts, kv }, options);
}
