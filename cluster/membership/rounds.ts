/** When this node goes round: one round after the other, at a pace that may change at any moment, sooner when somebody hurries. */
import type { Clock, Timer } from '../../ops/telemetry/index.js';

export interface RoundsOptions {
  clock: Clock;
  /** Answers whether it came through. Never rejects. */
  round: () => Promise<boolean>;
  /** From the beginning of a round to that of the next, asked again whenever `retime` is called. */
  intervalMs: () => number;
  /** After a round that failed; at most. */
  retryMs: number;
  /** Between two rounds that others have asked for, as long as they don't ask for many. */
  hurryMs: number;
  /** The same in the long run, whatever they ask for. */
  sustainedMs: number;
}

/** Rounds that others may have in a row before it is `sustainedMs` from one to the next. */
const burstRounds = 20;

export class Rounds {
  readonly #o: RoundsOptions;
  /** When the last round began. */
  startedMs: number;
  #isOver = false;
  #isWanted = false;
  /** A round has been asked for while one was under way: when it may begin. */
  #hurriedMs = Number.POSITIVE_INFINITY;
  /** As if all rounds so far had come `sustainedMs` apart. */
  #paidMs = Number.NEGATIVE_INFINITY;
  #hasFailed = false;
  #endedMs = 0;
  #isRunning = false;
  #timer: Timer | undefined;
  #timerAtMs = 0;
  #proceed: (() => void) | undefined;
  #loop: Promise<void> = Promise.resolve();

  constructor(options: RoundsOptions) {
    this.#o = options;
    this.startedMs = options.clock.monotonicMs();
  }

  /** The first round begins an interval from now. */
  start(): void {
    this.startedMs = this.#o.clock.monotonicMs();
    this.#loop = this.#run();
  }

  /** A round at once, or right after the one that is under way. */
  wake(): void {
    this.#isWanted = true;
    this.#proceed?.();
  }

  /** A round soon: others ask for it, so not as often as they like. */
  hurry(): void {
    const { hurryMs, sustainedMs } = this.#o;
    this.retime(Math.max(this.startedMs + hurryMs, this.#paidMs - burstRounds * sustainedMs));
  }

  /** The interval may be another now, or the next round is wanted at `atMs`. */
  retime(atMs = Number.POSITIVE_INFINITY): void {
    if (!this.#proceed) {
      // Under way: what it has read may be older than the wish.
      if (this.#isRunning) this.#hurriedMs = Math.min(this.#hurriedMs, atMs);
      return;
    }
    const dueMs = Math.min(this.#dueMs(), atMs);
    if (dueMs < this.#timerAtMs) this.#arm(dueMs);
  }

  /** Resolves when nothing is under way any more. */
  async stop(): Promise<void> {
    this.#isOver = true;
    this.#proceed?.();
    await this.#loop;
  }

  async #run(): Promise<void> {
    for (;;) {
      if (!this.#isWanted && !this.#isOver) await this.#pause();
      if (this.#isOver) return;
      this.#isWanted = false;
      this.startedMs = this.#o.clock.monotonicMs();
      this.#paidMs = Math.max(this.#paidMs, this.startedMs) + this.#o.sustainedMs;
      this.#hurriedMs = Number.POSITIVE_INFINITY;
      this.#isRunning = true;
      this.#hasFailed = !(await this.#o.round());
      this.#isRunning = false;
      this.#endedMs = this.#o.clock.monotonicMs();
    }
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      this.#proceed = () => {
        this.#timer?.cancel();
        this.#proceed = undefined;
        resolve();
      };
      this.#arm(Math.min(this.#dueMs(), this.#hurriedMs));
    });
  }

  #dueMs(): number {
    const { retryMs, intervalMs } = this.#o;
    // A failed round may have taken long: the next one waits from its end.
    return this.#hasFailed ? this.#endedMs + Math.min(retryMs, intervalMs()) : this.startedMs + intervalMs();
  }

  #arm(atMs: number): void {
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    const delayMs = Math.max(atMs - this.#o.clock.monotonicMs(), 1);
    this.#timer = this.#o.clock.setTimer(delayMs, () => this.#proceed?.(), { background: true });
  }
}
