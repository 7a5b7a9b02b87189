import { afterEach, describe, expect, it, vi } from 'vitest';
import { silentLogger } from '../../ops/telemetry/index.js';
import { MemoryDatabase, openMemoryStore } from '../../store/kv/index.js';
import { seededRandom } from '../testing/nodes.js';
import { VirtualTime } from '../testing/virtual-time.js';
import { busLimits, createBus } from './index.js';
import { type Bird, Flock } from './test-flock.js';

let flock: Flock;
afterEach(async () => flock.close());

async function start(count: number, seed = 1): Promise<Bird[]> {
  flock = new Flock(seed);
  return flock.start(count);
}

describe('changes of accounts', () => {
  it('come to all other nodes at once, with all that is known of them', async () => {
    const [a, b, c] = (await start(3)) as [Bird, Bird, Bird];
    const startMs = flock.time.nowMs;
    a.bus.announceChange({ accountId: 'alice', modseq: 7, commitVersion: '123456789012345678' });
    await flock.time.advance(10);
    for (const { heard } of [b, c]) {
      expect(heard).toEqual([{ accountId: 'alice', modseq: 7, commitVersion: '123456789012345678', atMs: expect.any(Number) }]);
      // The network takes 2 ms at most.
      expect(heard[0]!.atMs - startMs).toBeLessThanOrEqual(2);
    }
    expect(a.heard).toEqual([]);
    expect(b.bus.status).toMatchObject({ missed: 0, isHealthy: true });
  });

  it('go together when they are many: the highest of each account, in few messages', async () => {
    const [a, b] = (await start(2)) as [Bird, Bird];
    for (let modseq = 1; modseq <= 200; modseq++) {
      for (const accountId of ['alice', 'bob']) a.bus.announceChange({ accountId, modseq });
      if (modseq % 20 === 0) await flock.time.advance(1);
    }
    await flock.time.advance(100);
    expect(flock.sent).toBeLessThanOrEqual(4);
    const highest = (accountId: string) =>
      Math.max(...b.heard.filter((one) => one.accountId === accountId).map((one) => one.modseq));
    expect([highest('alice'), highest('bob')]).toEqual([200, 200]);
  });

  it('fit into messages of bounded size, however many wait, and beyond that say that they are too many', async () => {
    const [a, b] = (await start(2)) as [Bird, Bird];
    const bodies: number[] = [];
    const publish = a.gossip.publish.bind(a.gossip);
    a.gossip.publish = (topic, body) => {
      bodies.push(JSON.stringify(body).length);
      publish(topic, body);
    };
    const name = (n: number) => `account-${'x'.repeat(80)}-${n}`;
    for (let n = 0; n < busLimits.maxPendingAccounts; n++) a.bus.announceChange({ accountId: name(n), modseq: n + 1 });
    await flock.time.advance(100);
    expect(new Set(b.heard.map(({ accountId }) => accountId)).size).toBe(busLimits.maxPendingAccounts);
    expect(bodies.length).toBeGreaterThan(10);
    expect(Math.max(...bodies)).toBeLessThan(60_000);
    expect(b.missedAtMs).toEqual([]);
    await flock.time.advance(1_000);
    for (let n = 0; n <= busLimits.maxPendingAccounts; n++) a.bus.announceChange({ accountId: name(n), modseq: n + 2 });
    await flock.time.advance(1_000);
    expect(b.missedAtMs).toHaveLength(1);
  });

  it('are not encoded for nobody, and not after the end', async () => {
    const [a] = (await start(1)) as [Bird];
    let published = 0;
    a.gossip.publish = () => void published++;
    a.bus.announceChange({ accountId: 'alice', modseq: 1 });
    await flock.time.advance(5_000);
    expect(published).toBe(0);
  });

  it('that wait go out when the bus is stopped', async () => {
    const [a, b] = (await start(2)) as [Bird, Bird];
    a.bus.announceChange({ accountId: 'alice', modseq: 1 });
    await flock.time.advance(1);
    a.bus.announceChange({ accountId: 'bob', modseq: 2 });
    await a.bus.stop();
    await flock.time.advance(10);
    expect(b.heard.map(({ accountId }) => accountId)).toEqual(['alice', 'bob']);
  });

  it('harm nobody when they are forged, replayed, or of a later version', async () => {
    const [a, b] = (await start(2)) as [Bird, Bird];
    const listenerFails = b.bus.onChange(() => {
      throw new Error('a broken listener');
    });
    const bodies: unknown[] = [
      null,
      'text',
      [],
      [0, 0, [], []],
      [1],
      [1, 0, 'names', {}],
      [1, 0, ['No Name', 7, 'x'.repeat(100), 'unknown'], ['alice', -1, '', 'bob', 1.5, '', '', 1, '', 7, 7, 7]],
      [1, 0, [], ['x'.repeat(600), 1, '']],
      [2, 0, [], ['carol', 3, 'not a version'], { later: true }],
    ];
    for (const body of bodies) a.gossip.publish('changes', body);
    await flock.time.advance(500);
    expect(b.heard.map(({ atMs: _, ...change }) => change)).toEqual([{ accountId: 'carol', modseq: 3 }]);
    listenerFails();
    // An old one comes again: neither heard twice nor taken for a gap.
    flock.network.faults.doubling = 1;
    a.bus.announceChange({ accountId: 'alice', modseq: 9 });
    await flock.time.advance(2_000);
    expect(b.heard).toHaveLength(2);
    expect(b.bus.status).toMatchObject({ missed: 0, isHealthy: true });
  });
});

