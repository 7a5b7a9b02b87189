/** What the tests of this folder stand on: a memory store, a sealer, and sections that mean nothing. */
import { z } from 'zod';
import { type Clock, type Logger, silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { type KvStore, MemoryDatabase, openMemoryStore } from '../kv/index.js';
import type { Sections, Settings, SettingsRegistry } from './contract.js';
import { createSealer } from './seal.js';
import { openSettings } from './settings.js';

const limits = z.strictObject({
  maxItems: z.int().min(1).max(1_000).default(10),
  names: z.array(z.string()).default([]),
  note: z.string().default(''),
});

const peers = z.strictObject({
  relay: z
    .strictObject({ host: z.string().min(1), password: z.string().min(4).optional(), port: z.int().default(25) })
    .optional(),
  list: z.array(z.strictObject({ name: z.string(), key: z.string() })).default([]),
  byName: z.record(z.string(), z.strictObject({ key: z.string().optional(), size: z.int().default(1) })).default({}),
});

export const testSections = {
  limits: { schema: limits, description: 'How much' },
  peers: { schema: peers, description: 'Whom to ask', secrets: ['relay.password', 'list.*.key', 'byName.*.key'] },
} as const;

export const testRegistry: SettingsRegistry<typeof testSections> = {
  sections: testSections,
  checks: [
    ({ limits: { maxItems }, peers: { list } }) =>
      list.length > maxItems ? [{ path: 'peers.list', message: 'longer than limits.maxItems' }] : [],
  ],
};

export type TestSettings = Settings<typeof testSections>;
export const clusterKey = Buffer.alloc(32, 7);
export const me = { who: 'tester' };

export interface BenchOptions<S extends Sections = typeof testSections> {
  kv?: KvStore;
  keys?: Buffer[];
  registry?: SettingsRegistry<S>;
  clock?: Clock;
  logger?: Logger;
  pollIntervalMs?: number;
}

/** Settings on a memory store, as one node has them. */
export function openNode(options: BenchOptions = {}): Promise<TestSettings> {
  return openNodeOf({ registry: testRegistry, ...options });
}

export function openNodeOf<S extends Sections>(
  options: BenchOptions<S> & { registry: SettingsRegistry<S> },
): Promise<Settings<S>> {
  const { kv = openMemoryStore(), keys = [clusterKey], clock = systemClock, logger = silentLogger, registry } = options;
  return openSettings({
    kv,
    clock,
    random: systemRandom,
    logger,
    sealer: createSealer(keys, systemRandom),
    registry,
    ...(options.pollIntervalMs !== undefined && { pollIntervalMs: options.pollIntervalMs }),
  });
}

/** Two stores on one database: two nodes. */
export function twoStores() {
  const database = new MemoryDatabase();
  return [openMemoryStore({ database }), openMemoryStore({ database })] as const;
}
