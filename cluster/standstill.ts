/**
 * Tells for how long things in the store have stood still, on the watcher's own monotonic clock alone (TRAPS 20). A watcher that could not look for a
 * while (an outage, a paused process, a slow loop) knows nothing of that while: all its terms start afresh then, so that nobody is thought dead
 * for an outage that kept everybody from writing.
 */

interface Seen {
  state: string;
  /** End of the look that first saw this state. */
  sinceMs: number;
}

export class StandstillWatch {
  #seen = new Map<string, Seen>();
  #lookStartMs = 0;
  #lookEndMs = Number.NEGATIVE_INFINITY;
  #isInterrupted = true;

  /** `maxGapMs`: between the ends of two looks; beyond it all terms start afresh. */
  constructor(readonly maxGapMs: number) {}

  /**
   * One successful look at everything that is watched; what is not in `states` is forgotten. `startMs` and `endMs` (monotonic) are the moments before
   * the look was begun and after its answer came. Answers the ids that are new or have changed.
   */
  look(states: ReadonlyMap<string, string>, startMs: number, endMs: number): string[] {
    const isInterrupted = endMs - this.#lookEndMs > this.maxGapMs;
    this.#isInterrupted = isInterrupted;
    const changed: string[] = [];
    const seen = new Map<string, Seen>();
    for (const [id, state] of states) {
      const before = this.#seen.get(id);
      const isSame = before?.state === state;
      if (!isSame) changed.push(id);
      seen.set(id, isSame && !isInterrupted ? before : { state, sinceMs: endMs });
    }
    this.#seen = seen;
    this.#lookStartMs = startMs;
    this.#lookEndMs = endMs;
    return changed;
  }

  /** Whether the last look was the first one after a gap: what it saw changed may have changed long before. */
  get isInterrupted(): boolean {
    return this.#isInterrupted;
  }

  /**
   * For how long `id` is known to have stood still: from the end of the look that first saw it as it is, to the beginning of the last one. So it is
   * never more than what has passed on the other side; 0 for what is not known.
   */
  stoodStillMs(id: string): number {
    const seen = this.#seen.get(id);
    return seen ? Math.max(0, this.#lookStartMs - seen.sinceMs) : 0;
  }

  /** Since when (monotonic) `id` has been seen as it is. */
  sinceMs(id: string): number | undefined {
    return this.#seen.get(id)?.sinceMs;
  }
}
