/**
 * How surprising a silence is (Hayashibara et al., "The φ accrual failure detector"): φ = -log10 of the probability that the next news still comes, were
 * the intervals between news distributed normally as those of the last while. Works from the first news on: the interval agreed upon is the first guess.
 */

const keptIntervals = 64;
const highestPhi = 1_000;

/** The exponent of a logistic curve that follows the normal distribution: within 0.02 % of it. */
const exponent = (deviations: number): number => deviations * (1.5976 + 0.070566 * deviations * deviations);

/** How many standard deviations after the mean φ reaches `phi`. */
export function deviationsOf(phi: number): number {
  let [low, high] = [-10, 100];
  for (let step = 0; step < 60; step++) {
    const middle = (low + high) / 2;
    if (phiAt(middle) < phi) low = middle;
    else high = middle;
  }
  return high;
}

function phiAt(deviations: number): number {
  const x = exponent(deviations);
  return Math.min((x > 30 ? x : Math.log1p(Math.exp(x))) / Math.LN10, highestPhi);
}

/** The intervals between the last pieces of news of one peer. */
export class ArrivalEstimate {
  readonly #intervalsMs = new Float64Array(keptIntervals);
  #count = 0;
  #next = 0;
  #sumMs = 0;
  #squares = 0;

  /** `expectedMs`: between two pieces of news, when all is well. */
  constructor(readonly expectedMs: number) {
    this.add(expectedMs * 0.75);
    this.add(expectedMs * 1.25);
  }

  /** News has come `intervalMs` after the last. What is far beyond the expected counts as three times it: an outage is no rhythm. */
  add(intervalMs: number): void {
    const kept = Math.min(intervalMs, 3 * this.expectedMs);
    const gone = this.#intervalsMs[this.#next]!;
    this.#intervalsMs[this.#next] = kept;
    this.#next = (this.#next + 1) % keptIntervals;
    this.#count = Math.min(this.#count + 1, keptIntervals);
    if (this.#next === 0) this.#sumUp();
    else {
      this.#sumMs += kept - gone;
      this.#squares += kept * kept - gone * gone;
    }
  }

  /** Never less than agreed upon: news that comes twice as often, by several ways, may stop coming twice as often. */
  get meanMs(): number {
    return Math.max(this.#sumMs / this.#count, this.expectedMs);
  }

  get deviationMs(): number {
    const meanMs = this.#sumMs / this.#count;
    return Math.max(Math.sqrt(Math.max(this.#squares / this.#count - meanMs * meanMs, 0)), 0.2 * this.expectedMs);
  }

  /** φ after a silence of `silenceMs`. 0 to 1 000. */
  phi(silenceMs: number): number {
    return phiAt((silenceMs - this.meanMs) / this.deviationMs);
  }

  /** The silence after which φ is what it is at so many standard deviations. */
  silenceMs(deviations: number): number {
    return this.meanMs + deviations * this.deviationMs;
  }

  /** Once in a while, so that rounding errors don't add up. */
  #sumUp(): void {
    this.#sumMs = 0;
    this.#squares = 0;
    for (const intervalMs of this.#intervalsMs) {
      this.#sumMs += intervalMs;
      this.#squares += intervalMs * intervalMs;
    }
  }
}
