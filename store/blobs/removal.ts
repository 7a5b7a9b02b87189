/**
 * Takes away bytes that nothing links: marks them as garbage first, then removes them: chunks a bounded part at a time from the end, an external object
 * whole. Until that is done an upload record tells what may still be there, so that whoever comes next can go on.
 */
import type { KvTransaction } from '../kv/contract.js';
import { chunkKey, chunkRange, uploadKey } from './keys.js';
import { decodeUpload, type ExternalUpload, encodeUpload, type UploadRecord } from './records.js';
import type { BlobSettings } from './settings.js';

/** Chunks cleared per transaction: 4 MiB of content, well within a backend's five seconds. */
export const chunksPerRemoval = 64;
/** Up to this many chunks go in the transaction that removes the head. */
export const maxChunksWithHead = 4;

type Removing = Pick<BlobSettings, 'kv' | 'external'>;
type Place = Pick<UploadRecord, 'place'> & { chunkCount?: number };

/** Hands the bytes of `storageId` to the garbage list, in `tx`. `isLingering`: whoever wrote them may not have noticed yet. */
export function markGarbage(
  tx: KvTransaction,
  storageId: Uint8Array,
  from: Place,
  nowSeconds: number,
  isLingering = false,
): void {
  const { place, chunkCount = 0 } = from;
  const state = 'garbage';
  const record: UploadRecord =
    place === 'store'
      ? { state, sinceSeconds: nowSeconds, place, chunkCount }
      : { state, sinceSeconds: nowSeconds, place, isLingering, isRemovedOnce: false };
  tx.set(uploadKey(storageId), encodeUpload(record));
}

/** Clears the chunks of a garbage record, and the record last. */
export async function removeChunks({ kv }: Pick<Removing, 'kv'>, storageId: Buffer, signal?: AbortSignal): Promise<void> {
  const recordKey = uploadKey(storageId);
  for (;;) {
    const hasMore = await kv.transact(
      async (tx) => {
        const value = await tx.get(recordKey);
        const record = value && decodeUpload(value);
        if (record?.state !== 'garbage' || record.place !== 'store') return false;
        const { end } = chunkRange(storageId);
        const keep = Math.max(0, record.chunkCount - chunksPerRemoval);
        tx.clearRange(chunkKey(storageId, keep), end);
        if (keep > 0) tx.set(recordKey, encodeUpload({ ...record, chunkCount: keep }));
        else tx.clear(recordKey);
        return keep > 0;
      },
      { label: 'blob-remove' },
    );
    if (!hasMore || signal?.aborted) return;
  }
}

/**
 * Removes the external object of a garbage record, and then the record; of a lingering one the record stays until `isLast`. Throws KvError `unavailable`
 * when the storage is away: the record stays.
 */
export async function removeObject(
  { kv, external }: Removing,
  storageId: Buffer,
  { place, isLingering }: ExternalUpload,
  isLast: boolean,
): Promise<void> {
  await external.storage(place).remove(storageId.toString('hex'), { isAbandoned: isLingering });
  const recordKey = uploadKey(storageId);
  await kv.transact(
    async (tx) => {
      const value = await tx.get(recordKey);
      const record = value && decodeUpload(value);
      if (record?.state !== 'garbage' || record.place === 'store') return;
      if (isLast) tx.clear(recordKey);
      else tx.set(recordKey, encodeUpload({ ...record, isRemovedOnce: true }));
    },
    { label: 'blob-remove' },
  );
}

/**
 * Gives up an upload that nothing linked, after its writer stopped. Harmless when it was linked or removed. `isQuiet`: nothing that was sent can arrive any
 * more; otherwise the purge looks once more, much later.
 */
export async function discardUpload(settings: Removing, storageId: Buffer, isQuiet: boolean): Promise<void> {
  const discarded = await settings.kv.transact(
    async (tx) => {
      const value = await tx.get(uploadKey(storageId));
      const record = value && decodeUpload(value);
      if (record?.state !== 'writing') return record;
      // Parts may be left where the writer's own clearing up failed: these go only with a lingering one.
      markGarbage(tx, storageId, record, record.sinceSeconds, true);
      return record;
    },
    { label: 'blob-discard' },
  );
  if (discarded?.place === 'store') await removeChunks(settings, storageId);
  else if (discarded?.state === 'writing') await removeObject(settings, storageId, { ...discarded, isLingering: true }, isQuiet);
}
