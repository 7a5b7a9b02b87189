/** Attempts that are under way: whoever guesses over many connections at once must not have all of them judged by what was known before the first. */
import type { Clock } from '../../ops/telemetry/index.js';

/** An attempt of which nothing more is heard (the session ended, the directory could not be asked) is over after this. */
const forgottenAfterMs = 60_000;
const maxKeys = 10_000;

export class AttemptsUnderWay {
  /** When each began, the oldest first; monotonic. */
  readonly #begun = new Map<string, number[]>();

  constructor(readonly clock: Clock) {}

  /** How many there were already. */
  begin(key: string): number {
    const nowMs = this.clock.monotonicMs();
    const begun = this.#under(key, nowMs);
    // Keys that nobody asks for any more are found by their age: the oldest come first.
    if (begun.length === 0 && this.#begun.size >= maxKeys) this.#begun.delete(this.#begun.keys().next().value!);
    begun.push(nowMs);
    this.#begun.delete(key);
    this.#begun.set(key, begun);
    return begun.length - 1;
  }

  end(key: string): void {
    const begun = this.#begun.get(key);
    begun?.shift();
    if (begun?.length === 0) this.#begun.delete(key);
  }

  #under(key: string, nowMs: number): number[] {
    const begun = this.#begun.get(key);
    return begun ? begun.filter((atMs) => nowMs - atMs < forgottenAfterMs) : [];
  }
}
