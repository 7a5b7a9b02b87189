/** Opens the store and the rooms that stand on it: settings, blobs, mailboxes, directory, queue, limits. Used by the node and by the command line alike. */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Clock, type Logger, type Random, systemClock, systemRandom } from '../ops/telemetry/index.js';
import { type BlobStore, createBlobStore, type ExternalBlobOptions, externalFromSettings } from '../store/blobs/index.js';
import { createDirectory, type OpenDirectory } from '../store/directory/index.js';
import { KvError, type KvReads, type KvStore, openEmbeddedStore, type StoreAddress } from '../store/kv/index.js';
import { createLimits, type Limits } from '../store/limits/index.js';
import { createLookups, type Lookups } from '../store/lookups/index.js';
import { createMailStore, type OpenMailStore } from '../store/mail/index.js';
import {
  createDestinations,
  createHistory,
  createQueue,
  type Destinations,
  type History,
  type Queue,
} from '../store/queue/index.js';
import { createSearchStore, type SearchStore } from '../store/search/index.js';
import type { Sealer } from '../store/settings/index.js';
import { transferProblem } from '../store/transfer/marker.js';
import { ClusterClock } from './cluster-clock.js';
import type { Config } from './config/schema.js';
import { OwnAddresses } from './own-addresses.js';
import {
  announcingSettings,
  applyFirstSettings,
  type FirstSettings,
  type NodeSettings,
  openSealedSettings,
  sectionsReadAtStart,
} from './settings/index.js';
import { StartError } from './start-error.js';
import { untilReachable } from './store-wait.js';

/** Mail is routed by directory answers of at most this age; passwords are always checked afresh. */
const lookupFreshMs = 50;

export interface Stores {
  /** In a node a `ClusterClock`: the machine's, with a date that the cluster may correct. */
  clock: Clock;
  random: Random;
  kv: KvStore;
  settings: NodeSettings;
  /** Seals and opens with the cluster key. */
  sealer: Sealer;
  blobs: BlobStore;
  mail: OpenMailStore;
  /** Which formats may be written. Nobody but this node is asked before it is a member, so that only what has always been is written. */
  formats: CommonFormats;
  search: SearchStore;
  directory: OpenDirectory;
  queue: Queue;
  /** Of the node that works with these rooms: 32 hex digits, random. */
  nodeId: string;
  history: History;
  /** Not started: nothing is known to be down or paused before. */
  destinations: Destinations;
  limits: Limits;
  /** Those of `limits`. Not started: nobody is banned before. */
  bans: Limits['bans'];
  lookups: Lookups;
  /** Knows none before it follows a cluster. */
  ownAddresses: OwnAddresses;
  /** Told after each change that was made here of what every node keeps in memory. Answers the way to stop. */
  onChanged(listener: (what: ChangedHere) => void): () => void;
  close(): Promise<void>;
}

/** The newest format of a kind of record that every node reads (TRAPS 23). */
export interface CommonFormats {
  of(kind: string): number;
}

/** From this format of `mail` on nodes know changes of flags by range. */
const flagRangesFormat = 2;
/** From this format of `blob` on nodes know ids of blobs that begin with the time. */
const timeIdsFormat = 2;

export type ChangedHere = 'directory' | 'settings' | 'bans' | 'destinations';

export interface OpenStoresOptions {
  logger: Logger;
  clock?: Clock;
  random?: Random;
  /** Default: yes. Operations on the store of a stopped node make none. */
  createIfAbsent?: boolean;
  firstSettings?: FirstSettings | undefined;
  /** Waits as long as the configuration says for a shared store that can't be reached, unless the signal ends it. Default: one attempt. */
  waiting?: { signal?: AbortSignal | undefined };
}

/** Throws `StartError` when another process has the store, there is none and `createIfAbsent` is false, or the cluster key is not the store's. */
export async function openStores(
  config: Pick<Config, 'data' | 'store' | 'clusterKey' | 'clusterKeyFile'>,
  deps: OpenStoresOptions,
): Promise<Stores> {
  const { logger, clock = systemClock, random = systemRandom } = deps;
  const { store } = config;
  const isWaited = deps.waiting !== undefined && store.backend !== 'embedded';
  const timeoutMs = isWaited ? store.startTimeoutSeconds * 1_000 : 0;
  return untilReachable(() => openStoresOnce(config, { ...deps, clock, random }), {
    timeoutMs,
    clock,
    logger,
    signal: deps.waiting?.signal,
  });
}

