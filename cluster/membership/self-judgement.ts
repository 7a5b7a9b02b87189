/**
 * How this node stands by its own clock: whether anybody can have declared it dead. That is decided before anybody can have: who watches the row measures its
 * standstill from the end of a look, so later than the heartbeat began that the look found.
 */
import type { FailureTiming } from './contract.js';
import type { Detector } from './detector.js';

export class SelfJudgement {
  /** Monotonic; beginning of the last heartbeat that came through. */
  #lastBeatMs = 0;
  /** It had to step down once since then: what gossip says afterwards does not undo it. */
  #isDown = false;

  constructor(
    readonly timing: Pick<FailureTiming, 'standstillMs' | 'termMs'>,
    readonly detector?: Pick<Detector, 'isVouchedFor'>,
  ) {}

  get lastBeatMs(): number {
    return this.#lastBeatMs;
  }

  /** A heartbeat that was begun at `startMs` has come through, and the fence stood. */
  beaten(startMs: number): void {
    this.#lastBeatMs = startMs;
    this.#isDown = false;
  }

  /**
   * Others may have found this node dead: no heartbeat for a term, or for the short standstill while nobody who counts is known to hear it. To be asked
   * before anything is taken in that could make it look better.
   */
  isStoreless(nowMs: number): boolean {
    const ageMs = nowMs - this.#lastBeatMs;
    this.#isDown ||= ageMs >= this.timing.termMs;
    this.#isDown ||= ageMs >= this.timing.standstillMs && this.detector?.isVouchedFor(nowMs) === false;
    return this.#isDown;
  }
}
