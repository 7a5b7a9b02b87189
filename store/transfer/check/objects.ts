/** Checks that the bytes of blobs outside of the store are there, as many as there should be. What they are is for a deep check, which reads them. */
import type { BlobId } from '../../blobs/contract.js';
import type { ExternalPlace } from '../../blobs/external.js';
import { storedBytesOf } from '../../blobs/frame.js';
import { headKey } from '../../blobs/keys.js';
import { decodeHead, type ExternalHead } from '../../blobs/records.js';
import { KvError } from '../../kv/contract.js';
import type { Inspection } from './inspection.js';

/** Each waits for a file system or a service. */
const objectsAtOnce = 8;

export class ObjectCheck {
  readonly #inspection: Inspection;
  /** Storages that turned out to be away, or are not set up. */
  readonly #away = new Set<ExternalPlace>();

  constructor(inspection: Inspection) {
    this.#inspection = inspection;
  }

  async check(blobs: readonly { id: BlobId; head: ExternalHead }[]): Promise<void> {
    for (let at = 0; at < blobs.length; at += objectsAtOnce) {
      await Promise.all(blobs.slice(at, at + objectsAtOnce).map(({ id, head }) => this.#checkOne(id, head)));
    }
  }

  async #checkOne(id: BlobId, { place, storageId, index }: ExternalHead): Promise<void> {
    const { options } = this.#inspection;
    if (this.#away.has(place)) return;
    const storage = options.blobs.storages().find((one) => one.place === place);
    if (!storage) return this.#noteAway(place, 'it is not set up');
    let found: number | undefined;
    try {
      found = await storage.size(storageId.toString('hex'));
    } catch (error) {
      if (error instanceof KvError && error.code === 'unavailable') return this.#noteAway(place, error.message);
      throw error;
    }
    const wanted = storedBytesOf(index);
    if (found === wanted) return;
    await this.#inspection.suspect({
      area: 'blobs',
      where: id,
      problem:
        found === undefined ? `its bytes are missing from ${place}` : `it has ${found} bytes in ${place} instead of ${wanted}`,
      // An object does not change: it is so as long as the blob has this one.
      isSo: async (tx) => {
        const value = await tx.get(headKey(id));
        const head = value && decodeHead(id, value);
        return head?.layout === 'external' && head.storageId.equals(storageId);
      },
    });
  }

  /** A storage that is not there is no damage to what lies in it. */
  #noteAway(place: ExternalPlace, why: string): void {
    if (this.#away.has(place)) return;
    this.#away.add(place);
    this.#inspection.note(`blobs in ${place} were not looked at: ${why}`);
  }
}
