/**
 * Answers remembered for one generation of the directory. Right at any time: an answer is only given when the generation read from the store in the same
 * snapshot is the one that it was computed under.
 */
import type { KvReads } from '../kv/contract.js';
import { generationKey } from './keys.js';

/** How often the directory was written; ascending. */
export async function readGeneration(reads: KvReads): Promise<bigint> {
  const value = await reads.get(generationKey);
  return value ? value.readBigInt64LE(0) : 0n;
}

export class GenerationMemo<V> {
  readonly #maxEntries: number;
  readonly #entries = new Map<string, V>();
  #generation = -1n;

  constructor(maxEntries: number) {
    this.#maxEntries = maxEntries;
  }

  /** Whether asking for the generation first is worth a round trip. */
  mayHave(key: string): boolean {
    return this.#entries.has(key);
  }

  get(generation: bigint, key: string): V | undefined {
    return generation === this.#generation ? this.#entries.get(key) : undefined;
  }

  /** Answers of an older generation than one already seen are dropped. */
  set(generation: bigint, key: string, value: V): void {
    if (generation < this.#generation) return;
    if (generation > this.#generation) {
      this.#entries.clear();
      this.#generation = generation;
    }
    if (this.#entries.size >= this.#maxEntries) this.#entries.delete(this.#entries.keys().next().value!);
    this.#entries.set(key, value);
  }
}
