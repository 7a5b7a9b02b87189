import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type Clock, type Logger, registry, silentLogger, systemClock } from '../../ops/telemetry/index.js';
import { KvError, type KvStore, openMemoryStore } from '../kv/index.js';
import type { SettingsError } from './contract.js';
import { decodeHead, encodeHead, encodeSection, headKey, sectionKey } from './records.js';
import { clusterKey, me, openNode, openNodeOf, testRegistry, testSections, twoStores } from './test-bench.js';

const set = (value: number) => ({ set: [{ path: 'limits.maxItems', value }] });

async function until(isSo: () => boolean): Promise<void> {
  for (let tries = 0; !isSo(); tries++) {
    if (tries > 60_000) throw new Error('it never came');
    await systemClock.sleep(5);
  }
}

/** Collects what is logged as an error or a warning. */
function listening(): { logger: Logger; lines: string[] } {
  const lines: string[] = [];
  const note = (...args: unknown[]) => lines.push(JSON.stringify(args));
  const logger = Object.assign(Object.create(silentLogger) as Logger, { error: note, warn: note });
  return { logger, lines };
}

/** `whole` with some methods of its own. */
function replacing<T extends object>(whole: T, methods: Partial<T>): T {
  return new Proxy(whole, {
    get(target, name) {
      if (Object.hasOwn(methods, name)) return methods[name as keyof T];
      const value = Reflect.get(target, name, target) as unknown;
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

const invalidSections = async () =>
  (await registry.getSingleMetric('starling_settings_invalid_sections')!.get()).values[0]!.value;

/** Writes a section behind the settings' back, as another version of the software might. */
async function plant(kv: KvStore, name: string, value: Buffer): Promise<void> {
  await kv.transact(async (tx) => {
    const head = decodeHead(await tx.get(headKey));
    const version = head.version + 1;
    tx.set(sectionKey(name, version), value);
    tx.set(
      headKey,
      encodeHead({ ...head, version, generation: head.generation + 1, sections: { ...head.sections, [name]: version } }),
    );
  });
}

describe('two nodes', () => {
  it('that change the same version at once: one wins, the other hears why not', async () => {
    const stores = twoStores();
    const nodes = [await openNode({ kv: stores[0] }), await openNode({ kv: stores[1] })] as const;
    for (let round = 0; round < 10; round++) {
      const expectedVersion = round;
      const ended = await Promise.allSettled(
        nodes.map((node, at) => node.change(set(100 + 2 * round + at), { who: `node ${at}`, expectedVersion })),
      );
      expect(ended.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
      const { reason } = ended.find((one) => one.status === 'rejected') as PromiseRejectedResult;
      expect((reason as SettingsError).code).toBe('version-changed');
      expect((reason as SettingsError).message).toMatch(
        new RegExp(`no longer at version ${round}: they are at version ${round + 1}; look again`),
      );
      const winner = ended.findIndex(({ status }) => status === 'fulfilled');
      await nodes[0].refresh();
      expect(nodes[0].current.limits.maxItems).toBe(100 + 2 * round + winner);
      expect((await nodes[0].history())[0]!.who).toBe(`node ${winner}`);
    }
  });

  it('that change different things at once both succeed', async () => {
    const stores = twoStores();
    const nodes = [await openNode({ kv: stores[0] }), await openNode({ kv: stores[1] })] as const;
    await Promise.all([
      nodes[0].change({ set: [{ path: 'limits.note', value: 'one' }] }, me),
      nodes[1].change({ set: [{ path: 'peers.relay', value: { host: 'two.test' } }] }, me),
    ]);
    await Promise.all(nodes.map((node) => node.refresh()));
    for (const node of nodes) {
      expect(node.version).toBe(2);
      expect([node.current.limits.note, node.current.peers.relay?.host]).toEqual(['one', 'two.test']);
    }
  });

  it('hear of each other through the watch, long before the poll', async () => {
    const stores = twoStores();
    const one = await openNode({ kv: stores[0] });
    const two = await openNode({ kv: stores[1], pollIntervalMs: 3_600_000 });
    const heard: number[] = [];
    two.onChange(({ limits }) => void heard.push(limits.maxItems));
    two.follow();
    for (const value of [20, 30, 40]) {
      await one.change(set(value), me);
      await until(() => two.current.limits.maxItems === value);
    }
    expect(heard).toEqual([20, 30, 40]);
    await two.close();
  });

  it('hear of each other through the poll when watches never fire, also after an outage', async () => {
    const stores = twoStores();
    const one = await openNode({ kv: stores[0] });
    const deaf = replacing(stores[1], {
      transact: (body, options) =>
        stores[1].transact(
          (tx) => body(replacing(tx, { watch: () => ({ fired: new Promise(() => {}), cancel() {} }) })),
          options,
        ),
    });
    const { logger, lines } = listening();
    const two = await openNode({ kv: deaf, pollIntervalMs: 5, logger });
    two.follow();
    await one.change(set(20), me);
    await until(() => two.current.limits.maxItems === 20);
    stores[1].faults.outage = true;
    await one.change(set(30), me);
    await until(() => lines.length > 0);
    expect(two.current.limits.maxItems).toBe(20);
    stores[1].faults.outage = false;
    await until(() => two.current.limits.maxItems === 30);
    // Said once, not at every poll.
    expect(lines).toHaveLength(1);
    await two.close();
  });

  it('end at once though nothing ever happens', async () => {
    const settings = await openNode({ pollIntervalMs: 3_600_000 });
    settings.follow();
    await settings.close();
  });
});

describe('commits whose answer is lost', () => {
  it.each([
    ['applied', 'commitUnknownApplied'],
    ['lost', 'commitUnknownLost'],
  ] as const)('are one version each, when they were %s', async (_what, fault) => {
    const kv = openMemoryStore();
    const settings = await openNode({ kv });
    let commits = 0;
    Object.defineProperty(kv.faults, fault, { get: () => (commits++ % 2 === 0 ? 1 : 0) });
    expect(await settings.change(set(20), { ...me, expectedVersion: 0 })).toMatchObject({ version: 1, isChanged: true });
    expect(await settings.change(set(30), { ...me, expectedVersion: 1 })).toMatchObject({ version: 2, isChanged: true });
    expect(await settings.rollback(1, { ...me, expectedVersion: 2 })).toMatchObject({ version: 3, isChanged: true });
    expect((await settings.history()).map(({ version }) => version)).toEqual([3, 2, 1]);
    expect(settings.current.limits.maxItems).toBe(20);
  });

  it('are recognised when somebody else has changed something since', async () => {
    const stores = twoStores();
    const other = await openNode({ kv: stores[1] });
    const settings = await openNode({ kv: stores[0] });
    let isFirst = true;
    Object.defineProperty(stores[0].faults, 'commitUnknownApplied', { get: () => (isFirst ? 1 : 0) });
    const { transactVersioned } = stores[0];
    stores[0].transactVersioned = (body, options) =>
      transactVersioned.call(
        stores[0],
        async (tx) => {
          if (tx.mayHaveCommitted && isFirst) {
            isFirst = false;
            await other.change({ set: [{ path: 'limits.note', value: 'meanwhile' }] }, me);
          }
          return body(tx);
        },
        options,
      ) as never;
    const result = await settings.change(set(20), { ...me, expectedVersion: 0 }).catch((error: unknown) => error);
    // The transaction that looked is older than the other's change, or sees it; either way there is one version of each.
    expect(result).toMatchObject({ version: 1, isChanged: true });
    expect((await other.history()).map(({ version, changes }) => [version, changes[0]!.path])).toEqual([
      [2, 'limits.note'],
      [1, 'limits.maxItems'],
    ]);
  });

  it('do not hide an outage', async () => {
    const kv = openMemoryStore();
    const settings = await openNode({ kv });
    kv.faults.outage = true;
    await expect(settings.change(set(20), me)).rejects.toThrow(KvError);
    expect(settings.current.limits.maxItems).toBe(10);
    kv.faults.outage = false;
    await settings.change(set(20), me);
    expect(settings.current.limits.maxItems).toBe(20);
  });
});

describe('what another version of the software has stored', () => {
  it('is read as far as it is known here, and not lost by a change from here', async () => {
    const kv = openMemoryStore();
    const { logger, lines } = listening();
    const newer = await openNodeOf({
      kv,
      registry: {
        sections: {
          ...testSections,
          limits: {
            schema: testSections.limits.schema.extend({ depth: z.strictObject({ a: z.int().default(1) }).optional() }).strict(),
            description: 'More',
          },
          later: { schema: z.strictObject({ x: z.int().default(1) }), description: 'Later', secrets: [] },
        },
      },
    });
    await newer.change({ replace: { limits: { maxItems: 20, depth: { a: 2 } }, later: { x: 2 } } }, me);
    const older = await openNode({ kv, logger });
    expect(older.current.limits).toEqual({ maxItems: 20, names: [], note: '' });
    expect(lines.join('\n')).toMatch(/limits\.depth/);
    expect(lines.join('\n')).toMatch(/"later"/);
    await older.change({ set: [{ path: 'limits.note', value: 'from here' }] }, me);
    await newer.refresh();
    expect(newer.current.limits).toMatchObject({ maxItems: 20, depth: { a: 2 }, note: 'from here' });
    expect(newer.current.later).toEqual({ x: 2 });
    const error = await older.change({ set: [{ path: 'limits.breadth', value: 1 }] }, me).catch((e: unknown) => e);
    expect(String(error)).toMatch(/limits\.breadth: there is no such setting/);
    expect(String(error)).not.toMatch(/depth/);
  });

  it.each([
    ['is not valid', encodeSection({ maxItems: -1 })],
    ['has an unknown format', Buffer.from([0x92, 0x63, 0x80])],
    ['is no record at all', Buffer.from('rubbish')],
  ])('and %s leaves the last valid contents in force, loudly; also after a restart', async (_what, planted) => {
    const kv = openMemoryStore();
    const { logger, lines } = listening();
    const settings = await openNode({ kv, logger });
    await settings.change({ replace: { limits: { maxItems: 20 }, peers: { relay: { host: 'a.test' } } } }, me);
    await plant(kv, 'limits', planted);
    await settings.refresh();
    expect([settings.version, settings.current.limits.maxItems]).toEqual([2, 20]);
    expect(settings.current.peers.relay?.host).toBe('a.test');
    expect(lines.join()).toMatch(/the last valid ones hold/);
    expect(await invalidSections()).toBe(1);
    const restarted = await openNode({ kv, logger: silentLogger });
    expect(restarted.current.limits.maxItems).toBe(20);
    // What is wrong can be put right from here.
    await restarted.change({ replace: { limits: { maxItems: 30 } } }, me);
    expect(restarted.current.limits.maxItems).toBe(30);
    expect(await invalidSections()).toBe(0);
  });

  it('and does not fit together leaves the last settings that did, also after a restart', async () => {
    const kv = openMemoryStore();
    const settings = await openNode({ kv });
    await settings.change({ replace: { limits: { maxItems: 1 }, peers: { list: [{ name: 'a', key: 'k' }] } } }, me);
    const lax = await openNode({ kv, registry: { sections: testSections } });
    await lax.change({ set: [{ path: 'peers.list', value: ['a', 'b'].map((name) => ({ name, key: 'k' })) }] }, me);
    await settings.refresh();
    expect(settings.current.peers.list).toHaveLength(1);
    const restarted = await openNode({ kv });
    expect([restarted.version, restarted.current.peers.list.length]).toEqual([2, 1]);
    await restarted.change({ set: [{ path: 'limits.maxItems', value: 2 }] }, me);
    expect(restarted.current.peers.list).toHaveLength(2);
  });

  it('and is sealed with a key that is not here leaves the last that could be opened', async () => {
    const kv = openMemoryStore();
    const settings = await openNode({ kv });
    await settings.change({ replace: { peers: { relay: { host: 'a.test', password: 'hunter22' } } } }, me);
    const other = await openNode({ kv, keys: [Buffer.alloc(32, 8), clusterKey] });
    await other.change({ set: [{ path: 'peers.relay.password', value: 'hunter33' }] }, me);
    await settings.refresh();
    expect(settings.opened('peers').relay?.password).toBe('hunter22');
    expect(other.opened('peers').relay?.password).toBe('hunter33');
  });
});

describe('one node', () => {
  it('never goes back in time, however its reads overtake each other', async () => {
    const kv = openMemoryStore({ faults: { delayMs: (operation) => (operation === 'read' ? Math.random() * 3 : 0) } });
    const settings = await openNode({ kv, clock: systemClock satisfies Clock, registry: testRegistry });
    const seen: number[] = [];
    settings.onChange(({ limits }) => void seen.push(limits.maxItems));
    const changes = Array.from({ length: 20 }, (_, at) => settings.change(set(20 + at), me));
    await Promise.all([...changes, ...Array.from({ length: 20 }, () => settings.refresh())]);
    const versions = await settings.history();
    const order = versions.map(({ changes: [change] }) => change!.new as number).reverse();
    expect(order).toHaveLength(20);
    expect(seen.map((value) => order.indexOf(value))).toEqual(
      seen.map((value) => order.indexOf(value)).toSorted((a, b) => a - b),
    );
    expect(settings.current.limits.maxItems).toBe(order.at(-1));
  });
});
