/** Randomness from a seed. Streams that are forked by name don't disturb one another: one more draw in one of them changes nothing in the others. */
import type { Random } from '../../ops/telemetry/index.js';

/** FNV-1a over a text, mixed into `seed`. 32 bits. */
function mixed(seed: number, text: string): number {
  let hash = (0x811c9dc5 ^ Math.imul(seed, 0x9e3779b1)) >>> 0;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** Chris Doty-Humphrey's sfc32: 128 bits of state, passes PractRand. */
export class SeededRandom implements Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(
    readonly seed: number,
    readonly name = '',
  ) {
    this.#a = mixed(seed, `${name}/a`);
    this.#b = mixed(seed, `${name}/b`);
    this.#c = mixed(seed, `${name}/c`);
    for (let turn = 0; turn < 12; turn++) this.#next();
  }

  /** An independent stream. */
  fork(name: string): SeededRandom {
    return new SeededRandom(this.seed, `${this.name}/${name}`);
  }

  float(): number {
    return this.#next() / 0x1_0000_0000;
  }

  bytes(length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    for (let at = 0; at < length; at++) bytes[at] = this.#next() & 0xff;
    return bytes;
  }

  /** An integer of 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor(this.float() * limit);
  }

  between(low: number, high: number): number {
    return low + this.float() * (high - low);
  }

  chance(probability: number): boolean {
    return this.float() < probability;
  }

  pick<T>(list: readonly T[]): T {
    const one = list[this.below(list.length)];
    if (one === undefined) throw new RangeError('there is nothing to pick from');
    return one;
  }

  /** Another order of the same list. */
  shuffled<T>(list: readonly T[]): T[] {
    const out = [...list];
    for (let at = out.length - 1; at > 0; at--) {
      const other = this.below(at + 1);
      [out[at], out[other]] = [out[other]!, out[at]!];
    }
    return out;
  }

  #next(): number {
    const sum = (this.#a + this.#b + this.#counter++) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }
}
