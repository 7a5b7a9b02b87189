/** The work of one job in this node: one run at a time, only while its lease is held, and aborted when it must end. */
import { type Clock, counter, type Logger, type Timer } from '../../ops/telemetry/index.js';
import { type LeaderLease, type LeaderWork, LeaseLost } from './contract.js';

const failedRuns = counter('starling_cluster_lease_run_failures_total', 'Runs of jobs that one node does for all which threw.', [
  'job',
]);

/** What does not heed its signal for so long loses its lease. */
export const heedMs = 5_000;
/** A job that is to be handed over waits so long for the end of a run before it is aborted. */
const handOverPatienceMs = 60_000;
const longestPauseMs = 60_000;

interface Run {
  epoch: number;
  controller: AbortController;
  abortedAtMs?: number;
}

export interface RunsOptions {
  lease: LeaderLease & { ofEpoch(epoch: number): LeaderLease };
  work: LeaderWork;
  pauseMs: number;
  clock: Clock;
  logger: Logger;
  /** A run has ended that was aborted or to be the last, found its lease lost, or does not heed its signal: the lease should be looked at now. */
  onTurn: () => void;
}

export class LeaderRuns {
  readonly #o: RunsOptions;
  #run: Run | undefined;
  #pause: Timer | undefined;
  #overdue: Timer | undefined;
  #failures = 0;
  #leavingSinceMs: number | undefined;
  #isOver = false;
  readonly #whenIdle = new Set<() => void>();

  constructor(options: RunsOptions) {
    this.#o = options;
  }

  get isIdle(): boolean {
    return this.#run === undefined;
  }

  /** The run has not ended although its signal was aborted long ago. */
  get isOverdue(): boolean {
    return this.#run?.abortedAtMs !== undefined && this.#o.clock.monotonicMs() - this.#run.abortedAtMs >= heedMs;
  }

  /** To be called whenever the lease may have been got, lost or renewed. */
  update(): void {
    const { lease } = this.#o;
    const { epoch } = lease;
    const run = this.#run;
    if (run) {
      if (this.#isOver) this.#abort(run, `${lease.job} is to be given back`);
      else if (epoch !== run.epoch) this.#abort(run, `this node does not hold ${lease.job} any more`);
      else if (this.#isImpatient()) this.#abort(run, `${lease.job} is to be handed over`);
      return;
    }
    if (this.#isOver || epoch === undefined || this.#leavingSinceMs !== undefined || this.#pause) return;
    void this.#begin(epoch);
  }

  /** The job is to be handed over: no run is begun any more. */
  leave(): void {
    this.#leavingSinceMs ??= this.#o.clock.monotonicMs();
    this.update();
  }

  /** It is not to be handed over after all, or has been. */
  stay(): void {
    this.#leavingSinceMs = undefined;
    this.update();
  }

  /** Aborts the run and begins no other. Resolves when it has ended. */
  end(): Promise<void> {
    this.#isOver = true;
    this.#pause?.cancel();
    this.#pause = undefined;
    this.update();
    if (this.isIdle) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.add(resolve));
  }

  #isImpatient(): boolean {
    return this.#leavingSinceMs !== undefined && this.#o.clock.monotonicMs() - this.#leavingSinceMs >= handOverPatienceMs;
  }

  #abort(run: Run, reason: string): void {
    if (run.abortedAtMs !== undefined) return;
    const { clock, lease, logger, onTurn } = this.#o;
    run.abortedAtMs = clock.monotonicMs();
    this.#overdue = clock.setTimer(
      heedMs,
      () => {
        logger.warn({ job: lease.job, epoch: run.epoch }, 'a job does not heed its signal and loses its lease');
        onTurn();
      },
      { background: true },
    );
    run.controller.abort(new LeaseLost(reason));
  }

  async #begin(epoch: number): Promise<void> {
    const { lease, work, logger } = this.#o;
    const run: Run = { epoch, controller: new AbortController() };
    this.#run = run;
    const { signal } = run.controller;
    let isLost = false;
    try {
      await work(epoch, signal, lease.ofEpoch(epoch));
      this.#failures = 0;
    } catch (error) {
      if (!signal.aborted) {
        this.#failures++;
        isLost = error instanceof LeaseLost;
        failedRuns.inc({ job: lease.job });
        logger.warn({ err: error, job: lease.job, epoch }, 'a job that one node does for all has failed, and is tried again');
      } else if (!(error instanceof LeaseLost) && error !== signal.reason && (error as Error)?.name !== 'AbortError') {
        logger.info({ err: error, job: lease.job, epoch }, 'a job that was aborted ended with an error');
      }
    }
    this.#ended(signal.aborted, isLost);
  }

  #ended(wasAborted: boolean, isLost: boolean): void {
    const { clock, onTurn } = this.#o;
    this.#run = undefined;
    this.#overdue?.cancel();
    this.#overdue = undefined;
    for (const resolve of this.#whenIdle) resolve();
    this.#whenIdle.clear();
    if (!wasAborted && !this.#isOver) {
      this.#pause = clock.setTimer(
        this.#pauseMs(),
        () => {
          this.#pause = undefined;
          this.update();
        },
        { background: true },
      );
    }
    this.update();
    if (wasAborted || isLost || this.#leavingSinceMs !== undefined) onTurn();
  }

  #pauseMs(): number {
    const { pauseMs } = this.#o;
    if (this.#failures === 0) return pauseMs;
    return Math.max(pauseMs, Math.min(longestPauseMs, 1_000 * 2 ** (this.#failures - 1)));
  }
}
