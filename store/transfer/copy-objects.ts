/**
 * What a copy does with blobs that lie outside of the store. Usually the target uses the same storage; then the source may never be used again, and says so.
 * Or they are copied into another directory, which gets a mark of its own.
 */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import { storedBytesOf } from '../blobs/frame.js';
import type { KvReads, KvStore } from '../kv/contract.js';
import { type BlobDestination, claimIn, claimStorages, markMoved, movedIn, movedSentence, noteOutcome } from './claim.js';
import { type ExternalTotals, type OnProgress, TransferRefused } from './contract.js';
import {
  countExternal,
  externalBlobs,
  hasMarks,
  marksOf,
  ObjectReader,
  openStoragesFor,
  type ReadStorageOptions,
} from './external.js';
import { liveNodes } from './nodes.js';
import { report, StorageFilling } from './restore-objects.js';
import { plainReader, type RowReader } from './rows.js';

export interface CopyBlobs {
  /** Of the source. */
  from: ReadStorageOptions;
  /** Of the target. */
  to: ReadStorageOptions;
  destination?: BlobDestination;
  /** Lets the settings in the target say where they are, before it is whole; also after an interruption. May be called again. */
  settle?(destination: BlobDestination): Promise<void>;
}

interface Parts {
  source: KvStore;
  target: KvStore;
  targetName: string;
  clock: Clock;
  random: Random;
  logger: Logger;
  blobs?: CopyBlobs;
  mayBeOnline?: boolean;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

/** Throws `TransferRefused` for a source whose blobs went elsewhere with another copy, and for one whose nodes would go on using them. */
export async function refuseSharing({ source, target, clock, blobs, mayBeOnline, signal }: Parts): Promise<void> {
  const moved = await source.read(movedIn);
  if (moved && moved.claim !== (await target.read(claimIn))?.mark) throw new TransferRefused(movedSentence(moved));
  if (blobs || !(await source.read(hasMarks))) return;
  const live = await liveNodes(source, clock, signal);
  if (live.length === 0 || (mayBeOnline && (await countExternal(source)).count === 0)) return;
  throw new TransferRefused(
    `nodes run on the source (${live.join(', ')}), and it keeps blobs in files or on S3, which the copy would share: stop them, or copy with --blobs copy`,
  );
}

/** Shares or copies what the rows in the target name, and notes in its claim what became of it. May be done again after an interruption. */
export async function moveBlobs(parts: Parts, reader: RowReader): Promise<void> {
  const { target, random, blobs } = parts;
  const totals = await countExternal(target);
  if (blobs) {
    const copied = await copyObjects(parts, blobs, reader, totals.bytes);
    const { destination } = blobs;
    return noteOutcome(target, random, {
      totals: totals.count > 0 ? { ...totals, ...copied } : totals,
      keepsMarks: false,
      ...(destination && { destination }),
    });
  }
  // A storage that holds nothing yet goes with the copy, too; but not from under nodes that may go on using it.
  const isShared = (await target.read(hasMarks)) && (totals.count > 0 || !parts.mayBeOnline);
  if (isShared) await shareStorages(parts);
  await noteOutcome(target, random, { totals: { ...totals, ...(isShared && { isShared }) }, keepsMarks: isShared });
}

/** The source is marked before the target is whole: at no time may nodes start on both. */
async function shareStorages(parts: Parts): Promise<void> {
  const { source, target, targetName, clock, random } = parts;
  const { mark } = await claimStorages(target, random, { mode: 'shared', places: [] });
  // Somebody may have started one meanwhile.
  await refuseSharing(parts);
  await markMoved(source, { claim: mark, to: targetName, at: new Date(clock.nowMs()).toISOString() });
}

async function copyObjects(
  parts: Parts,
  blobs: CopyBlobs,
  reader: RowReader,
  totalBytes: number,
): Promise<Pick<ExternalTotals, 'carried' | 'gone' | 'damaged'>> {
  const { source, logger } = parts;
  const storages = await openStoragesFor(parts, await blobs.from(reader.read), await reader.read(marksOf));
  const objects = new ObjectReader(storages, <T>(body: (reads: KvReads) => Promise<T>) => source.read(body), logger);
  const filling = new StorageFilling({ ...parts, blobs: { options: blobs.to } }, 'own');
  const carried = { count: 0, bytes: 0 };
  for await (const blob of externalBlobs(plainReader(parts.target))) {
    const { place, storageId, index } = blob.head;
    if (place !== 'files') {
      throw new TransferRefused('only blobs in files are copied: those on S3 can be shared, or take the way of a backup');
    }
    const writer = await filling.writerTo(place);
    try {
      await writer.begin(place, storageId.toString('hex'), storedBytesOf(index));
      const pieces = objects.read(blob);
      let next = await pieces.next();
      for (; !next.done; next = await pieces.next()) await writer.write(next.value);
      if (next.value) await writer.finish();
      else await writer.abort();
      if (next.value) {
        carried.count++;
        carried.bytes += storedBytesOf(index);
      }
    } catch (error) {
      await writer.abort();
      throw error;
    }
    report(parts, carried, totalBytes);
  }
  const { gone, damaged } = objects;
  return { carried, ...(gone > 0 && { gone }), ...(damaged > 0 && { damaged }) };
}
