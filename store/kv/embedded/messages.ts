/** What the main thread and the writer thread say to each other. */

export interface WriterSettings {
  /** The database file. */
  readonly file: string;
  readonly durability: 'full' | 'none';
  /** The file grows no larger than this; 0: as the disk allows. */
  readonly maxFileBytes: number;
}

export type ToWriter =
  /** Apply the batch in `buffer` and commit it as `version`. The buffer comes back with the answer. */
  | { readonly type: 'commit'; readonly version: number; readonly buffer: ArrayBuffer; readonly length: number }
  | { readonly type: 'close' };

/** How a failed batch ended: `unknown` when the commit itself failed, so that a crash now may still bring it back. */
export type FailureKind = 'no-space' | 'io' | 'unknown';

export type FromWriter =
  /** The database is open and stands at `version`. */
  | { readonly type: 'ready'; readonly version: number }
  | { readonly type: 'start-failed'; readonly kind: FailureKind; readonly message: string }
  /** The batch is durable. */
  | { readonly type: 'done'; readonly version: number; readonly buffer: ArrayBuffer }
  /** The batch was rolled back as a whole; readers see the state of `visibleVersion`. */
  | {
      readonly type: 'failed';
      readonly version: number;
      readonly kind: FailureKind;
      readonly message: string;
      readonly visibleVersion: number;
      readonly buffer: ArrayBuffer;
    }
  /** Something that does not concern a commit went wrong (a checkpoint on a full disk). */
  | { readonly type: 'warning'; readonly message: string }
  | { readonly type: 'closed' };
