/**
 * Attempts on a FoundationDB database: lends native transactions and takes them back, waits for commits and remembers those that have
 * not been decided, keeps the watches, and lets go of everything on close.
 */
import type { NativeDatabase } from 'foundationdb/dist/lib/native.js';
import type { Clock, Logger } from '../../../ops/telemetry/index.js';
import type { Attempt, TransactionSource } from '../backend.js';
import { KvError } from '../contract.js';
import { closedError, type ErrorPredicates, type FailedStep, fdbCodeOf, fdbCodes, toKvError } from './errors.js';
import type { Loan, TransactionHost } from './host.js';
import { withPatience } from './patience.js';
import { FoundationTransaction } from './transaction.js';
import { OpenWatches } from './watches.js';

/** A read that has no answer this long after its transaction's begin fails. Healthy clusters say `too-old` before that. */
export const readPatienceMs = 7_000;
/** A commit without an answer for so long is unknown. */
export const commitPatienceMs = 5_000;
const checkPatienceMs = 5_000;

/** `timeout` of `fdb_c_options.g.h`: milliseconds since the transaction was made or reset; 0 takes it away. */
const timeoutOption = 500;
/** Native transactions kept for the next attempt. */
const maxIdle = 256;
/** Timeouts count from the last reset, in 31 bits of milliseconds: one that has lain for longer is made new first. */
const maxIdleMs = 60_000;
/** Between two tries of `check()`. */
const checkPauseMs = 100;
/** `check()` claims to write this key, so that its commit goes the whole way to the disks and changes nothing. */
const checkKey = Buffer.from([0xfe, 0xff, 0xff, 0xff, 0x73, 0x74, 0x61, 0x72, 0x6c, 0x69, 0x6e, 0x67]);

