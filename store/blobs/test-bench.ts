/**
 * What the tests of this folder stand on: a blob store on a memory store with a wall clock set by hand, and looks into the blob subspace.
 */
import { type Clock, silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { keysUnder, subspace } from '../keyspace.js';
import { KvError, type KvStore, type MemoryDatabase, type MemoryStore, openMemoryStore } from '../kv/index.js';
import type { BlobId, BlobStore, PreparedBlob, WriterOptions } from './contract.js';
import type { StoredObject } from './external.js';
import type { BlobStoreOptions } from './settings.js';
import { createBlobStore } from './store.js';

export interface Bench {
  kv: MemoryStore;
  blobs: BlobStore;
  clock: HandClock;
}

/** Real timers, wall clock by hand. */
export interface HandClock extends Clock {
  nowSeconds: number;
}

export function handClock(nowSeconds = 1_700_000_000): HandClock {
  return {
    ...systemClock,
    nowSeconds,
    nowMs() {
      return this.nowSeconds * 1000;
    },
  };
}

export function openBench(options: Partial<BlobStoreOptions> & { database?: MemoryDatabase; handClock?: HandClock } = {}): Bench {
  const clock = options.handClock ?? handClock();
  const kv = openMemoryStore({ database: options.database });
  const blobs = createBlobStore({ kv, clock, random: systemRandom, logger: silentLogger, ...options });
  return { kv, blobs, clock };
}

/** Writes `content` in pieces of `pieceBytes`, waiting whenever asked to. */
export async function upload(
  blobs: BlobStore,
  content: Buffer,
  pieceBytes = 10_000,
  options?: WriterOptions,
): Promise<PreparedBlob> {
  const writer = blobs.writer(options);
  for (let start = 0; start < content.length; start += pieceBytes)
    await writer.write(content.subarray(start, start + pieceBytes));
  return writer.finish();
}

export function linkTo(kv: KvStore, blobs: BlobStore, blob: PreparedBlob, queueId: string): Promise<void> {
  return kv.transact((tx) => blobs.linkPrepared(tx, blob, { kind: 'queue', queueId }));
}

export function unlinkFrom(kv: KvStore, blobs: BlobStore, id: BlobId, queueId: string): Promise<void> {
  return kv.transact(async (tx) => blobs.unlink(tx, id, { kind: 'queue', queueId }));
}

/** Keys per part of the blob subspace: `{head: 1, chunk: 3}`. */
export async function keyCounts(kv: KvStore): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const part of ['head', 'chunk', 'link', 'upload', 'candidate', 'expiry']) {
    const { begin, end } = keysUnder(subspace.blob, part);
    const count = (await kv.read((reads) => reads.getRange(begin, end))).length;
    if (count > 0) counts[part] = count;
  }
  return counts;
}

/** Purges until nothing more happens, a generation at a time. */
export async function purgeFully(bench: Pick<Bench, 'blobs' | 'clock'>, stepSeconds = 100, passes = 4): Promise<void> {
  for (let pass = 0; pass < passes; pass++) {
    bench.clock.nowSeconds += stepSeconds;
    while ((await bench.blobs.purge({ nowSeconds: bench.clock.nowSeconds })).more);
  }
}

export async function gather(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
}

/** What lies in the external storages, unfinished objects included. */
export async function objectsOf(blobs: BlobStore): Promise<StoredObject[]> {
  const objects: StoredObject[] = [];
  for (const storage of blobs.storages()) for await (const object of storage.list()) objects.push(object);
  return objects;
}

/** Bytes that LZ4 shrinks, different at every place. */
export function textOf(length: number, seed = 'a'): Buffer {
  const lines: string[] = [];
  for (let at = 0, line = 0; at < length; line++) {
    const text = `${seed}: line ${line} of a message that says little\r\n`;
    lines.push(text);
    at += text.length;
  }
  return Buffer.from(lines.join(''), 'latin1').subarray(0, length);
}

/** Lets `commits` commits through; the next one happens or not, and then the store is gone for this process. */
export function mortal(kv: KvStore, commits: number, isLastApplied: boolean): KvStore {
  let left = commits;
  return new Proxy(kv, {
    get(target, name) {
      if (name !== 'transact') return Reflect.get(target, name, target);
      return async (body: Parameters<KvStore['transact']>[0], options: Parameters<KvStore['transact']>[1]) => {
        if (left < 0) throw new KvError('unavailable', 'dead', 'outage');
        if (left-- > 0 || isLastApplied) {
          const value = await target.transact(body, options);
          if (left >= 0) return value;
        }
        throw new KvError('unavailable', 'dead', 'outage');
      };
    },
  });
}
