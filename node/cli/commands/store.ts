/**
 * `starling store copy | backup | verify | restore | restored`: what is done with a whole store, in this process and not in a node's. A running embedded node is backed
 * up from beside it, through a read transaction of its own.
 */
import { createLogger, type Logger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import {
  describeStoreAddress,
  KvError,
  type KvStore,
  openEmbeddedView,
  parseStoreAddress,
  type StoreAddress,
} from '../../../store/kv/index.js';
import { SettingsError } from '../../../store/settings/index.js';
import {
  BackupDamaged,
  type BackupSink,
  type BackupSource,
  copyStore,
  type ExternalTotals,
  fileSink,
  fileSource,
  goAheadAfterRestore,
  type OnProgress,
  parseS3Url,
  type RestoreBlobs,
  restoreBackup,
  s3FromEnvironment,
  s3Sink,
  s3Source,
  streamSink,
  streamSource,
  TransferInterrupted,
  TransferRefused,
  verifyBackup,
  writeBackup,
} from '../../../store/transfer/index.js';
import { checkConfig, loadConfig } from '../../config/load.js';
import { withLocation } from '../../config/location.js';
import type { Config } from '../../config/schema.js';
import { loadClusterKeys } from '../../settings/index.js';
import { StartError } from '../../start-error.js';
import { openKv, storeAddress } from '../../stores.js';
import { version } from '../../version.js';
import { parseArguments, UsageError } from '../arguments.js';
import { printResult } from '../output.js';
import { type BlobPlaces, blobPlacesIn, settleBlobPlaces, storageOptions } from './blob-places.js';
import { createProgress } from './progress.js';
import { storeCommands } from './store-usage.js';

const options = {
  data: { type: 'string' },
  config: { type: 'string' },
  store: { type: 'string' },
  'cluster-key-file': { type: 'string' },
  json: { type: 'boolean' },
  from: { type: 'string' },
  to: { type: 'string' },
  online: { type: 'boolean' },
  encrypt: { type: 'boolean' },
  blobs: { type: 'string' },
  'blobs-directory': { type: 'string' },
  'blobs-bucket': { type: 'string' },
  'blobs-in-place': { type: 'boolean' },
  'without-blobs': { type: 'boolean' },
} as const;

type Flag = keyof typeof options;

interface Run {
  config: Config;
  values: Partial<Record<Flag, string | boolean>>;
  positionals: string[];
  logger: Logger;
  onProgress: OnProgress;
  signal: AbortSignal;
}

interface Verb {
  positionals: number;
  flags: readonly Flag[];
  run(run: Run): Promise<Record<string, unknown>>;
}

const clock = systemClock;
const random = systemRandom;

const verbs: Record<keyof typeof storeCommands, Verb> = {
  copy: { positionals: 0, flags: ['from', 'to', 'online', 'blobs', 'blobs-directory'], run: copy },
  backup: { positionals: 1, flags: ['from', 'encrypt', 'without-blobs'], run: backup },
  verify: { positionals: 1, flags: [], run: verify },
  restore: { positionals: 1, flags: ['to', 'blobs-directory', 'blobs-bucket', 'blobs-in-place'], run: restore },
  restored: { positionals: 0, flags: [], run: restored },
};

/** Runs `argv` (without `store`) and prints the result. Returns the exit code. */
export async function runStore(argv: string[]): Promise<number> {
  const { values, positionals } = parseArguments(argv, options);
  const [first, ...others] = positionals;
  // `store backup verify FILE` reads well, too.
  const [name, rest] = first === 'backup' && others[0] === 'verify' ? ['verify', others.slice(1)] : [first ?? '', others];
  if (!Object.hasOwn(verbs, name)) throw new UsageError(`no such command: store ${name}`);
  const verb = verbs[name as keyof typeof verbs];
  checkUsage(name as keyof typeof verbs, rest, values);
  const location = { store: values.store, clusterKeyFile: values['cluster-key-file'] };
  const config = values.config
    ? loadConfig(values.config, (input) => withLocation(input, location))
    : checkConfig(withLocation({ data: values.data ?? './data' }, location));
  if (values.data) config.data = values.data;
  const json = values.json ?? false;
  const progress = createProgress({ json });
  const stop = new AbortController();
  const interrupt = () => stop.abort();
  process.once('SIGINT', interrupt);
  process.once('SIGTERM', interrupt);
  try {
    const logger = createLogger({ level: 'warn' });
    const onProgress: OnProgress = (event) => progress.update(event);
    const result = await verb.run({ config, values, positionals: rest, logger, onProgress, signal: stop.signal });
    progress.stop();
    remindOfBlobs(result['externalBlobs'] as ExternalTotals | undefined);
    print(result, json, name === 'backup' && rest[0] === '-');
    return 0;
  } catch (error) {
    progress.stop();
    const known = [TransferRefused, TransferInterrupted, BackupDamaged, StartError, KvError].some(
      (kind) => error instanceof kind,
    );
    if (!known || !(error instanceof Error)) throw error;
    if (json) process.stdout.write(`${JSON.stringify({ error: error.message })}\n`);
    else process.stderr.write(`starling: ${error.message}\n`);
    return 1;
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}

function checkUsage(name: keyof typeof verbs, positionals: string[], values: Partial<Record<Flag, unknown>>): void {
  const verb = verbs[name];
  const allowed: readonly string[] = [...verb.flags, 'data', 'config', 'store', 'cluster-key-file', 'json'];
  const stranger = Object.keys(values).find((flag) => !allowed.includes(flag));
  if (positionals.length !== verb.positionals || stranger !== undefined) {
    const problem = stranger === undefined ? '' : ` (it takes no --${stranger})`;
    throw new UsageError(`usage: starling store ${name} ${storeCommands[name].usage}${problem}`);
  }
}

/** What its operator must know of blobs outside of the store. */
function remindOfBlobs(blobs: ExternalTotals | undefined): void {
  if (!blobs || (blobs.count === 0 && !blobs.isShared)) return;
  const { count, bytes, carried, gone, damaged, isShared } = blobs;
  const tell = (sentence: string) => process.stderr.write(`starling: ${sentence}\n`);
  if (isShared) {
    tell(
      `${count} blobs (${bytes} bytes) in files or on S3 now belong to the copy: the source is marked as moved, and no node starts on it any more; remove it`,
    );
  } else if (!carried) tell(`${count} blobs (${bytes} bytes) lie in files or on S3 and were left out: keep that storage too`);
  if (gone) tell(`${gone} blobs were removed while the store was read, and did not come along: nothing needed them any more`);
  if (damaged) tell(`${damaged} blobs are damaged and came along as they are: 'starling store check --deep' tells which`);
}

/** Where a backup goes to standard output, the result must not follow it. */
function print(result: Record<string, unknown>, json: boolean, isOutputTaken: boolean): void {
  if (isOutputTaken) process.stderr.write(`${JSON.stringify(result)}\n`);
  else printResult(result, json);
}

function addressOf(text: string | boolean | undefined, option: string, fallback?: Config): StoreAddress {
  if (typeof text !== 'string') {
    if (fallback) return storeAddress(fallback);
    throw new UsageError(`store copy needs ${option} ADDRESS`);
  }
  try {
    return parseStoreAddress(text);
  } catch (error) {
    throw new UsageError(`${option}: ${(error as Error).message}`, { cause: error });
  }
}

async function opened<T>(
  address: StoreAddress,
  logger: Logger,
  createIfAbsent: boolean,
  use: (kv: KvStore) => Promise<T>,
): Promise<T> {
  const kv = await openKv(address, { logger, clock, random, createIfAbsent });
  try {
    return await use(kv);
  } finally {
    await kv.close();
  }
}

async function copy({ config, values, logger, onProgress, signal }: Run): Promise<Record<string, unknown>> {
  const [from, to] = [addressOf(values.from, '--from'), addressOf(values.to, '--to')];
  const places = copiedBlobPlaces(values);
  const started = performance.now();
  const totals = await opened(from, logger, false, (source) =>
    opened(to, logger, true, (target) =>
      copyStore({
        source,
        target,
        sourceName: describeStoreAddress(from),
        targetName: describeStoreAddress(to),
        ...(places && {
          blobs: {
            from: storageOptions(config, logger),
            to: storageOptions(config, logger, places),
            destination: places,
            settle: (destination) => settleOrTell(config, target, destination, logger),
          },
        }),
        clock,
        random,
        logger,
        mayBeOnline: values.online === true,
        onProgress,
        signal,
      }),
    ),
  );
  return { ...totals, seconds: secondsSince(started) };
}

async function backup({ config, values, positionals, logger, onProgress, signal }: Run): Promise<Record<string, unknown>> {
  const address = addressOf(values.from, '--from', config);
  const clusterKey = values.encrypt ? loadClusterKeys({ config, isStoreSealed: true, random })[0] : undefined;
  const started = performance.now();
  const write = (from: Parameters<typeof writeBackup>[0]['from'], sink: BackupSink) =>
    writeBackup({
      from,
      sink,
      software: version,
      ...(clusterKey && { clusterKey }),
      ...(values['without-blobs'] !== true && { blobs: storageOptions(config, logger) }),
      clock,
      random,
      logger,
      onProgress,
      signal,
    });
  // The embedded store belongs to one process, perhaps a node's: its backup is read beside that.
  const result =
    address.backend === 'embedded'
      ? await backUpEmbedded(address.directory, positionals[0]!, write)
      : await opened(address, logger, false, async (store) => write({ store }, await sinkAt(positionals[0]!)));
  return { ...result, seconds: secondsSince(started) };
}

async function backUpEmbedded<T>(
  directory: string,
  place: string,
  write: (from: Parameters<typeof writeBackup>[0]['from'], sink: BackupSink) => Promise<T>,
): Promise<T> {
  const view = await openEmbeddedView(directory);
  let sink: BackupSink;
  try {
    sink = await sinkAt(place);
  } catch (error) {
    await view.close();
    throw error;
  }
  return write({ view, backend: 'embedded', newest: () => openEmbeddedView(directory) }, sink);
}

async function verify({ config, positionals, onProgress, signal }: Run): Promise<Record<string, unknown>> {
  const { head, fileBytes, totals } = await verifyBackup({
    source: sourceAt(positionals[0]!),
    clusterKeys: keysOf(config),
    onProgress,
    signal,
  });
  return {
    ...head,
    fileBytes,
    ...(totals ?? { note: 'encrypted: whole, but its content was not looked at without the cluster key' }),
  };
}

async function restore({ config, values, positionals, logger, onProgress, signal }: Run): Promise<Record<string, unknown>> {
  const address = addressOf(values.to, '--to', config);
  const started = performance.now();
  const source = sourceAt(positionals[0]!);
  const places = blobPlacesIn(values);
  const totals = await opened(address, logger, true, async (target) => {
    const clusterKeys = keysOf(config);
    const blobs: RestoreBlobs = {
      options: storageOptions(config, logger, places),
      inPlace: values['blobs-in-place'] === true,
      destination: places,
      settle: (destination) => settleOrTell(config, target, destination, logger),
    };
    return restoreBackup({ source, target, clusterKeys, blobs, clock, random, logger, onProgress, signal });
  });
  return { ...totals, seconds: secondsSince(started) };
}

async function restored({ config, logger, signal }: Run): Promise<Record<string, unknown>> {
  return opened(storeAddress(config), logger, false, (kv) => goAheadAfterRestore({ kv, clock, random, signal }));
}

/** Settings that refuse this can still be put right by hand, in a store that is whole: it is no reason to leave it half-made for good. */
async function settleOrTell(config: Config, target: KvStore, places: BlobPlaces, logger: Logger): Promise<void> {
  try {
    await settleBlobPlaces(config, target, places, logger);
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    logger.warn(
      { err: error, places },
      'the settings do not take where the blobs are: set blobs.files.directory or blobs.s3.bucket',
    );
  }
}

/** Where `--blobs copy` takes them. */
function copiedBlobPlaces(values: Run['values']): BlobPlaces | undefined {
  const places = blobPlacesIn(values);
  if (values.blobs === 'copy' && places.directory !== undefined) return places;
  if (values.blobs === undefined && places.directory === undefined) return undefined;
  throw new UsageError('blobs are copied with --blobs copy --blobs-directory DIR; without these the copy shares their storage');
}

/** Most backups are not encrypted: no key is no mistake yet. */
function keysOf(config: Config): Buffer[] {
  try {
    return loadClusterKeys({ config, isStoreSealed: true, random });
  } catch (error) {
    if (error instanceof StartError) return [];
    throw error;
  }
}

const secondsSince = (startedMs: number) => Math.round((performance.now() - startedMs) / 10) / 100;

function sinkAt(place: string): Promise<BackupSink> {
  if (place === '-') return Promise.resolve(streamSink(process.stdout, 'standard output'));
  const s3 = parseS3Url(place);
  if (s3) return s3Sink(s3FromEnvironment(process.env), s3.bucket, s3.key);
  if (place.startsWith('s3:')) throw new UsageError('a place on S3 is s3://BUCKET/KEY');
  return fileSink(place);
}

function sourceAt(place: string): BackupSource {
  if (place === '-') return streamSource(process.stdin, 'standard input');
  const s3 = parseS3Url(place);
  if (s3) return s3Source(s3FromEnvironment(process.env), s3.bucket, s3.key);
  if (place.startsWith('s3:')) throw new UsageError('a place on S3 is s3://BUCKET/KEY');
  return fileSource(place);
}
