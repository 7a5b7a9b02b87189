/** The public face of moving, saving and checking whole stores. */
export {
  type BackupOptions,
  type BackupResult,
  type VerifyOptions,
  type VerifyResult,
  verifyBackup,
  writeBackup,
} from './backup.js';
export { type CheckOptions, type CheckProgress, type CheckResult, checkStore, type Finding } from './check/index.js';
export type { BlobDestination } from './claim.js';
export * from './contract.js';
export { type CopyOptions, copyStore } from './copy.js';
export type { CopyBlobs } from './copy-objects.js';
export type { ReadStorageOptions } from './external.js';
export { goAheadAfterRestore } from './go-ahead.js';
export { unfinishedTransfer } from './marker.js';
export { type BackupSink, type BackupSource, fileSink, fileSource, streamSink, streamSource } from './places.js';
export { type RestoreOptions, restoreBackup } from './restore.js';
export type { RestoreBlobs } from './restore-objects.js';
export { parseS3Url, type S3Place, s3FromEnvironment, s3Sink, s3Source } from './s3.js';
