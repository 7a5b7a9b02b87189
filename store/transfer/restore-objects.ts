/**
 * Puts the blobs of a backup that lay outside of the store where the restored installation will look for them. A storage is filled that bears no mark, and
 * gets one of its own: so the installation that the backup was made of and the restored one never take each other's blobs for theirs.
 */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { ExternalBlobOptions, ExternalPlace } from '../blobs/external.js';
import type { StorageMark } from '../blobs/marked.js';
import type { ExternalStorages } from '../blobs/storages.js';
import { KvError, type KvStore } from '../kv/contract.js';
import type { BackupReader } from './backup-reader.js';
import { type BlobDestination, type ClaimMode, claimStorages } from './claim.js';
import { type OnProgress, TransferInterrupted, TransferRefused } from './contract.js';
import { marksOf, ObjectWriter, openStoragesFor, type ReadStorageOptions } from './external.js';
import { plainReader } from './rows.js';

export interface RestoreBlobs {
  options: ReadStorageOptions;
  /**
   * The storages still hold the blobs of the installation that the backup was made of, which is gone: they are written again and used. Otherwise such a storage is
   * refused.
   */
  inPlace?: boolean;
  /** Where they go instead of where the settings in the backup say. */
  destination?: BlobDestination;
  /** Lets the settings in the target say so, before it is whole; also after an interruption. May be called again. */
  settle?(destination: BlobDestination): Promise<void>;
}

export interface RestoreParts {
  target: KvStore;
  blobs?: RestoreBlobs;
  clock: Clock;
  random: Random;
  logger: Logger;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

/** Reads the backup to its end. Throws `TransferRefused`, `TransferInterrupted`, `BackupDamaged`, KvError `unavailable`. */
export async function restoreObjects(reader: BackupReader, parts: RestoreParts, totalBytes?: number): Promise<void> {
  const filling = new StorageFilling(parts, parts.blobs?.inPlace ? 'in-place' : 'own');
  let writer: ObjectWriter | undefined;
  try {
    for await (const { storageId, place, end, position, storedBytes, bytes } of reader.objectPieces()) {
      if (position === 0 && end !== 'dropped') {
        writer = await filling.writerTo(place);
        await writer.begin(place, storageId.toString('hex'), storedBytes);
      }
      if (end === 'dropped') await writer!.abort();
      else await writer!.write(bytes);
      if (end === 'whole') await writer!.finish();
      report(parts, reader.objects, totalBytes);
    }
  } catch (error) {
    await writer?.abort();
    throw error;
  }
}

export function report(
  { signal, onProgress }: Pick<RestoreParts, 'signal' | 'onProgress'>,
  { count, bytes }: { count: number; bytes: number },
  totalBytes?: number,
): void {
  if (signal?.aborted) throw new TransferInterrupted('interrupted while blobs were copied; the same command goes on from there');
  onProgress?.({ stage: 'objects', keys: count, bytes, ...(totalBytes !== undefined && { totalBytes }) });
}

/** Storages of a target, opened and claimed when the first object of each place comes. */
export class StorageFilling {
  readonly #parts: RestoreParts;
  readonly #mode: ClaimMode;
  readonly #writers = new Map<ExternalPlace, ObjectWriter>();

  constructor(parts: RestoreParts, mode: 'own' | 'in-place') {
    this.#parts = parts;
    this.#mode = mode;
  }

  async writerTo(place: ExternalPlace): Promise<ObjectWriter> {
    const known = this.#writers.get(place);
    if (known) return known;
    const { blobs, target, random } = this.#parts;
    if (!blobs) throw new TransferRefused('the backup has blobs that lay outside of the store, and nothing says where they go');
    const { read } = plainReader(target);
    const options = await blobs.options(read);
    if (!options[place]) {
      throw new TransferRefused(`the backup has blobs that lay in ${place}, and the settings in it do not say where that is`);
    }
    const before = (await read(marksOf)).get(place);
    const places = [...this.#writers.keys(), place];
    const { mark, isResumed } = await claimStorages(target, random, { mode: this.#mode, places });
    const storages =
      this.#mode === 'in-place' ? await this.#inPlace(place, options, before) : await this.#own(place, options, before, mark);
    const isInPlace = this.#mode === 'in-place';
    const writer = new ObjectWriter(storages, { mayHaveSome: isResumed || isInPlace, writesAgain: isInPlace });
    this.#writers.set(place, writer);
    return writer;
  }

  /** The storage that the installation had. */
  async #inPlace(place: ExternalPlace, options: ExternalBlobOptions, before: StorageMark | undefined): Promise<ExternalStorages> {
    if (!before)
      throw new TransferRefused(`the backup does not tell how its storage (${place}) was marked: restore into another`);
    const storages = await openStoragesFor(this.#parts, options, new Map([[place, before]]));
    await refusing(storages.storage(place).check());
    return storages;
  }

  /** One that nobody used before, but for an earlier attempt. */
  async #own(
    place: ExternalPlace,
    options: ExternalBlobOptions,
    before: StorageMark | undefined,
    mark: string,
  ): Promise<ExternalStorages> {
    const storages = await openStoragesFor(this.#parts, options, new Map([[place, { mark, isWritten: false }]]));
    try {
      await refusing(storages.storage(place).check());
    } catch (error) {
      if (!(error instanceof TransferRefused) || !before) throw error;
      const old = await openStoragesFor(this.#parts, options, new Map([[place, before]]));
      const isOld = await old
        .storage(place)
        .check()
        .then(
          () => true,
          () => false,
        );
      if (!isOld) throw error;
      throw new TransferRefused(
        `${nameOf(place, options)} holds the blobs of the installation that this comes from: name another place, or, when that installation is gone for good, say --blobs-in-place`,
        { cause: error },
      );
    }
    return storages;
  }
}

function nameOf(place: ExternalPlace, { files, s3 }: ExternalBlobOptions): string {
  return place === 'files' ? `directory ${files?.directory}` : `bucket ${s3?.bucket}`;
}

/** Before anything is written there, a storage that is not the right one is a refusal. */
async function refusing(checked: Promise<void>): Promise<void> {
  try {
    await checked;
  } catch (error) {
    if (error instanceof KvError) throw new TransferRefused(error.message, { cause: error });
    throw error;
  }
}
