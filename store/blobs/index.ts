/**
 * The public face of blobs.
 */
export * from './contract.js';
export { type BlobStoreOptions, maxPreparedBytes, maxReadBytes } from './settings.js';
export { createBlobStore } from './store.js';
export { UploadLost } from './writer.js';
