import { afterEach, describe, expect, it, vi } from 'vitest';
import { SimulatedNetwork } from '../cluster/testing/network.js';
import { type NodeClock, VirtualTime } from '../cluster/testing/virtual-time.js';
import { silentLogger, systemRandom } from '../ops/telemetry/index.js';
import { MemoryDatabase, openMemoryStore } from '../store/kv/index.js';
import { createSealer, openSettings } from '../store/settings/index.js';
import { isGossiping, NodeCluster } from './cluster.js';
import { checkConfig } from './config/load.js';
import { settingsRegistry } from './settings/index.js';
import { assembleStores, type Stores } from './stores.js';

interface TestNode {
  clock: NodeClock;
  stores: Stores;
  cluster: NodeCluster;
}

let time: VirtualTime;
let network: SimulatedNetwork;
let database: MemoryDatabase;
const open: TestNode[] = [];

afterEach(async () => {
  const leaving = open.splice(0).map(({ cluster }) => cluster.leave());
  await time.advance(20_000);
  await Promise.all(leaving);
});

const config = checkConfig({ store: { backend: 'postgres', url: 'postgres://unused/' } });

async function start(index: number): Promise<TestNode> {
  const clock = time.clock();
  const parts = { kv: openMemoryStore({ database, clock }), clock, random: systemRandom, logger: silentLogger };
  const sealer = createSealer([Buffer.alloc(32, 1)], systemRandom);
  const settings = await openSettings({ ...parts, sealer, registry: settingsRegistry });
  const stores = assembleStores({ ...parts, settings, sealer });
  const node = { nodeId: index.toString(16).padStart(32, '0'), incarnation: 1 };
  const gossip = network.node(node.nodeId, clock);
  await gossip.start();
  const cluster = new NodeCluster({ config, stores, logger: silentLogger }, node, gossip);
  const joining = cluster.join();
  await time.advance(500);
  await joining;
  void cluster.membership.setState('ready');
  open.push({ clock, stores, cluster });
  return open.at(-1)!;
}

async function startTwo(): Promise<[TestNode, TestNode]> {
  time = new VirtualTime();
  network = new SimulatedNetwork({ random: systemRandom });
  database = new MemoryDatabase({ clock: time.clock() });
  const nodes: [TestNode, TestNode] = [await start(1), await start(2)];
  await time.until(() => nodes.every(({ cluster }) => cluster.membership.members().length === 2));
  await time.advance(3_000);
  return nodes;
}

/** What takes virtual time. */
async function during<T>(work: Promise<T>): Promise<T> {
  let isDone = false;
  const done = work.finally(() => {
    isDone = true;
  });
  done.catch(() => undefined);
  await time.until(() => isDone, 60_000, 10);
  return done;
}

describe('a node among others', () => {
  it('hears at once what another has changed: mail, directory, settings', async () => {
    const [a, b] = await startTwo();
    const heard = vi.spyOn(b.stores.mail, 'heard');
    await during(a.stores.mail.ensureAccount('account1'));
    await time.advance(100);
    expect(heard).toHaveBeenCalledWith(expect.objectContaining({ accountId: 'account1' }));

    const told = vi.spyOn(b.stores.directory, 'changedElsewhere');
    await during(a.stores.directory.createDomain('example.test'));
    await time.advance(200);
    expect(told).toHaveBeenCalled();

    // Nobody polls here: the word of the other node alone makes this one look.
    await during(a.stores.settings.change({ set: [{ path: 'smtp.maxRecipients', value: 7 }] }, { who: 'tester' }));
    await time.advance(200);
    expect(b.stores.settings.current.smtp.maxRecipients).toBe(7);
  });

  it('says nothing of what it has only heard itself', async () => {
    const [a, b] = await startTwo();
    const raised = vi.spyOn(b.cluster.bus!, 'raised');
    const announced = vi.spyOn(b.cluster.bus!, 'announceChange');
    await during(a.stores.settings.change({ set: [{ path: 'smtp.maxRecipients', value: 8 }] }, { who: 'tester' }));
    await during(a.stores.mail.ensureAccount('account1'));
    await time.advance(1_000);
    expect(raised).not.toHaveBeenCalledWith('settings');
    expect(announced).not.toHaveBeenCalled();
  });

  it('looks at accounts when words were lost', async () => {
    const [a, b] = await startTwo();
    const looked = vi.spyOn(b.stores.mail, 'recheckWatched');
    network.faults.loss = 1;
    await during(a.stores.mail.ensureAccount('account1'));
    await time.advance(100);
    network.faults.loss = 0;
    await during(a.stores.mail.ensureAccount('account2'));
    await time.advance(1_000);
    expect(looked).toHaveBeenCalled();
  });

  it('is told of work: when it becomes due elsewhere, and when the members change', async () => {
    const [a, b] = await startTwo();
    let words = 0;
    b.cluster.onWork(() => words++);
    a.stores.queue.announceDue();
    await time.advance(50);
    expect(words).toBe(1);
    const leaving = a.cluster.leave();
    await time.until(() => b.cluster.membership.members().length === 1, 5_000, 50);
    await leaving;
    expect(words).toBeGreaterThan(1);
    expect(open.shift()).toBe(a);
  });

  it('shows the cluster to operators, with what each node works', async () => {
    const [a, b] = await startTwo();
    const over = a.cluster.leases.whileLeader(
      'purge',
      (_epoch, signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve())),
    );
    const also = b.cluster.leases.whileLeader(
      'purge',
      (_epoch, signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve())),
    );
    await time.advance(20_000);
    const rows = await during(b.cluster.describe(b.stores.queue));
    expect(rows).toMatchObject([
      {
        id: b.cluster.nodeId,
        isThisNode: true,
        verdict: 'alive',
        shards: 32,
        isCutOff: false,
        gossipAddresses: [expect.any(String)],
      },
      {
        id: a.cluster.nodeId,
        isThisNode: false,
        verdict: 'alive',
        shards: 32,
        phi: expect.any(Number),
        gossipAgeSeconds: expect.any(Number),
      },
    ]);
    expect(rows.flatMap(({ leases }) => leases)).toEqual([{ job: 'purge', epoch: expect.any(Number) }]);
    await during(Promise.all([over(), also()]));
  });

  it('tells once that it was declared dead, whoever finds out', async () => {
    const [a] = await startTwo();
    let told = 0;
    a.cluster.onFenced(() => told++);
    a.cluster.fenced();
    a.cluster.fenced();
    expect([told, a.cluster.isFenced]).toEqual([1, true]);
  });
});

describe('gossip', () => {
  it('is there where other nodes can be, unless the file says otherwise', () => {
    const at = (store: object, gossip: object) => isGossiping(checkConfig({ store, gossip } as never));
    const [own, shared] = [{ backend: 'embedded' }, { backend: 'postgres' }];
    expect([at(own, {}), at(shared, {})]).toEqual([false, true]);
    expect([at(own, { enabled: true }), at(shared, { enabled: false })]).toEqual([true, false]);
  });

  it('is not even loaded by a node that does not gossip', async () => {
    vi.doMock('../cluster/gossip/index.js', () => {
      throw new Error('libp2p was loaded');
    });
    await expect(import('./main.js')).resolves.toHaveProperty('startNode');
    await expect(import('../cluster/gossip/index.js')).rejects.toThrow();
    vi.doUnmock('../cluster/gossip/index.js');
  });
});