async function openStoresOnce(
  config: Pick<Config, 'data' | 'store' | 'clusterKey' | 'clusterKeyFile'>,
  deps: OpenStoresOptions & { clock: Clock; random: Random },
): Promise<Stores> {
  const { logger, clock, random } = deps;
  const address = storeAddress(config);
  const createIfAbsent = deps.createIfAbsent ?? true;
  const kv = await openKv(address, { logger, clock, random, createIfAbsent });
  try {
    // A store elsewhere makes none here: for certificates and the control socket.
    if (createIfAbsent) makeDirectory(config.data);
    return await openRooms(config, {
      kv,
      clock,
      random,
      logger,
      firstSettings: deps.firstSettings ?? {},
      isForOperation: !createIfAbsent,
    });
  } catch (error) {
    await kv.close();
    throw error instanceof KvError ? new StartError(error.message, { cause: error }) : error;
  }
}

type RoomDependencies = Parameters<typeof openSealedSettings>[1] & { firstSettings: FirstSettings; isForOperation: boolean };

async function openRooms(config: Parameters<typeof openSealedSettings>[0], deps: RoomDependencies): Promise<Stores> {
  const { logger } = deps;
  // On a store that a copy or restore has only half filled nothing may run.
  const { settings, sealer } = await openSealedSettings(config, { ...deps, precondition: refuseHalfStores });
  await applyFirstSettings(settings, deps.firstSettings, 'starling', logger);
  settings.onChange((_now, _before, changed) => {
    const sections = sectionsReadAtStart.filter((name) => changed.some((path) => path.startsWith(`${name}.`)));
    if (sections.length > 0) logger.warn({ sections }, 'changed settings that this node takes up when it is started again');
  });
  return assembleStores({ ...deps, settings, sealer, external: externalStorages(settings, deps) });
}

export interface StoreParts {
  kv: KvStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  settings: NodeSettings;
  sealer: Sealer;
  /** Where large blobs may lie. Default: in the store alone. */
  external?: ExternalBlobOptions;
}

/** The rooms on a store whose settings are open. */
export function assembleStores({ external, sealer, ...parts }: StoreParts): Stores {
  const { kv, random, logger } = parts;
  const clock = new ClusterClock(parts.clock);
  const listeners = new Set<(what: ChangedHere) => void>();
  const changed = (what: ChangedHere) => {
    for (const listener of listeners) listener(what);
  };
  const settings = announcingSettings(parts.settings, () => changed('settings'));
  const formats: CommonFormats = { of: () => 0 };
  const mayUseTimeIds = () => formats.of('blob') >= timeIdsFormat;
  const blobs = createBlobStore({ kv, clock, random, logger, mayUseTimeIds, ...(external && { external }) });
  const indexCacheBytes = () => settings.current.imap.indexCacheBytes;
  const mayWriteFlagRanges = () => formats.of('mail') >= flagRangesFormat;
  const mail = createMailStore({ kv, blobs, clock, random, logger, indexCacheBytes, mayWriteFlagRanges });
  const search = createSearchStore({ kv, clock, random, logger, cacheBytes: settings.current.search.cacheBytes });
  const directory = createDirectory({
    kv,
    clock,
    random,
    logger,
    sealer,
    minPasswordCharacters: () => settings.current.directory.minPasswordCharacters,
    lookupFreshMs,
    onChanged: () => changed('directory'),
  });
  const nodeId = random.bytes(16).toString('hex');
  const history = createHistory({ kv });
  const queue = createQueue({ kv, blobs, clock, random, logger, history: { book: history, nodeId } });
  const destinations = createDestinations({ kv, clock, random, logger, nodeId, onRaised: () => changed('destinations') });
  const ownAddresses = new OwnAddresses();
  const limits = createLimits({ kv, clock, logger, nodeId: () => nodeId, isExempt: (address) => ownAddresses.has(address) });
  const { bans } = limits;
  bans.onChanged(() => changed('bans'));
  const lookups = createLookups({ kv, clock });
  const onChanged: Stores['onChanged'] = (listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  };
  const close = async () => {
    await settings.close();
    ownAddresses.stop();
    await destinations.stop();
    await limits.stop();
    await mail.close();
    await kv.close();
  };
  const ofQueue = { queue, history, destinations };
  const ofLimits = { limits, bans, lookups, ownAddresses };
  return {
    clock,
    random,
    kv,
    settings,
    sealer,
    blobs,
    mail,
    formats,
    search,
    directory,
    nodeId,
    ...ofQueue,
    ...ofLimits,
    onChanged,
    close,
  };
}