describe('messages that do not come', () => {
  it('are noticed by the next one, and made up for from the store within a bound', async () => {
    const [a, b] = (await start(2)) as [Bird, Bird];
    await flock.raise();
    flock.network.faults.loss = 1;
    a.bus.announceChange({ accountId: 'alice', modseq: 1 });
    a.bus.raised('counter');
    await flock.time.advance(50);
    expect(b.heard).toEqual([]);
    flock.network.faults.loss = 0;
    const startMs = flock.time.nowMs;
    a.bus.announceChange({ accountId: 'alice', modseq: 2 });
    await flock.time.until(() => b.missedAtMs.length > 0 && b.told.length > 0, 3_000);
    expect(flock.time.nowMs - startMs).toBeLessThan(1_000);
    expect(b.bus.status.missed).toBe(1);
    await flock.time.advance(200);
    expect(b.bus.status.isHealthy).toBe(true);
  });

  it('are noticed although nothing comes after them', async () => {
    const [a, b] = (await start(2)) as [Bird, Bird];
    flock.network.faults.loss = 1;
    a.bus.announceChange({ accountId: 'alice', modseq: 1 });
    await flock.time.advance(50);
    flock.network.faults.loss = 0;
    const startMs = flock.time.nowMs;
    await flock.time.until(() => b.missedAtMs.length > 0, 5_000);
    expect(flock.time.nowMs - startMs).toBeLessThan(2_000);
  });

  it('are noticed although nothing came through for seconds and nothing comes after them, and then there is silence', async () => {
    const [a, b] = (await start(2)) as [Bird, Bird];
    flock.network.faults.loss = 1;
    a.bus.announceChange({ accountId: 'alice', modseq: 1 });
    await flock.time.advance(3_000);
    flock.network.faults.loss = 0;
    await flock.time.until(() => b.missedAtMs.length > 0, 5_000);
    const published = vi.spyOn(a.gossip, 'publish');
    await flock.time.advance(60_000);
    expect(published.mock.calls.filter(([topic]) => topic === 'changes')).toEqual([]);
  });

  it('were only overtaken: that is no loss', async () => {
    const [a, b] = (await start(2)) as [Bird, Bird];
    flock.network.faults.maxDelayMs = 150;
    for (let modseq = 1; modseq <= 40; modseq++) {
      a.bus.announceChange({ accountId: 'alice', modseq });
      await flock.time.advance(10);
    }
    await flock.time.advance(3_000);
    const order = b.heard.map(({ modseq }) => modseq);
    expect(order).not.toEqual([...order].sort((x, y) => x - y));
    expect(b.missedAtMs).toEqual([]);
    expect(b.bus.status).toMatchObject({ missed: 0, isHealthy: true });
  });

  it('are made up for after a partition, and told as often as the store can bear', async () => {
    const [a, b, c] = (await start(3)) as [Bird, Bird, Bird];
    flock.network.cutBoth('node0', 'node2');
    flock.network.cutBoth('node1', 'node2');
    for (const bird of [a, b]) bird.gossip.lost('node2');
    for (const other of ['node0', 'node1']) c.gossip.lost(other);
    await flock.time.advance(100);
    expect(c.bus.status.isHealthy).toBe(false);
    // What is followed is compared every 2 s.
    await flock.raise();
    a.bus.raised('counter');
    const cutMs = flock.time.nowMs;
    await flock.time.until(() => c.told.length > 0, 3_000);
    expect(flock.time.nowMs - cutMs).toBeLessThan(2_500);
    for (let modseq = 1; modseq <= 5; modseq++) {
      a.bus.announceChange({ accountId: 'alice', modseq });
      await flock.time.advance(2_000);
    }
    expect(c.heard).toEqual([]);
    expect(b.heard).toHaveLength(5);
    const healMs = flock.time.nowMs;
    flock.network.heal();
    await flock.time.until(() => c.missedAtMs.length > 0, 2_000);
    expect(flock.time.nowMs - healMs).toBeLessThan(1_000);
    await flock.time.advance(5_000);
    expect(c.bus.status.isHealthy).toBe(true);
    expect(c.missedAtMs.length).toBeLessThanOrEqual(2);
  });

  it('make no storm: many nodes with many gaps read the store a bounded number of times, and not together', async () => {
    const birds = await start(10, 3);
    flock.network.faults.loss = 0.05;
    for (let round = 0; round < 600; round++) {
      for (const bird of birds.slice(0, 4)) bird.bus.announceChange({ accountId: `a${round % 50}`, modseq: round });
      await flock.time.advance(10);
    }
    for (const bird of birds) {
      expect(bird.bus.status.missed).toBeGreaterThan(10);
      expect(bird.missedAtMs.length).toBeGreaterThan(1);
      // Six seconds, every two at most, and each compares once.
      expect(bird.missedAtMs.length).toBeLessThanOrEqual(4);
      expect(bird.reads).toBeLessThanOrEqual(8);
    }
    const firsts = birds.map(({ missedAtMs }) => missedAtMs[0]!);
    expect(Math.max(...firsts) - Math.min(...firsts)).toBeGreaterThan(50);
  });
});

