/**
 * How far this node trusts itself (Lifeguard, Dadgar et al. 2018): one that runs late, or whose questions nobody answers, is likelier ill than all its
 * peers, so it gives them more time before it calls them silent.
 */

const worst = 3;
/** Good moments that make up for a bad one. */
const recoveryMoments = 8;

export class LocalHealth {
  #score = 0;
  #good = 0;

  /** By what silences and timeouts are stretched: 1 to 4. */
  get stretch(): number {
    return 1 + this.#score;
  }

  /** A timer came late, a helper did not answer at all, others have suspected this node. */
  worse(): void {
    this.#score = Math.min(this.#score + 1, worst);
    this.#good = 0;
  }

  /** A moment without anything of this kind: a heartbeat sent in time. */
  better(): void {
    if (this.#score === 0 || ++this.#good < recoveryMoments) return;
    this.#score--;
    this.#good = 0;
  }
}