/**
 * When S3 is set up and nothing says how to log in there, a node does not start (`StartError`); an operation on a stopped node's store goes on without S3,
 * or the settings could never be put right.
 */
function externalStorages(settings: NodeSettings, { logger, isForOperation }: RoomDependencies): ExternalBlobOptions {
  const wanted = settings.opened('blobs');
  try {
    return externalFromSettings(wanted, process.env);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    if (!isForOperation) throw new StartError(`blobs: ${error.message}`, { cause: error });
    logger.error({ err: error }, 'blobs on S3 can not be reached by this operation');
    const { s3: _, ...others } = wanted;
    return externalFromSettings({ ...others, storage: wanted.storage === 's3' ? 'store' : wanted.storage }, process.env);
  }
}

/** Throws `StartError` on a store that a transfer has only half filled, or that was moved away. */
export async function refuseHalfStores(reads: KvReads): Promise<void> {
  const problem = await transferProblem(reads);
  if (problem) throw new StartError(problem);
}

/** Where the node's store is. */
export function storeAddress(config: Pick<Config, 'data' | 'store'>): StoreAddress {
  const { store } = config;
  if (store.backend === 'embedded') return { backend: 'embedded', directory: store.directory ?? join(config.data, 'store') };
  if (store.backend === 'foundationdb') return store;
  return { backend: 'postgres', url: postgresUrl(store) };
}

/** The URL has a password in it, so it may come from a file or the environment instead of the configuration. */
function postgresUrl(store: { url?: string | undefined; urlFile?: string | undefined }): string {
  if (store.url !== undefined) return store.url;
  if (store.urlFile !== undefined) {
    try {
      return readFileSync(store.urlFile, 'utf8').trim();
    } catch (error) {
      throw new StartError(`can't read ${store.urlFile}: ${(error as Error).message}`, { cause: error });
    }
  }
  const url = process.env['STARLING_POSTGRES_URL'];
  if (url) return url;
  throw new StartError('store.backend is postgres: give store.url, store.urlFile or STARLING_POSTGRES_URL');
}

/** Opens a store by its address. Throws `StartError` with a sentence for the operator. */
export async function openKv(
  address: StoreAddress,
  deps: { logger: Logger; clock: Clock; random: Random; createIfAbsent: boolean },
): Promise<KvStore> {
  const { logger, clock, random } = deps;
  try {
    // Clients of databases are loaded only where they are used.
    if (address.backend === 'postgres') {
      const { openPostgresStore } = await import('../store/kv/postgres/index.js');
      return await openPostgresStore({ connectionString: address.url, logger, clock, random });
    }
    if (address.backend === 'foundationdb') {
      const { openFoundationDbStore } = await import('../store/kv/foundationdb/index.js');
      const { clusterFile, clientLibrary = process.env['FDB_CLIENT_LIBRARY'], externalClientDirectory } = address;
      return await openFoundationDbStore({ clusterFile, clientLibrary, externalClientDirectory, logger, clock, random });
    }
    if (!deps.createIfAbsent && !existsSync(address.directory)) throw new StartError(`there is no store in ${address.directory}`);
    makeDirectory(address.directory);
    return await openEmbeddedStore({ directory: address.directory, logger, clock, random });
  } catch (error) {
    if (error instanceof KvError) throw new StartError(error.message, { cause: error });
    throw error;
  }
}

function makeDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new StartError(`can't make ${directory}: ${(error as Error).message}`, { cause: error });
  }
}
