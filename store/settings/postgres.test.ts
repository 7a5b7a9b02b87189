import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { PostgresServer } from '../../test-cluster/harness/postgres-server.js';
import type { KvStore } from '../kv/index.js';
import { openPostgresStore } from '../kv/postgres/index.js';
import { me, openNode } from './test-bench.js';

let server: PostgresServer;
const stores: KvStore[] = [];
beforeAll(async () => {
  server = await PostgresServer.start();
});
afterAll(async () => {
  await Promise.all(stores.map((store) => store.close()));
  await server?.remove();
});

describe('settings on PostgreSQL', () => {
  it('reach another node through the watch, and let one of two win', async () => {
    const connectionString = await server.createDatabase('settings');
    for (const _node of [1, 2])
      stores.push(await openPostgresStore({ connectionString, logger: silentLogger, clock: systemClock, random: systemRandom }));
    const [one, two] = [
      await openNode({ kv: stores[0]! }),
      await openNode({ kv: stores[1]!, pollIntervalMs: 3_600_000 }),
    ] as const;
    two.follow();
    const heard = new Promise<number>((resolve) => two.onChange(({ limits }) => resolve(limits.maxItems)));
    await one.change({ set: [{ path: 'limits.maxItems', value: 20 }] }, { ...me, expectedVersion: 0 });
    expect(await heard).toBe(20);
    const ended = await Promise.allSettled(
      [one, two].map((node, at) =>
        node.change({ set: [{ path: 'limits.maxItems', value: 30 + at }] }, { ...me, expectedVersion: 1 }),
      ),
    );
    expect(ended.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(await one.history()).toHaveLength(2);
    await two.close();
  });
});
