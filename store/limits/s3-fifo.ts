/**
 * A bounded memory that one-time keys can't flood (S3-FIFO: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023): what is new waits in
 * a small queue and gets into the main one only when it is asked for again, or comes back soon after it was dropped.
 */

interface Entry<V> {
  value: V;
  weight: number;
  /** Asked for since it came in or was last spared; at most 3. */
  hits: number;
}

/**
 * The keys of a Map or Set from the oldest on, each once. What has been taken must be removed (and may be put in again, at the end). One iterator goes along: a
 * new one would have to skip all that was removed since the table was last laid out anew, thousands of places each time.
 */
class OldestFirst {
  #keys: IterableIterator<string>;

  constructor(private readonly of: { keys(): IterableIterator<string> }) {
    this.#keys = of.keys();
  }

  /** The container must not be empty. */
  take(): string {
    const next = this.#keys.next();
    if (!next.done) return next.value;
    // It had come to the end, and more was put in since.
    this.#keys = this.of.keys();
    return this.#keys.next().value!;
  }
}

const smallShare = 0.1;
const maxHits = 3;
/** Keys that are remembered after their values were dropped, where values have weights. */
const maxWeighedGhosts = 10_000;

export class S3Fifo<V> {
  readonly #maxWeight: number;
  readonly #maxSmall: number;
  readonly #maxGhosts: number;
  readonly #weightOf: ((value: V) => number) | undefined;
  // A Map keeps the order of insertion: its first key is the head of the queue.
  readonly #small = new Map<string, Entry<V>>();
  readonly #main = new Map<string, Entry<V>>();
  readonly #ghosts = new Set<string>();
  readonly #oldestSmall = new OldestFirst(this.#small);
  readonly #oldestMain = new OldestFirst(this.#main);
  readonly #oldestGhosts = new OldestFirst(this.#ghosts);
  #smallWeight = 0;
  #mainWeight = 0;

  /** Holds so many entries; with `weightOf` (of a value, in bytes say; it must not change), entries that together weigh at most `max`. */
  constructor(max: number, weightOf?: (value: V) => number) {
    this.#maxWeight = weightOf ? max : Math.max(2, max);
    this.#maxSmall = Math.max(1, Math.floor(this.#maxWeight * smallShare));
    this.#maxGhosts = weightOf ? maxWeighedGhosts : this.#maxWeight;
    this.#weightOf = weightOf;
  }

  get size(): number {
    return this.#small.size + this.#main.size;
  }

  /** Sum of the weights; the number of entries where these have none. */
  get weight(): number {
    return this.#smallWeight + this.#mainWeight;
  }

  get(key: string): V | undefined {
    const entry = this.#main.get(key) ?? this.#small.get(key);
    if (!entry) return undefined;
    if (entry.hits < maxHits) entry.hits++;
    return entry.value;
  }

  /** A value that alone weighs more than all may is not kept. */
  set(key: string, value: V): void {
    const weight = this.#weightOf?.(value) ?? 1;
    const entry = this.#main.get(key) ?? this.#small.get(key);
    if (entry && entry.weight === weight) {
      entry.value = value;
      return;
    }
    if (entry) this.delete(key);
    if (weight > this.#maxWeight) return;
    while (this.weight + weight > this.#maxWeight) this.#evict();
    if (this.#ghosts.delete(key)) this.#keepInMain(key, { value, weight, hits: 0 });
    else {
      this.#small.set(key, { value, weight, hits: 0 });
      this.#smallWeight += weight;
    }
  }

  delete(key: string): boolean {
    const small = this.#small.get(key);
    if (small) this.#smallWeight -= small.weight;
    const main = this.#main.get(key);
    if (main) this.#mainWeight -= main.weight;
    return this.#main.delete(key) || this.#small.delete(key);
  }

  clear(): void {
    this.#small.clear();
    this.#main.clear();
    this.#ghosts.clear();
    this.#smallWeight = 0;
    this.#mainWeight = 0;
  }

  #keepInMain(key: string, entry: Entry<V>): void {
    this.#main.set(key, entry);
    this.#mainWeight += entry.weight;
  }

  #evict(): void {
    if (this.#smallWeight >= this.#maxSmall || this.#main.size === 0) this.#evictSmall();
    else this.#evictMain();
  }

  #evictSmall(): void {
    const key = this.#oldestSmall.take();
    const entry = this.#small.get(key)!;
    this.#small.delete(key);
    this.#smallWeight -= entry.weight;
    if (entry.hits > 0) {
      entry.hits = 0;
      this.#keepInMain(key, entry);
      return;
    }
    this.#ghosts.add(key);
    if (this.#ghosts.size > this.#maxGhosts) this.#ghosts.delete(this.#oldestGhosts.take());
  }

  #evictMain(): void {
    for (;;) {
      const key = this.#oldestMain.take();
      const entry = this.#main.get(key)!;
      this.#main.delete(key);
      if (entry.hits === 0) {
        this.#mainWeight -= entry.weight;
        return;
      }
      entry.hits--;
      this.#main.set(key, entry);
    }
  }
}
