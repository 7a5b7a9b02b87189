/** The store that the nodes share: a PostgreSQL that is started here, one that runs already, or the FoundationDB of a cluster file. */
import {
  accessSync,
  chmodSync,
  constants,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { PostgresServer } from '../harness/postgres-server.js';
import type { ClusterArguments } from './arguments.js';

const defaultClusterFile = '/etc/foundationdb/fdb.cluster';
/** Each node has a pool, and is started again before the server has noticed that its old connections are gone. */
const connectionsPerNode = 60;
/** Kept over a restart of the machine, unlike the folder for temporary files. */
const elsewhere = '/var/tmp';
/** May others enter this directory? */
const enterByOthers = 0o001;

export interface SharedStore {
  /** As `--store` of a node takes it; may hold a password. */
  address: string;
  /** For people and files: without a password. */
  shown: string;
  /** Present when the server was started here. */
  server?: PostgresServer;
}

/** Throws a sentence. `report` gets one for what the operator should know. */
export async function openSharedStore(args: ClusterArguments, report: (sentence: string) => void): Promise<SharedStore> {
  if (args.store === 'foundationdb')
    return foundationDb(resolve(args.clusterFile ?? process.env['FDB_CLUSTER_FILE'] ?? defaultClusterFile));
  if (args.postgresUrl !== undefined) return { address: args.postgresUrl, shown: withoutPassword(args.postgresUrl) };
  const settings = { max_connections: String(20 + connectionsPerNode * args.nodes) };
  const dataDirectory = serverDirectory(args.data, report);
  const server = await PostgresServer.start({ dataDirectory, settings, ownGroup: true });
  return { address: server.url(), shown: server.url(), server };
}

function foundationDb(clusterFile: string): SharedStore {
  try {
    accessSync(clusterFile, constants.R_OK);
  } catch (error) {
    throw new Error(`can't read the cluster file: ${(error as Error).message}`, { cause: error });
  }
  const address = `foundationdb:${clusterFile}`;
  return { address, shown: address };
}

/**
 * `DIR/postgres`. PostgreSQL refuses to run as root, and the user that it gets must be able to walk to its data: where a folder above keeps others out, the
 * data is in a folder of its own, and `DIR/postgres` is a link to it.
 */
function serverDirectory(directory: string, report: (sentence: string) => void): string {
  const usual = join(directory, 'postgres');
  mkdirSync(directory, { recursive: true });
  if (process.getuid?.() !== 0) return usual;
  if (lstatSync(usual, { throwIfNoEntry: false })?.isSymbolicLink()) return realpathSync(usual);
  chmodSync(directory, statSync(directory).mode | enterByOthers);
  const closed = foldersAbove(realpathSync(directory)).find((folder) => (statSync(folder).mode & enterByOthers) === 0);
  if (closed === undefined) return usual;
  const own = mkdtempSync(join(elsewhere, 'starling-postgres-'));
  chmodSync(own, 0o755);
  const data = join(own, 'data');
  mkdirSync(data, { mode: 0o700 });
  symlinkSync(data, usual);
  report(`PostgreSQL doesn't run as root, and other users can't enter ${closed}: its data is in ${data}`);
  return data;
}

function foldersAbove(path: string): string[] {
  const parent = dirname(path);
  return parent === path ? [] : [parent, ...foldersAbove(parent)];
}

/** Not through URL, which refuses several hosts. */
export function withoutPassword(url: string): string {
  return url.replace(/^(\w+:\/\/[^:@/]*):[^@]*@/, '$1:***@').replace(/([?&](?:password|sslpassword)=)[^&]*/g, '$1***');
}
