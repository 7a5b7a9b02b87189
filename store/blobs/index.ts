/**
 * The public face of blobs.
 */
export * from './contract.js';
export type {
  ExternalBlobOptions,
  ExternalPlace,
  ExternalStorage,
  FilesOptions,
  S3Options,
  StoredObject,
} from './external.js';
export { type BlobStorageSettings, blobStorageSettings, externalFromSettings, secretPaths } from './external-settings.js';
export { placementOf, type StrayObject, strayObjects } from './inspect.js';
export { type BlobStoreOptions, maxPreparedBytes, maxReadBytes } from './settings.js';
export { UploadLost } from './sinks.js';
export { createBlobStore } from './store.js';
