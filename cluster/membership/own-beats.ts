/** The gossip heartbeats of this node: their numbers, and when each of the last ones was sent, which dates what others have heard of it. */

const keptBeats = 256;

export class OwnBeats {
  readonly #sentMs = new Float64Array(keptBeats).fill(Number.NEGATIVE_INFINITY);
  #last = 0;

  /** `spacingMs`: what is sent within so long goes under the same number, so that whoever asks a lot does not drive out what dates the rest. */
  constructor(readonly spacingMs: number) {}

  /** A number for something that is sent at `nowMs`, or a moment before. */
  next(nowMs: number): number {
    if (nowMs - this.lastMs < this.spacingMs) return this.#last;
    this.#last++;
    this.#sentMs[this.#last % keptBeats] = nowMs;
    return this.#last;
  }

  /** When this one was sent; undefined for what is too old to be remembered, and for what never was. */
  sentMs(beat: number): number | undefined {
    if (beat <= 0 || beat > this.#last || beat <= this.#last - keptBeats) return undefined;
    return this.#sentMs[beat % keptBeats];
  }

  /** When the last one was. */
  get lastMs(): number {
    return this.sentMs(this.#last) ?? Number.NEGATIVE_INFINITY;
  }
}
