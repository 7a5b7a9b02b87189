/**
 * Keys of the blob subspace: heads, chunks, links, uploads, candidates, marks of external storages, and the expiry of uploaded content. The only place that knows their tuples.
 */
import { type KeyRange, key, keyItems, keysUnder, subspace } from '../keyspace.js';
import type { BlobId, BlobOwner } from './contract.js';
import type { ExternalPlace } from './external.js';

export const headKey = (id: BlobId): Buffer => key(subspace.blob, 'head', id);
export const candidateKey = (id: BlobId): Buffer => key(subspace.blob, 'candidate', id);
export const uploadKey = (storageId: Uint8Array): Buffer => key(subspace.blob, 'upload', storageId);
export const chunkKey = (storageId: Uint8Array, index: number): Buffer => key(subspace.blob, 'chunk', storageId, index);

/** The mark of an external storage. */
export const storageKey = (place: ExternalPlace): Buffer => key(subspace.blob, 'storage', place);

export const candidateRange = (): KeyRange => keysUnder(subspace.blob, 'candidate');
export const uploadRange = (): KeyRange => keysUnder(subspace.blob, 'upload');
export const linkRange = (id: BlobId): KeyRange => keysUnder(subspace.blob, 'link', id);
export const chunkRange = (storageId: Uint8Array): KeyRange => keysUnder(subspace.blob, 'chunk', storageId);

/** Every owner kind has its own tuple, so that two owners never share a link. */
export function linkKey(id: BlobId, owner: BlobOwner): Buffer {
  switch (owner.kind) {
    case 'message':
      return key(subspace.blob, 'link', id, 'message', owner.accountId, owner.emailId);
    case 'queue':
      return key(subspace.blob, 'link', id, 'queue', owner.queueId);
    case 'upload':
      return key(subspace.blob, 'link', id, 'upload', owner.accountId, owner.uploadId);
  }
}

/** When the link of uploaded content ends: ordered by time, so that purge reads only what is due. */
export function expiryKey(dueSeconds: number, id: BlobId, owner: BlobOwner & { kind: 'upload' }): Buffer {
  return key(subspace.blob, 'expiry', dueSeconds, id, owner.accountId, owner.uploadId);
}

/** Expiry entries due at `nowSeconds` or before. */
export function expiryDueRange(nowSeconds: number): KeyRange {
  return { begin: keysUnder(subspace.blob, 'expiry').begin, end: key(subspace.blob, 'expiry', nowSeconds + 1) };
}

export function parseExpiryKey(packed: Uint8Array): { dueSeconds: number; id: BlobId; owner: BlobOwner & { kind: 'upload' } } {
  const [, , dueSeconds, id, accountId, uploadId] = keyItems(packed) as [number, string, number, string, string, string];
  return { dueSeconds, id, owner: { kind: 'upload', accountId, uploadId } };
}

export const candidateId = (packed: Uint8Array): BlobId => keyItems(packed)[2] as string;
export const uploadStorageId = (packed: Uint8Array): Buffer => keyItems(packed)[2] as Buffer;
