/**
 * What the tests of this folder stand on: a directory on a memory store, with one domain, and its counters.
 */
import { type Clock, registry, silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { keysUnder, subspace } from '../keyspace.js';
import { type KvStore, type MemoryStore, openMemoryStore } from '../kv/index.js';
import type { Directory } from './contract.js';
import { createDirectory } from './directory.js';

export interface Bench {
  kv: MemoryStore;
  directory: Directory;
}

export function openDirectory(kv: KvStore, clock: Clock = systemClock): Directory {
  return createDirectory({ kv, clock, random: systemRandom, logger: silentLogger });
}

export async function openBench(): Promise<Bench> {
  const kv = openMemoryStore();
  const directory = openDirectory(kv);
  await directory.createDomain('example.test');
  return { kv, directory };
}

/** How often a password check ended in each way, so far in this process. */
export async function checkCounts(): Promise<Record<string, number>> {
  const metric = await registry.getSingleMetric('starling_password_checks_total')!.get();
  return Object.fromEntries(metric.values.map(({ labels, value }) => [String(labels['result']), value]));
}

/** Keys of the directory subspace, the generation not counted. */
export async function keyCount(kv: KvStore): Promise<number> {
  const { begin, end } = keysUnder(subspace.directory);
  return (await kv.read((reads) => reads.getRange(begin, end))).length - 1;
}
