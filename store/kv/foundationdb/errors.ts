/** What FoundationDB's error numbers mean in the contract's terms. */
import { KvError, type UnavailableReason } from '../contract.js';

/** The numbers that are treated by name; see `flow/error_definitions.h` of FoundationDB. */
export const fdbCodes = {
  transactionTooOld: 1007,
  futureVersion: 1009,
  notCommitted: 1020,
  commitUnknownResult: 1021,
  transactionCancelled: 1025,
  transactionTimedOut: 1031,
  tooManyWatches: 1032,
  operationCancelled: 1101,
  noClusterFile: 1515,
  apiVersionNotSupported: 2203,
} as const;

const tooLarge = new Set([2101, 2102, 2103]);

/** A commit that ends like this was cut off on this side (cancelled, a broken promise, an internal error): nothing says that it was not sent. */
const cutOff = new Set([fdbCodes.transactionCancelled, 1100, fdbCodes.operationCancelled, 4000, 4100] as number[]);

/** What the client library itself says of a number (`fdb_error_predicate`). */
export interface ErrorPredicates {
  mayHaveCommitted(code: number): boolean;
  isRetryable(code: number): boolean;
}

/** The number of an error that the client library made; undefined for any other. */
export function fdbCodeOf(error: unknown): number | undefined {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  return typeof code === 'number' ? code : undefined;
}

/** What failed: a commit with writes, or anything else, which leaves no doubt about what was written. */
export type FailedStep = 'commit' | 'read';

/** The contract's error for one of the client library; anything else comes back as it is. */
export function toKvError(error: unknown, step: FailedStep, predicates: ErrorPredicates): unknown {
  const code = fdbCodeOf(error);
  if (code === undefined) return error;
  const message = `FoundationDB error ${code}: ${(error as Error).message}`;
  const options = { cause: error };
  if (code === fdbCodes.notCommitted) return new KvError('conflict', message, undefined, options);
  if (code === fdbCodes.transactionTooOld) return new KvError('too-old', message, undefined, options);
  if (tooLarge.has(code)) return new KvError('too-large', message, undefined, options);
  if (step === 'commit' && predicates.mayHaveCommitted(code)) {
    return new KvError('commit-unknown', message, undefined, options);
  }
  // A storage server that lags (1009, 1037), throttling, a proxy short of memory, a client library that gives way to another (1039):
  // the same work at a newer version is harmless.
  if (predicates.isRetryable(code)) return new KvError('too-old', message, undefined, options);
  if (step === 'commit' && cutOff.has(code)) return new KvError('commit-unknown', message, undefined, options);
  // What a caller did wrong (a key outside the range, an inverted range) is no state of the store.
  if (code >= 2000 && code < 2100) return error;
  return new KvError('unavailable', message, reasonOf(code), options);
}

function reasonOf(code: number): UnavailableReason {
  return code >= 1500 && code < 1600 ? 'io' : 'outage';
}

export function closedError(): KvError {
  return new KvError('unavailable', 'the store is closed', 'closed');
}
