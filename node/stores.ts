/** Opens the store and the rooms that stand on it: blobs, mailboxes, directory, queue. Used by the node and by the command line alike. */
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Clock, type Logger, type Random, systemClock, systemRandom } from '../ops/telemetry/index.js';
import { type BlobStore, createBlobStore } from '../store/blobs/index.js';
import { createDirectory, type Directory } from '../store/directory/index.js';
import { KvError, type KvStore, openEmbeddedStore } from '../store/kv/index.js';
import { createMailStore, type OpenMailStore } from '../store/mail/index.js';
import { createQueue, type Queue } from '../store/queue/index.js';
import type { Config } from './config/schema.js';
import { StartError } from './start-error.js';

/** Mail is routed by directory answers of at most this age; passwords are always checked afresh. */
const lookupFreshMs = 50;

export interface Stores {
  clock: Clock;
  random: Random;
  kv: KvStore;
  blobs: BlobStore;
  mail: OpenMailStore;
  directory: Directory;
  queue: Queue;
  close(): Promise<void>;
}

/** Throws `StartError` when another process has the store, or there is none and `createIfAbsent` is false. */
export async function openStores(
  config: Pick<Config, 'data' | 'store' | 'directory'>,
  deps: { logger: Logger; clock?: Clock; random?: Random; createIfAbsent?: boolean },
): Promise<Stores> {
  const { logger, clock = systemClock, random = systemRandom } = deps;
  const directoryPath = join(config.data, 'store');
  if (deps.createIfAbsent === false && !existsSync(directoryPath)) throw new StartError(`there is no store in ${config.data}`);
  try {
    mkdirSync(directoryPath, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new StartError(`can't make ${directoryPath}: ${(error as Error).message}`, { cause: error });
  }
  const kv = await openStore(directoryPath, logger, clock, random);
  const blobs = createBlobStore({ kv, clock, random, logger });
  const mail = createMailStore({ kv, blobs, clock, random, logger });
  const directory = createDirectory({ kv, clock, random, logger, ...config.directory, lookupFreshMs });
  const queue = createQueue({ kv, blobs, clock, random, logger });
  const close = async () => {
    await mail.close();
    await kv.close();
  };
  return { clock, random, kv, blobs, mail, directory, queue, close };
}

async function openStore(directory: string, logger: Logger, clock: Clock, random: Random): Promise<KvStore> {
  try {
    return await openEmbeddedStore({ directory, logger, clock, random });
  } catch (error) {
    if (error instanceof KvError) throw new StartError(error.message, { cause: error });
    throw error;
  }
}
