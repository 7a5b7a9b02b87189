/**
 * The retry loop that all backends share: runs a body, commits, and runs it again after what is harmless to retry, with backoff and
 * jitter. Counts what happened by backend and label.
 */
import { type Clock, counter, histogram, type Random } from '../../ops/telemetry/index.js';
import { type Attempt, PendingConflict, type TransactionSource } from './backend.js';
import {
  type Committed,
  KvError,
  type KvReads,
  type KvStore,
  type KvTransaction,
  type KvView,
  type TransactOptions,
} from './contract.js';
import { type PassOn, Turnstile } from './turnstile.js';

/** `result`: `committed`, `read` (wrote nothing on purpose: `read()`), `body-error`, or the code of the error that was thrown. */
const transactionsTotal = counter('starling_kv_transactions_total', 'Transactions by how they ended.', [
  'backend',
  'label',
  'result',
]);
/** `code`: the error after which the body was run again. */
const retriesTotal = counter('starling_kv_retries_total', 'Transaction bodies that were run again.', [
  'backend',
  'label',
  'code',
]);
const commitSeconds = histogram('starling_kv_commit_seconds', 'From the end of a body to the durable commit.', ['backend']);

const defaultMaxAttempts = 100;
/** The second retry after a conflict waits up to this; the first not at all. Doubled each time. */
const conflictBackoffMs = 0.5;
const unknownBackoffMs = 5;
const maxBackoffMs = 250;
/** Whoever has the turn gets this long before the next one tries as well. */
const turnPatienceMs = 250;

interface Turn {
  passOn: PassOn | undefined;
}

export class RetryingStore implements KvStore {
  /** There exactly where the backend has it. */
  readonly openView?: () => Promise<KvView>;
  readonly #source: TransactionSource;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #turnstile: Turnstile;
  readonly #commitSeconds: { observe(seconds: number): void };
  readonly #counters = new Map<string, { inc(): void }>();

  constructor(source: TransactionSource, clock: Clock, random: Random) {
    this.#source = source;
    this.#clock = clock;
    this.#random = random;
    this.#turnstile = new Turnstile(clock);
    this.#commitSeconds = commitSeconds.labels(source.backend);
    if (source.openView) this.openView = () => source.openView!();
  }

  get backend(): KvStore['backend'] {
    return this.#source.backend;
  }

  async transact<T>(body: (tx: KvTransaction) => Promise<T>, options?: TransactOptions): Promise<T> {
    return (await this.transactVersioned(body, options)).value;
  }

  transactVersioned<T>(body: (tx: KvTransaction) => Promise<T>, options?: TransactOptions): Promise<Committed<T>> {
    return this.#retry(options, async (attempt) => {
      const value = await body(attempt.tx);
      const endedAtMs = this.#clock.monotonicMs();
      const version = await attempt.commit();
      this.#commitSeconds.observe((this.#clock.monotonicMs() - endedAtMs) / 1000);
      this.#count(options, 'committed');
      return { value, version };
    });
  }

  read<T>(body: (reads: KvReads) => Promise<T>, options?: TransactOptions): Promise<T> {
    return this.#retry(options, async (attempt) => {
      const value = await body(attempt.tx.snapshot);
      this.#count(options, 'read');
      return value;
    });
  }

  check(): Promise<void> {
    return this.#source.check();
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  async #retry<T>(options: TransactOptions | undefined, run: (attempt: Attempt) => Promise<T>): Promise<T> {
    const turn: Turn = { passOn: undefined };
    try {
      return await this.#attempts(options, run, turn);
    } finally {
      turn.passOn?.();
    }
  }

  async #attempts<T>(options: TransactOptions | undefined, run: (attempt: Attempt) => Promise<T>, turn: Turn): Promise<T> {
    const maxAttempts = options?.maxAttempts ?? defaultMaxAttempts;
    let mayHaveCommitted = false;
    for (let attempts = 1; ; attempts++) {
      options?.signal?.throwIfAborted();
      let attempt: Attempt | undefined;
      let failure: KvError;
      try {
        const begun = this.#source.begin(options?.atLeastVersion, mayHaveCommitted);
        attempt = begun instanceof Promise ? await begun : begun;
        return await run(attempt);
      } catch (error) {
        if (!(error instanceof KvError)) {
          this.#count(options, 'body-error');
          throw error;
        }
        failure = error;
      } finally {
        attempt?.discard();
      }
      if (!failure.retryable || attempts >= maxAttempts) {
        this.#count(options, failure.code);
        throw mayHaveCommitted ? asUnknown(failure) : failure;
      }
      mayHaveCommitted ||= failure.code === 'commit-unknown';
      retriesTotal.inc({ backend: this.backend, label: options?.label ?? 'other', code: failure.code });
      await this.#pause(failure, attempts, turn, options?.signal);
    }
  }

  /**
   * What lost to a commit that is still on its way to the disk waits for exactly that, and then for its turn among all that lost over
   * the same key; the rest backs off with full jitter.
   */
  async #pause(failure: KvError, attempts: number, turn: Turn, signal: AbortSignal | undefined): Promise<void> {
    if (failure instanceof PendingConflict) {
      await failure.settled;
      // One turn at most: who has one never waits for another, so nobody waits in a circle.
      turn.passOn ??= await this.#turnstile.take(failure.contended, turnPatienceMs);
      return;
    }
    const doublings = Math.min(failure.code === 'conflict' ? attempts - 2 : attempts - 1, 10);
    if (doublings < 0) return;
    const firstMs = failure.code === 'conflict' ? conflictBackoffMs : unknownBackoffMs;
    const ceilingMs = Math.min(firstMs * 2 ** doublings, maxBackoffMs);
    await this.#clock.sleep(this.#random.float() * ceilingMs, signal);
  }

  #count(options: TransactOptions | undefined, result: string): void {
    const label = options?.label ?? 'other';
    const name = `${label} ${result}`;
    let child = this.#counters.get(name);
    if (!child) this.#counters.set(name, (child = transactionsTotal.labels(this.backend, label, result)));
    child.inc();
  }
}

/** A failure after an attempt that may have committed says so: "unavailable" alone would mean that nothing was written. */
function asUnknown(failure: KvError): KvError {
  if (failure.code === 'commit-unknown') return failure;
  const message = `an earlier attempt may have committed; after it: ${failure.message}`;
  return new KvError('commit-unknown', message, failure.reason, { cause: failure });
}
