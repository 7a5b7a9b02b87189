/** The FoundationDB backend: opens a store on the cluster of a cluster file, and says in time when that can't be done. */
import type { NativeDatabase } from 'foundationdb/dist/lib/native.js';
import type { Clock, Logger, Random } from '../../../ops/telemetry/index.js';
import { KvError, type KvStore, kvLimits } from '../contract.js';
import { RetryingStore } from '../retry.js';
import { type ClientOptions, type FoundationClient, startClient } from './client.js';
import { type ClusterFile, readClusterFile } from './cluster-file.js';
import { fdbCodeOf, fdbCodes, toKvError } from './errors.js';
import { FoundationSource } from './source.js';

export type { ClientOptions } from './client.js';

export interface FoundationDbStoreOptions extends ClientOptions {
  /** Path of the cluster file. The client rewrites it when the coordinators are moved, so it needs the permission to. */
  clusterFile: string;
  logger: Logger;
  clock: Clock;
  random: Random;
  /** How long the cluster may take for its first answer. Default 8,000. */
  connectTimeoutMs?: number;
}

const defaultConnectTimeoutMs = 8_000;
/** Watches that one process may have open; the client's own default is 10,000, fewer than there may be idle sessions. */
const maxWatches = 1_000_000;

/** Numbers of `fdb_c_options.g.h`. */
const databaseOption = { maxWatches: 20, transactionSizeLimit: 503 } as const;
const transactionOption = { timeout: 500 } as const;

/**
 * Opens the store. Throws `unavailable`: with reason `io` when the client library or the cluster file is missing or does not fit, with
 * `outage` when the cluster does not answer within `connectTimeoutMs`. The message says what to do.
 */
export async function openFoundationDbStore(options: FoundationDbStoreOptions): Promise<KvStore> {
  const { clusterFile, logger, clock, random } = options;
  const cluster = await readClusterFile(clusterFile);
  const client = await startClient(options);
  const database = openDatabase(client, clusterFile);
  try {
    await firstAnswer(client, database, clusterFile, cluster, options.connectTimeoutMs ?? defaultConnectTimeoutMs);
  } catch (error) {
    database.close();
    throw error;
  }
  if (!cluster.isWritable) {
    logger.warn({ clusterFile }, 'the cluster file is read-only: new coordinators will be forgotten when this process ends');
  }
  logger.info({ cluster: cluster.name, coordinators: cluster.coordinators }, 'FoundationDB cluster opened');
  return new RetryingStore(new FoundationSource(database, clock, client, logger), clock, random);
}

function openDatabase(client: FoundationClient, clusterFile: string): NativeDatabase {
  try {
    const database = client.createDatabase(clusterFile);
    database.setOption(databaseOption.maxWatches, maxWatches);
    database.setOption(databaseOption.transactionSizeLimit, kvLimits.maxTransactionBytes);
    return database;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const text = `the FoundationDB database of ${clusterFile} can't be opened: ${message}`;
    throw new KvError('unavailable', text, 'io', { cause: error });
  }
}

/** Waits until the cluster gives a version, and a storage server a value. */
async function firstAnswer(
  client: FoundationClient,
  database: NativeDatabase,
  clusterFile: string,
  cluster: ClusterFile,
  timeoutMs: number,
): Promise<void> {
  const native = database.createTransaction();
  native.setOption(transactionOption.timeout, timeoutMs);
  try {
    for (;;) {
      try {
        await native.get(Buffer.of(0), true);
        return;
      } catch (error) {
        // The client itself decides what makes sense again, waits in between, and keeps the timeout. With external clients the
        // first answer always is that another library takes over.
        const code = fdbCodeOf(error);
        if (code === undefined) throw error;
        await native.onError(code);
      }
    }
  } catch (error) {
    if (fdbCodeOf(error) !== fdbCodes.transactionTimedOut) throw toKvError(error, 'read', client);
    const text =
      `the FoundationDB cluster ${cluster.name} has not answered within ${timeoutMs} ms: check that its servers run, that ` +
      `${cluster.coordinators.join(', ')} can be reached from here, that description and id in ${clusterFile} are the ` +
      'cluster\'s own, that the client library is of the cluster\'s version, and that "configure new" was run on a new cluster';
    throw new KvError('unavailable', text, 'outage', { cause: error });
  } finally {
    native.reset();
  }
}
