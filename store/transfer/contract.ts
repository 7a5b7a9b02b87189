/** What moving a whole store is described by: errors, progress, results. */

/** A copy, backup or restore that is not begun or not finished, for a reason that its operator can understand. The target says how far it is. */
export class TransferRefused extends Error {
  override readonly name = 'TransferRefused';
}

/** The caller's signal stopped it between two steps; the same command goes on from there. */
export class TransferInterrupted extends Error {
  override readonly name = 'TransferInterrupted';
}

/** A backup is not what was written: cut off, changed, or encrypted under another key. */
export class BackupDamaged extends Error {
  override readonly name = 'BackupDamaged';
}

export type TransferStage = 'reading' | 'comparing' | 'copying' | 'clearing' | 'objects' | 'verifying' | 'finishing';

/** How far it is. Counts are of the stage that runs; in `objects`, `keys` counts blobs outside of the store. */
export interface TransferProgress {
  stage: TransferStage;
  keys: number;
  /** Of keys and values. */
  bytes: number;
  /** Of this stage; an estimate where `isEstimate`, absent where nobody knows. */
  totalBytes?: number;
  isEstimate?: boolean;
}

export type OnProgress = (progress: TransferProgress) => void;

/** What was moved, checked on both sides. */
export interface TransferTotals {
  keys: number;
  bytes: number;
  /** By subspace: keys, bytes, and the digest of its rows (64 hex digits). */
  subspaces: Record<string, { keys: number; bytes: number; digest: string }>;
  externalBlobs: ExternalTotals;
}

/** Blobs whose bytes lie in files or on S3. */
export interface ExternalTotals {
  /** Those that the heads in the store name, and their stored bytes. */
  count: number;
  bytes: number;
  /** Those whose bytes came along; absent where none was to. Of a backup with the digest of all of them (64 hex digits). */
  carried?: { count: number; bytes: number; digest?: string };
  /** Purged while the store was read: nothing needs them. */
  gone?: number;
  /** Carried although their content is not what it was: a check tells which. */
  damaged?: number;
  /** Source and target of a copy have them in common; the source is retired. */
  isShared?: boolean;
}
