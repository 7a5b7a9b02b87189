/** What a transaction and the watches need of the source that they belong to. */
import type { NativeTransaction } from 'foundationdb/dist/lib/native.js';
import type { Clock } from '../../../ops/telemetry/index.js';
import type { Watch } from '../watches.js';
import type { FailedStep } from './errors.js';

/** A native transaction on loan. */
export interface Loan {
  readonly native: NativeTransaction;
  /** When it was made or last reset, in monotonic milliseconds: its timeout counts from then. */
  readonly freshAtMs: number;
}

export interface TransactionHost {
  readonly clock: Clock;
  readonly isClosed: boolean;
  readonly watches: WatchHost;
  /** A native transaction in its first state. */
  lend(): Loan;
  /** Takes a native transaction back; what it still waits for is cancelled, watches of a commit stay. Harmless when repeated. */
  takeBack(loan: Loan): void;
  /** Lets every answer that `loan` waits for fail when it has not come a while from now. */
  limitReads(loan: Loan): void;
  /** Commits and takes the transaction back; resolves to the committed version. */
  commit(loan: Loan): Promise<bigint>;
  /** The contract's error for one of the client library; any other comes back as it is. */
  asKvError(error: unknown, step: FailedStep): unknown;
}

/** A watched key of a transaction that writes, with the value that it leaves behind there. */
export interface WatchedValue {
  readonly watch: Watch;
  readonly value: Buffer | undefined;
}

export interface WatchHost {
  /** Sets the client's watches in `native`; they wait from its commit on. */
  set(native: NativeTransaction, watches: readonly Watch[]): void;
  /** Watches what a transaction that has written left behind at `version`. Never rejects. */
  setAt(version: bigint, watched: readonly WatchedValue[]): Promise<void>;
}
