/** An ordered set of key texts in blocks, so that inserting among many keys moves only a few hundred of them. */
import { lowerBound } from '../key-text.js';

const maxBlockKeys = 512;

export class SortedKeys {
  /** Never an empty block; keys ascend within and across blocks. */
  readonly #blocks: string[][] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  add(key: string): void {
    const at = Math.max(this.#blockOf(key), 0);
    const block = this.#blocks[at];
    if (!block) {
      this.#blocks.push([key]);
      this.#size++;
      return;
    }
    const position = lowerBound(block, key);
    if (block[position] === key) return;
    block.splice(position, 0, key);
    this.#size++;
    if (block.length > maxBlockKeys) this.#blocks.splice(at + 1, 0, block.splice(maxBlockKeys >> 1));
  }

  delete(key: string): void {
    const at = this.#blockOf(key);
    const block = this.#blocks[at];
    if (!block) return;
    const position = lowerBound(block, key);
    if (block[position] !== key) return;
    block.splice(position, 1);
    this.#size--;
    if (block.length === 0) this.#blocks.splice(at, 1);
  }

  /** Keys of `[begin, end)`, ascending. The set must not change meanwhile. */
  *ascending(begin: string, end: string): Generator<string> {
    for (let at = Math.max(this.#blockOf(begin), 0); at < this.#blocks.length; at++) {
      const block = this.#blocks[at]!;
      for (let position = lowerBound(block, begin); position < block.length; position++) {
        if (block[position]! >= end) return;
        yield block[position]!;
      }
    }
  }

  /** Keys of `[begin, end)`, descending. The set must not change meanwhile. */
  *descending(begin: string, end: string): Generator<string> {
    for (let at = this.#blockOf(end); at >= 0; at--) {
      const block = this.#blocks[at]!;
      for (let position = lowerBound(block, end) - 1; position >= 0; position--) {
        if (block[position]! < begin) return;
        yield block[position]!;
      }
    }
  }

  /** Index of the last block whose first key is not above `key`; -1 when there is none. */
  #blockOf(key: string): number {
    let low = 0;
    let high = this.#blocks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#blocks[middle]![0]! <= key) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}
