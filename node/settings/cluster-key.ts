/**
 * The cluster key of this node: from the local file, a file of its own, or the environment. With the embedded store, which no other node uses, it is made at
 * the first start and kept beside it.
 */
import { closeSync, fstatSync, fsyncSync, linkSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Random } from '../../ops/telemetry/index.js';
import { makeClusterKey, parseClusterKeys } from '../../store/settings/index.js';
import type { Config } from '../config/schema.js';
import { StartError } from '../start-error.js';

export const clusterKeyVariable = 'STARLING_CLUSTER_KEY';

export interface ClusterKeySource {
  config: Pick<Config, 'data' | 'store' | 'clusterKey' | 'clusterKeyFile'>;
  /** Secrets in the store are sealed already: a new key could not open them. */
  isStoreSealed: boolean;
  random: Random;
  env?: NodeJS.ProcessEnv;
}

/** The keys, the one that seals first. Throws `StartError`. */
export function loadClusterKeys({ config, isStoreSealed, random, env = process.env }: ClusterKeySource): Buffer[] {
  if (config.clusterKey !== undefined) return parsed(config.clusterKey, 'clusterKey');
  if (config.clusterKeyFile !== undefined) return keysInFile(config.clusterKeyFile);
  const given = env[clusterKeyVariable];
  if (given !== undefined && given !== '') return parsed(given, clusterKeyVariable);
  if (config.store.backend !== 'embedded') {
    throw new StartError(
      `nodes that share a store need the cluster key: make one with 'starling cluster-key' and give all nodes the same, as clusterKeyFile, clusterKey or ${clusterKeyVariable}`,
    );
  }
  const file = join(config.data, 'cluster.key');
  if (isKept(file)) return keysInFile(file);
  if (isStoreSealed) {
    throw new StartError(
      `${file} is not there, but the secrets in the store are sealed with it: put it back, or name the key as clusterKeyFile`,
    );
  }
  return makeKeyFile(file, random);
}

function parsed(text: string, where: string): Buffer[] {
  try {
    return parseClusterKeys(text);
  } catch (error) {
    throw new StartError(`${where} is no cluster key: ${(error as Error).message}`, { cause: error });
  }
}

function isKept(file: string): boolean {
  try {
    closeSync(openSync(file, 'r'));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw unreadable(error);
  }
}

const unreadable = (error: unknown) =>
  new StartError(`can't read the cluster key: ${(error as Error).message}`, { cause: error });

/** A key that everybody on the machine may read protects nothing; a group may, as secrets are often handed to services that way. */
function keysInFile(file: string): Buffer[] {
  let text: string;
  let mode: number;
  try {
    const descriptor = openSync(file, 'r');
    try {
      mode = fstatSync(descriptor).mode;
      text = readFileSync(descriptor, 'utf8');
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    throw unreadable(error);
  }
  if ((mode & 0o007) !== 0)
    throw new StartError(`the cluster key in ${file} is open to everybody on this machine: chmod 600 ${file}`);
  return parsed(text, file);
}

/** Durable before anything is sealed with it, and whole: a crash leaves this key or none. */
function makeKeyFile(file: string, random: Random): Buffer[] {
  const text = `${makeClusterKey(random)}\n`;
  const temporary = `${file}.${random.bytes(8).toString('hex')}`;
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    const descriptor = openSync(temporary, 'wx', 0o600);
    writeSync(descriptor, text);
    fsyncSync(descriptor);
    closeSync(descriptor);
    try {
      // Not a rename: a key that is there already must stay.
      linkSync(temporary, file);
    } finally {
      rmSync(temporary, { force: true });
    }
    const folder = openSync(dirname(file), 'r');
    fsyncSync(folder);
    closeSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return keysInFile(file);
    throw new StartError(`can't keep the cluster key: ${(error as Error).message}`, { cause: error });
  }
  return parsed(text, file);
}
