/**
 * The purge's removals of external objects: a few at a time, because each waits for a service; and none at a place that turned out to be away.
 */
import { KvError } from '../kv/contract.js';
import type { ExternalPlace } from './external.js';
import type { ExternalUpload } from './records.js';
import { removeObject } from './removal.js';
import type { BlobSettings } from './settings.js';

const removalsAtOnce = 8;

/** One pass of the purge. */
export class ObjectRemovals {
  readonly #settings: BlobSettings;
  readonly #nowSeconds: number;
  readonly #away = new Set<ExternalPlace>();
  readonly #running = new Set<Promise<void>>();
  #failure: { error: unknown } | undefined;

  constructor(settings: BlobSettings, nowSeconds: number) {
    this.#settings = settings;
    this.#nowSeconds = nowSeconds;
  }

  /** Begins to remove the object of a garbage record; waits while too many are being removed. */
  async add(storageId: Buffer, record: ExternalUpload): Promise<void> {
    const removal = this.#remove(storageId, record)
      .catch((error) => {
        this.#failure ??= { error };
      })
      .finally(() => this.#running.delete(removal));
    this.#running.add(removal);
    if (this.#running.size >= removalsAtOnce) await Promise.race(this.#running);
  }

  /** Waits for all that were begun. Throws what one of them failed with, unless its place is away. */
  async settled(): Promise<void> {
    await Promise.all(this.#running);
    if (this.#failure) throw this.#failure.error;
  }

  /** A lingering object is removed twice, far apart: what its writer had sent may have arrived after the first time. */
  async #remove(storageId: Buffer, record: ExternalUpload): Promise<void> {
    if (this.#away.has(record.place)) return;
    const isLast = !record.isLingering || this.#nowSeconds - record.sinceSeconds >= this.#settings.abandonedUploadSeconds;
    if (!isLast && record.isRemovedOnce) return;
    try {
      await removeObject(this.#settings, storageId, record, isLast);
    } catch (error) {
      if (!(error instanceof KvError) || error.code !== 'unavailable') throw error;
      // Its records stay for the next pass.
      if (!this.#away.has(record.place))
        this.#settings.logger.warn({ err: error, place: record.place }, 'the purge could not remove blobs there; it tries again');
      this.#away.add(record.place);
    }
  }
}
