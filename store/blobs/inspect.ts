/**
 * Looks at blobs from outside, for the checker and for copies: where a head says that the bytes lie, and what lies in external storages without being known.
 */

import { type KeyRange, keyItems, keysUnder, subspace } from '../keyspace.js';
import { type KeyValue, type KvStore, keyAfter } from '../kv/contract.js';
import type { BlobId, BlobPlacement } from './contract.js';
import type { ExternalStorage, StoredObject } from './external.js';
import { storedBytesOf } from './frame.js';
import { uploadRange, uploadStorageId } from './keys.js';
import { chunkCountOf, decodeHead, decodeUpload } from './records.js';

const pageSize = 1_000;

/** Throws `BlobCorrupt` for a head that can't be read. */
export function placementOf(id: BlobId, value: Uint8Array): BlobPlacement {
  const head = decodeHead(id, Buffer.isBuffer(value) ? value : Buffer.from(value));
  const { sizeBytes } = head;
  const isTombstoned = head.tombstoneSeconds !== 0;
  switch (head.layout) {
    case 'inline':
      return { place: 'head', sizeBytes, isTombstoned };
    case 'chunked':
      return {
        place: 'chunks',
        sizeBytes,
        isTombstoned,
        storageId: head.storageId.toString('hex'),
        chunkCount: chunkCountOf(head),
      };
    case 'external':
      return {
        place: head.place,
        sizeBytes,
        isTombstoned,
        storageId: head.storageId.toString('hex'),
        storedBytes: storedBytesOf(head.index),
      };
  }
}

export interface StrayObject extends StoredObject {
  storage: ExternalStorage;
}

/**
 * Objects in external storages that no head and no upload knows, and that are older than `minAgeMs` (at least an hour). There are none unless the key-value
 * store went back in time or records were lost. Keeps some 100 bytes per external blob in memory. Removing what it gives is safe:
 * `stray.storage.remove(stray.storageId, { isAbandoned: true })`; no clock has a say in that.
 */
export async function* strayObjects(
  kv: KvStore,
  storages: readonly ExternalStorage[],
  { nowMs, minAgeMs = 86_400_000 }: { nowMs: number; minAgeMs?: number },
): AsyncGenerator<StrayObject, void, undefined> {
  const known = new Set<string>();
  for await (const storageId of knownObjects(kv)) known.add(storageId);
  const newestMs = nowMs - Math.max(minAgeMs, 3_600_000);
  const strays: StrayObject[] = [];
  for (const storage of storages) {
    for await (const object of storage.list())
      if (object.modifiedMs <= newestMs && !known.has(object.storageId)) strays.push({ ...object, storage });
  }
  if (strays.length === 0) return;
  // Ours and the storage's clock may be far apart, and an object younger than it seems: what was there already when it was listed is known now.
  known.clear();
  for await (const storageId of knownObjects(kv)) known.add(storageId);
  for (const stray of strays) if (!known.has(stray.storageId)) yield stray;
}

/** Storage ids of external objects. Uploads first: what is linked meanwhile leaves them and is found among the heads. */
async function* knownObjects(kv: KvStore): AsyncGenerator<string, void, undefined> {
  for await (const { key, value } of pairs(kv, uploadRange()))
    if (decodeUpload(value).place !== 'store') yield uploadStorageId(key).toString('hex');
  for await (const { key, value } of pairs(kv, keysUnder(subspace.blob, 'head'))) {
    const { place, storageId } = placementOf(keyItems(key)[2] as string, value);
    if (storageId && place !== 'chunks') yield storageId;
  }
}

async function* pairs(kv: KvStore, { begin, end }: KeyRange): AsyncGenerator<KeyValue, void, undefined> {
  for (;;) {
    const page = await kv.read((reads) => reads.getRange(begin, end, { limit: pageSize }), { label: 'blob-inspect' });
    yield* page;
    if (page.length < pageSize) return;
    begin = keyAfter(page.at(-1)!.key);
  }
}