describe('a node without gossip', () => {
  it('compares generations on the timer, and what it raised itself at once', async () => {
    flock = new Flock();
    const time = new VirtualTime();
    const clock = time.clock();
    const kv = openMemoryStore({ database: new MemoryDatabase({ clock }), clock });
    const others: string[] = ['self'];
    const bus = createBus({
      kv,
      clock,
      random: seededRandom(1),
      logger: silentLogger,
      nodeId: 'self',
      members: () => others,
    });
    bus.start();
    await time.advance(60_000);
    expect(time.waiting.size).toBe(0);
    let generation = 0;
    const told: string[] = [];
    const unfollow = bus.follow({
      name: 'settings',
      read: async () => `${generation}`,
      onChanged: (now) => void told.push(now),
    });
    await time.advance(1);
    expect(told).toEqual(['0']);
    generation++;
    bus.raised('settings');
    bus.announceChange({ accountId: 'alice', modseq: 1 });
    await time.advance(busLimits.minComparisonGapMs);
    expect(told).toEqual(['0', '1']);
    generation++;
    await time.advance(11_001);
    expect(told).toEqual(['0', '1', '2']);
    expect(bus.status.isHealthy).toBe(true);
    // With others in the cluster it can't hear them: the timer is all it has.
    others.push('other');
    await time.advance(11_001);
    expect(bus.status.isHealthy).toBe(false);
    generation++;
    await time.advance(2_201);
    expect(told).toEqual(['0', '1', '2', '3']);
    unfollow();
    await time.advance(11_001);
    expect(time.waiting.size).toBe(0);
    await bus.stop();
  });
});
