/**
 * Ids of blobs. One that may come twice is named by the digest of its content, so that it is stored once. One that is unique, as received mail with its trace line,
 * is named by when it came, then by its digest: in a store with a million messages digests alone would put every head and every link on a page of its own,
 * which has to be read, logged and written back for it. Each store object has a stripe of its own before the time, so that nodes don't write at one spot (TRAPS 5).
 *
 * by content: SHA-256, 64 hex digits; by time: stripe 2, milliseconds since the epoch 12, the last 50 digits of the SHA-256
 */
import type { Clock, Random } from '../../ops/telemetry/index.js';
import type { BlobId } from './contract.js';

const timeDigits = 12;
/** How much of an id by time is not of the digest. */
const prefixDigits = 2 + timeDigits;

/** Makes the ids of one store object. */
export class BlobIds {
  readonly #clock: Clock;
  readonly #stripe: string;
  readonly #mayUseTime: () => boolean;

  constructor({ clock, random, mayUseTime }: { clock: Clock; random: Random; mayUseTime: () => boolean }) {
    this.#clock = clock;
    this.#stripe = random.bytes(1).toString('hex');
    this.#mayUseTime = mayUseTime;
  }

  /** The id of content with this digest (64 lower-case hex digits). Asked twice for unique content, it answers two. */
  of(digest: string, isUnique: boolean): BlobId {
    if (!isUnique || !this.#mayUseTime()) return digest;
    const time = Math.max(0, Math.floor(this.#clock.nowMs())).toString(16).padStart(timeDigits, '0').slice(-timeDigits);
    return this.#stripe + time + digest.slice(prefixDigits);
  }
}

/** Whether content with this digest may have this id. */
export function isIdOf(id: BlobId, digest: string): boolean {
  return id.length === digest.length && id.slice(prefixDigits) === digest.slice(prefixDigits);
}
