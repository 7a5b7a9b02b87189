/**
 * Counts and digests of rows, by subspace. The digest is a chain: SHA-256 of the digest so far and the next few rows, so that it can be written down anywhere
 * and taken up again, unlike the inside of a hash. How many rows go together follows from the rows alone.
 */
import { hash } from 'node:crypto';
import type { TransferTotals } from './contract.js';
import { spaceName, spaceOf } from './spaces.js';

const digestBytes = 32;
/** Rows up to this go into one step of the chain; a longer row has one of its own. */
const stepBytes = 8_192;
/** Lengths of key and value, before them. */
const rowHeadBytes = 8;

/** As it is stored: subspace, keys, bytes, digest, rows of the step that is not full yet. */
export type PackedTally = [number, number, number, Buffer, Buffer][];

class SpaceTally {
  keys = 0;
  bytes = 0;
  /** The digest so far, and after it the rows that are not in it yet. */
  #step = Buffer.alloc(digestBytes + stepBytes);
  #end = digestBytes;

  static of(keys: number, bytes: number, digest: Buffer, rows: Buffer): SpaceTally {
    const tally = new SpaceTally();
    Object.assign(tally, { keys, bytes });
    tally.#step.set(digest);
    tally.#step.set(rows, digestBytes);
    tally.#end += rows.length;
    return tally;
  }

  add(key: Uint8Array, value: Uint8Array): void {
    const length = rowHeadBytes + key.length + value.length;
    if (this.#end + length > this.#step.length) this.#close();
    if (length > stepBytes) {
      const long = Buffer.allocUnsafe(digestBytes + length);
      this.#step.copy(long, 0, 0, digestBytes);
      writeRow(long, digestBytes, key, value);
      this.#step.set(hash('sha256', long, 'buffer'));
    } else this.#end = writeRow(this.#step, this.#end, key, value);
    this.keys++;
    this.bytes += key.length + value.length;
  }

  /** The digest over all rows. */
  get digest(): Buffer {
    const { digest, rows } = this.parts;
    return rows.length === 0 ? digest : hash('sha256', this.#step.subarray(0, this.#end), 'buffer');
  }

  get parts(): { digest: Buffer; rows: Buffer } {
    return {
      digest: Buffer.from(this.#step.subarray(0, digestBytes)),
      rows: Buffer.from(this.#step.subarray(digestBytes, this.#end)),
    };
  }

  #close(): void {
    if (this.#end === digestBytes) return;
    this.#step.set(hash('sha256', this.#step.subarray(0, this.#end), 'buffer'));
    this.#end = digestBytes;
  }
}

/** Answers where the row ends. */
function writeRow(into: Buffer, at: number, key: Uint8Array, value: Uint8Array): number {
  into.writeUInt32BE(key.length, at);
  into.writeUInt32BE(value.length, at + 4);
  into.set(key, at + rowHeadBytes);
  into.set(value, at + rowHeadBytes + key.length);
  return at + rowHeadBytes + key.length + value.length;
}

export class Tally {
  readonly #spaces = new Map<number, SpaceTally>();
  keys = 0;
  bytes = 0;

  /** Rows must come in the order of their keys. */
  add(key: Uint8Array, value: Uint8Array): void {
    const number = spaceOf(key);
    let space = this.#spaces.get(number);
    if (!space) this.#spaces.set(number, (space = new SpaceTally()));
    space.add(key, value);
    this.keys++;
    this.bytes += key.length + value.length;
  }

  pack(): PackedTally {
    return [...this.#spaces].map(([number, space]) => {
      const { digest, rows } = space.parts;
      return [number, space.keys, space.bytes, digest, rows];
    });
  }

  static unpack(packed: PackedTally): Tally {
    const tally = new Tally();
    for (const [number, keys, bytes, digest, rows] of packed) {
      tally.#spaces.set(number, SpaceTally.of(keys, bytes, digest, rows));
      tally.keys += keys;
      tally.bytes += bytes;
    }
    return tally;
  }

  totals(): Omit<TransferTotals, 'externalBlobs'> {
    const subspaces: TransferTotals['subspaces'] = {};
    for (const [number, { keys, bytes, digest }] of this.#spaces) {
      subspaces[spaceName(number)] = { keys, bytes, digest: digest.toString('hex') };
    }
    return { keys: this.keys, bytes: this.bytes, subspaces };
  }

  /** A sentence about the first subspace in which `other` differs; undefined when all are the same. */
  differenceTo(other: Tally): string | undefined {
    for (const number of new Set([...this.#spaces.keys(), ...other.#spaces.keys()])) {
      const [mine, theirs] = [this.#spaces.get(number), other.#spaces.get(number)];
      const name = spaceName(number);
      if (mine?.keys !== theirs?.keys) return `${name} has ${theirs?.keys ?? 0} keys instead of ${mine?.keys ?? 0}`;
      if (mine && theirs && !mine.digest.equals(theirs.digest)) return `${name} has other content under its ${mine.keys} keys`;
    }
    return undefined;
  }
}
