/**
 * Takes away chunks that nothing links: marks them as garbage first, then clears them a bounded part at a time from the end. Each step leaves an upload
 * record that tells what may still be there, so that whoever comes next can go on.
 */
import type { KvStore, KvTransaction } from '../kv/contract.js';
import { chunkKey, chunkRange, uploadKey } from './keys.js';
import { decodeUpload, encodeUpload } from './records.js';

/** Chunks cleared per transaction: 4 MiB of content, well within a backend's five seconds. */
export const chunksPerRemoval = 64;
/** Up to this many chunks go in the transaction that removes the head. */
export const maxChunksWithHead = 4;

/** Hands `chunkCount` chunks to the garbage list, in `tx`. */
export function markGarbage(tx: KvTransaction, storageId: Uint8Array, chunkCount: number, nowSeconds: number): void {
  tx.set(uploadKey(storageId), encodeUpload({ state: 'garbage', sinceSeconds: nowSeconds, chunkCount }));
}

/** Clears the chunks of a garbage record, and the record last. Answers whether the record was there. */
export async function removeGarbage(kv: KvStore, storageId: Buffer, signal?: AbortSignal): Promise<boolean> {
  const recordKey = uploadKey(storageId);
  for (let didAny = false; ; didAny = true) {
    const isDone = await kv.transact(
      async (tx) => {
        const value = await tx.get(recordKey);
        const record = value && decodeUpload(value);
        if (record?.state !== 'garbage') return 'absent';
        const { end } = chunkRange(storageId);
        const keep = Math.max(0, record.chunkCount - chunksPerRemoval);
        tx.clearRange(chunkKey(storageId, keep), end);
        if (keep > 0) tx.set(recordKey, encodeUpload({ ...record, chunkCount: keep }));
        else tx.clear(recordKey);
        return keep > 0 ? 'more' : 'done';
      },
      { label: 'blob-remove' },
    );
    if (isDone === 'absent') return didAny;
    if (isDone === 'done' || signal?.aborted) return true;
  }
}

/** Gives up an upload that nothing linked. Harmless when it was linked or removed. */
export async function discardUpload(kv: KvStore, storageId: Buffer): Promise<void> {
  const isGarbage = await kv.transact(
    async (tx) => {
      const value = await tx.get(uploadKey(storageId));
      if (!value) return false;
      const record = decodeUpload(value);
      if (record.state === 'writing') markGarbage(tx, storageId, record.chunkCount, record.sinceSeconds);
      return true;
    },
    { label: 'blob-discard' },
  );
  if (isGarbage) await removeGarbage(kv, storageId);
}