export class FoundationSource implements TransactionSource, TransactionHost {
  readonly backend = 'foundationdb';
  readonly watches: OpenWatches;
  readonly #database: NativeDatabase;
  readonly #predicates: ErrorPredicates;
  readonly #logger: Logger;
  /** Native memory is freed by the garbage collector only, which does not see how much there is: transactions are used again. */
  readonly #idle: Loan[] = [];
  readonly #lent = new Set<Loan>();
  /** Commits that somebody still waits for. */
  readonly #committing = new Set<Promise<unknown>>();
  /** Commits that nobody waits for any more and that may still happen. */
  readonly #undecided = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  constructor(
    database: NativeDatabase,
    readonly clock: Clock,
    predicates: ErrorPredicates,
    logger: Logger,
  ) {
    this.#database = database;
    this.#predicates = predicates;
    this.#logger = logger;
    this.watches = new OpenWatches(this, logger);
  }

  get isClosed(): boolean {
    return this.#closing !== undefined;
  }

  begin(atLeastVersion: bigint | undefined, mayHaveCommitted: boolean): Attempt | Promise<Attempt> {
    if (this.#closing) throw closedError();
    // An earlier run may be on its way to the cluster still. Were it to arrive after this one has looked for it, it would be done twice.
    if (mayHaveCommitted && this.#undecided.size > 0) {
      return this.#decided().then(() => new FoundationTransaction(this, atLeastVersion, mayHaveCommitted));
    }
    return new FoundationTransaction(this, atLeastVersion, mayHaveCommitted);
  }

  async check(): Promise<void> {
    if (this.#closing) throw closedError();
    const silent = () => new KvError('unavailable', `the cluster has not answered within ${checkPatienceMs} ms`, 'outage');
    try {
      await withPatience(this.clock, checkPatienceMs, this.#writeNothingAtLast(), silent);
    } catch (error) {
      if (!(error instanceof KvError) || error.code === 'unavailable') throw error;
      throw new KvError('unavailable', error.message, error.reason ?? 'outage', { cause: error });
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  lend(): Loan {
    if (this.#closing) throw closedError();
    const now = this.clock.monotonicMs();
    let loan = this.#idle.pop() ?? { native: this.#database.createTransaction(), freshAtMs: now };
    if (now - loan.freshAtMs > maxIdleMs) {
      loan.native.reset();
      loan = { native: loan.native, freshAtMs: now };
    }
    this.#lent.add(loan);
    return loan;
  }

  takeBack(loan: Loan): void {
    if (!this.#lent.delete(loan)) return;
    loan.native.reset();
    if (this.#closing || this.#idle.length >= maxIdle) return;
    this.#idle.push({ native: loan.native, freshAtMs: this.clock.monotonicMs() });
  }

  limitReads(loan: Loan): void {
    const usedForMs = Math.max(0, this.clock.monotonicMs() - loan.freshAtMs);
    loan.native.setOption(timeoutOption, Math.ceil(usedForMs) + readPatienceMs);
  }

  /** After `commitPatienceMs` the outcome is `commit-unknown`, and a run that follows waits in `begin` until it is decided. */
  commit(loan: Loan): Promise<bigint> {
    // `close` waits for the commits that it knows of and cancels everything else.
    if (this.#closing) {
      this.takeBack(loan);
      return Promise.reject(closedError());
    }
    // Without the timeout the client keeps at it until the outcome is known, or until a commit of its own has made sure that
    // this one can't happen any more. The timeout would cut that short, and the commit could overtake the next run.
    loan.native.setOption(timeoutOption, 0);
    const committing = this.#commitNative(loan);
    const answer = withPatience(this.clock, commitPatienceMs, committing, () => {
      this.#undecided.add(committing);
      const decided = () => this.#undecided.delete(committing);
      committing.then(decided, decided);
      this.#logger.warn({ waitedMs: commitPatienceMs }, 'FoundationDB has not answered a commit; its outcome is unknown');
      return new KvError('commit-unknown', `no answer to the commit within ${commitPatienceMs} ms`, 'outage');
    });
    this.#committing.add(answer);
    const done = () => this.#committing.delete(answer);
    answer.then(done, done);
    return answer;
  }

  asKvError(error: unknown, step: FailedStep): unknown {
    const code = fdbCodeOf(error);
    // A commit that was cut off may have happened all the same.
    if (step !== 'commit' && this.#closing && (code === fdbCodes.transactionCancelled || code === fdbCodes.operationCancelled))
      return closedError();
    return toKvError(error, step, this.#predicates);
  }

  async #commitNative(loan: Loan): Promise<bigint> {
    try {
      await loan.native.commit();
      return loan.native.getCommittedVersion().readBigInt64BE();
    } catch (error) {
      if (fdbCodeOf(error) !== fdbCodes.transactionTimedOut) throw this.asKvError(error, 'commit');
      // Timed out before the timeout was taken away, so nothing was sent.
      throw new KvError('too-old', 'the transaction timed out before its commit', undefined, { cause: error });
    } finally {
      this.takeBack(loan);
    }
  }

  #decided(): Promise<unknown> {
    const silent = () => new KvError('unavailable', 'an earlier commit has not been decided yet', 'outage');
    return withPatience(this.clock, commitPatienceMs, Promise.allSettled(this.#undecided), silent);
  }

  /** A recovery of the cluster refuses single attempts for a moment, which is no outage. */
  async #writeNothingAtLast(): Promise<void> {
    const giveUpAtMs = this.clock.monotonicMs() + checkPatienceMs;
    for (;;) {
      try {
        return await this.#writeNothing();
      } catch (error) {
        if (!(error instanceof KvError && error.retryable) || this.clock.monotonicMs() >= giveUpAtMs) throw error;
        await this.clock.sleep(checkPauseMs);
      }
    }
  }

  async #writeNothing(): Promise<void> {
    const attempt = new FoundationTransaction(this, undefined, false);
    try {
      await attempt.snapshot.get(checkKey);
      attempt.addWriteConflictKey(checkKey);
      await attempt.commit();
    } finally {
      attempt.discard();
    }
  }

  async #close(): Promise<void> {
    await Promise.allSettled(this.#committing);
    this.watches.failAll(closedError());
    for (const loan of this.#lent) loan.native.cancel();
    // Answers come in the order in which they were caused: after this one nothing is on its way to the event loop any more.
    const last = this.#database.createTransaction();
    const answered = last.getReadVersion().catch(() => {});
    last.cancel();
    await answered;
    await Promise.allSettled(this.#undecided);
    this.#idle.length = 0;
    this.#database.close();
  }
}
