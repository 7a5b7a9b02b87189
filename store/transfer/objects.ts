/**
 * Blobs outside of the store within a backup: after its rows, each object as it is stored, in pieces of up to 1 MiB, one block each:
 *
 *   storage id 16 · place 1 (1: files, 2: S3) · end 1 (0: more follows, 1: whole, 2: purged meanwhile, does not count) · position 6 · stored bytes 6 · bytes
 */
import { createHash } from 'node:crypto';
import type { ExternalPlace } from '../blobs/external.js';
import { BackupDamaged, type ExternalTotals } from './contract.js';

const places: readonly (ExternalPlace | undefined)[] = [undefined, 'files', 's3'];
const ends = ['more', 'whole', 'dropped'] as const;
const headerBytes = 30;
/** Of a piece, so that its block is as long as those of rows. */
export const maxPieceBytes = 1024 * 1024 - headerBytes;

export interface ObjectPiece {
  storageId: Buffer;
  place: ExternalPlace;
  end: (typeof ends)[number];
  /** Where it begins in the object. */
  position: number;
  storedBytes: number;
  bytes: Buffer;
}

export function encodePiece({ storageId, place, end, position, storedBytes, bytes }: ObjectPiece): Buffer {
  const raw = Buffer.allocUnsafe(headerBytes + bytes.length);
  raw.set(storageId);
  raw[16] = places.indexOf(place);
  raw[17] = ends.indexOf(end);
  raw.writeUIntBE(position, 18, 6);
  raw.writeUIntBE(storedBytes, 24, 6);
  raw.set(bytes, headerBytes);
  return raw;
}

/** The piece in a block; shares its memory. Throws `BackupDamaged`. */
export function decodePiece(raw: Buffer): ObjectPiece {
  const place = raw.length < headerBytes ? undefined : places[raw[16]!];
  const end = place && ends[raw[17]!];
  if (!place || !end) throw new BackupDamaged('a blob in the backup is damaged');
  return {
    storageId: raw.subarray(0, 16),
    place,
    end,
    position: raw.readUIntBE(18, 6),
    storedBytes: raw.readUIntBE(24, 6),
    bytes: raw.subarray(headerBytes),
  };
}

/** Counts and digests objects, and knows whether their pieces follow one another. */
export class ObjectTally {
  readonly #hash = createHash('sha256');
  #open: { storageId: Buffer; position: number } | undefined;
  #count = 0;
  #bytes = 0;

  /** The next piece, and as it is written. Throws `BackupDamaged` for one that can't follow. */
  add(piece: ObjectPiece, raw: Buffer): void {
    const { storageId, end, position, storedBytes, bytes } = piece;
    this.#hash.update(raw);
    const isNext = this.#open
      ? this.#open.storageId.equals(storageId) && this.#open.position === position
      : position === 0 && end !== 'dropped';
    const after = position + bytes.length;
    if (!isNext || (end === 'whole' ? after !== storedBytes : after > storedBytes))
      throw new BackupDamaged('the pieces of a blob in the backup do not fit');
    this.#open = end === 'more' ? { storageId: Buffer.from(storageId), position: after } : undefined;
    if (end !== 'whole') return;
    this.#count++;
    this.#bytes += storedBytes;
  }

  get count(): number {
    return this.#count;
  }

  /** Of whole objects. */
  get bytes(): number {
    return this.#bytes;
  }

  /** At the end. */
  totals(): NonNullable<ExternalTotals['carried']> {
    if (this.#open) throw new BackupDamaged('a blob in the backup has no end');
    return { count: this.#count, bytes: this.#bytes, digest: this.#hash.copy().digest('hex') };
  }
}

/** Cuts what comes in pieces of any size into pieces of `maxPieceBytes`; the last one is held back until it is known to be that. */
export class PieceCutter {
  #parts: Buffer[] = [];
  #bytes = 0;

  /** Pieces that are full and not the last. */
  *push(bytes: Buffer): Generator<Buffer, void, undefined> {
    for (let rest = bytes; rest.length > 0; ) {
      if (this.#bytes === maxPieceBytes) yield this.take();
      const part = rest.subarray(0, maxPieceBytes - this.#bytes);
      this.#parts.push(part);
      this.#bytes += part.length;
      rest = rest.subarray(part.length);
    }
  }

  /** What is left. */
  take(): Buffer {
    const piece = Buffer.concat(this.#parts, this.#bytes);
    this.#parts = [];
    this.#bytes = 0;
    return piece;
  }
}
