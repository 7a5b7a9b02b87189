/**
 * Knows whether a storage is the one that this installation uses. A random mark is kept in the key-value store and in the storage itself: a directory
 * that is not mounted, a wrong bucket or somebody else's storage is told from one that is just empty.
 *
 * record: version 1 · state 1 (0: the mark may not have been written yet) · mark 16
 */
import type { Random } from '../../ops/telemetry/index.js';
import { KvError, type KvStore } from '../kv/contract.js';
import type { ExternalPlace } from './external.js';
import { storageKey } from './keys.js';

const formatVersion = 1;
const markBytes = 16;

/** Reads and writes the mark in the storage itself. */
export interface MarkAccess {
  /** The mark's text, or undefined when there is none. */
  read(): Promise<string | undefined>;
  write(text: string): Promise<void>;
  /** What to look at when the mark is missing, e.g. `directory /srv/blobs`. */
  readonly name: string;
}

export class StorageIdentity {
  readonly #kv: KvStore;
  readonly #random: Random;
  readonly #place: ExternalPlace;
  readonly #access: MarkAccess;
  /** The mark, once it is known to have been written. */
  #mark: string | undefined;

  constructor(parts: { kv: KvStore; random: Random }, place: ExternalPlace, access: MarkAccess) {
    this.#kv = parts.kv;
    this.#random = parts.random;
    this.#place = place;
    this.#access = access;
  }

  /** Looks for the mark in the storage; writes it where this is the first use ever. Throws KvError `unavailable`. */
  async confirm(): Promise<void> {
    if (this.#mark !== undefined) return this.#compare(this.#mark, await this.#access.read());
    const { mark, isWritten } = await this.#record();
    const found = await this.#access.read();
    if (isWritten || found !== undefined) this.#compare(mark, found);
    if (!isWritten) {
      // Nodes that come here at the same time write the same mark.
      if (found === undefined) await this.#access.write(mark);
      this.#compare(mark, await this.#access.read());
      await this.#kv.transact(async (tx) => tx.set(storageKey(this.#place), encodeMark(mark, true)), { label: 'blob-storage' });
    }
    this.#mark = mark;
  }

  #compare(mark: string, found: string | undefined): void {
    if (found === mark) return;
    const what =
      found === undefined
        ? `${this.#access.name} does not hold this installation's blobs: is it mounted?`
        : `${this.#access.name} holds the blobs of another installation`;
    throw new KvError('unavailable', what, 'outage');
  }

  #record(): Promise<{ mark: string; isWritten: boolean }> {
    const fresh = this.#random.bytes(markBytes).toString('hex');
    return this.#kv.transact(
      async (tx) => {
        const value = await tx.get(storageKey(this.#place));
        if (value) return decodeMark(value);
        tx.set(storageKey(this.#place), encodeMark(fresh, false));
        return { mark: fresh, isWritten: false };
      },
      { label: 'blob-storage' },
    );
  }
}

/** The record of a mark of 32 hex digits. `isWritten`: a storage without it is not the one. */
export function encodeMark(mark: string, isWritten: boolean): Buffer {
  return Buffer.concat([Buffer.from([formatVersion, isWritten ? 1 : 0]), Buffer.from(mark, 'hex')]);
}

export function decodeMark(value: Buffer): { mark: string; isWritten: boolean } {
  if (value.length !== 2 + markBytes || value[0] !== formatVersion) throw new Error('unknown blob storage record format');
  return { mark: value.toString('hex', 2), isWritten: value[1] === 1 };
}
