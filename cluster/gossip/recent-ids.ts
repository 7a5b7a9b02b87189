/**
 * Which published messages have come straight in the last moments: the same may come by gossipsub once more, and must be passed on to it then, so that it can
 * tell others of them, though it isn't handed up again.
 */
const generationMs = 10_000;
/** In each of two generations; more are forgotten, and not passed on then. */
const maxIds = 16_384;

export class RecentIds {
  #young = new Set<string>();
  #old = new Set<string>();
  #turnedMs = Number.NEGATIVE_INFINITY;

  add(id: string, nowMs: number): void {
    if (nowMs - this.#turnedMs >= generationMs || this.#young.size >= maxIds) {
      this.#old = nowMs - this.#turnedMs >= 2 * generationMs ? new Set() : this.#young;
      this.#young = new Set();
      this.#turnedMs = nowMs;
    }
    this.#young.add(id);
  }

  /** Whether it was there; it isn't any more. */
  take(id: string): boolean {
    return this.#young.delete(id) || this.#old.delete(id);
  }
}
