/** What becomes of nodes that gossip when something breaks: in virtual time, with the real membership on a memory store and a simulated network. */
import { afterEach, describe, expect, it } from 'vitest';
import { nodeKeys } from '../../store/keyspace.js';
import { TestCluster, type TestMember } from '../testing/nodes.js';
import { type FailureTiming, failureTimings, type Verdict } from './contract.js';
import { encodeRow } from './rows.js';

const { normal, fast } = failureTimings;

let cluster: TestCluster;
afterEach(() => cluster.close());

interface Setting {
  seed?: number;
  timing?: FailureTiming;
  loss?: number;
}

async function start(count: number, { seed = 1, timing = normal, loss = 0 }: Setting = {}): Promise<TestMember[]> {
  cluster = new TestCluster({ network: { loss }, seed, timing });
  return cluster.start(count);
}

const verdictOf = (of: TestMember, peer: TestMember): Verdict | 'gone' =>
  of.membership.nodes().find(({ nodeId }) => nodeId === peer.nodeId)?.verdict ?? 'gone';
const isDead = (of: TestMember, peer: TestMember) => ['dead', 'gone'].includes(verdictOf(of, peer));
const shareOf = (of: TestMember, peer: TestMember) => of.membership.shares().find(({ nodeId }) => nodeId === peer.nodeId);
const ids = (members: readonly TestMember[]) => members.map(({ nodeId }) => nodeId).sort();

/** Nobody has been declared dead by anybody, and everybody is well. */
async function expectAllWell(members: readonly TestMember[]): Promise<void> {
  expect((await cluster.standing()).fences).toEqual(ids(members));
  for (const { membership, fencings } of members) {
    expect(membership.standing).toBe('joined');
    expect(fencings).toBe(0);
    expect(membership.nodes().map(({ verdict }) => verdict)).toEqual(members.map(() => 'alive'));
    expect(membership.shares()).toEqual(ids(members).map((nodeId) => ({ nodeId })));
  }
}

/** The first moment at which one stops and the first at which anybody has broken its fence, watched every few milliseconds. */
async function orderOfEnd(victim: TestMember, observers: readonly TestMember[], limitMs: number) {
  const startMs = cluster.time.nowMs;
  let steppedDownMs = Number.POSITIVE_INFINITY;
  for (;;) {
    if (victim.membership.standing !== 'joined') steppedDownMs = Math.min(steppedDownMs, cluster.time.nowMs - startMs);
    // Known to whoever breaks a fence in the moment that it is broken.
    if (observers.some((of) => isDead(of, victim))) return { steppedDownMs, deadMs: cluster.time.nowMs - startMs };
    if (cluster.time.nowMs - startMs > limitMs) return { steppedDownMs, deadMs: Number.POSITIVE_INFINITY };
    await cluster.time.advance(10);
  }
}

describe('a node that is killed', () => {
  it.each([
    ['normal', normal, true, 3_000],
    ['normal', normal, false, 3_000],
    ['fast', fast, true, 1_000],
    ['fast', fast, false, 1_000],
  ] as const)('is dead for all others in time (%s timing)', async (_, timing, isNoticed, limitMs) => {
    let worstMs = 0;
    for (const count of [2, 3, 5]) {
      for (let seed = count; seed <= count + 1; seed++) {
        const members = await start(count, { seed, timing, loss: 0.01 });
        await cluster.time.advance(seed * 517);
        const victim = members[seed % count]!;
        await victim.claim('work');
        const others = members.filter((member) => member !== victim);
        cluster.kill(victim, isNoticed);
        await expect(victim.save('late')).resolves.toBeUndefined();
        worstMs = Math.max(worstMs, await cluster.time.until(() => others.every((of) => isDead(of, victim)), 20_000, 10));
        await expect(victim.save('too late')).rejects.toThrow('fenced');
        for (const of of others) expect(of.membership.members()).toEqual(ids(others));
        await cluster.time.advance(200);
        expect(await cluster.standing()).toEqual({ rows: ids(others), fences: ids(others), claims: [] });
        await cluster.close();
      }
    }
    expect(worstMs).toBeLessThan(limitMs);
    expect(worstMs).toBeGreaterThan(timing.silenceMs);
  });

  it('is found together with another one, by the only one that is left, who takes no shares before', async () => {
    const members = await start(3);
    const [a, b, c] = members as [TestMember, TestMember, TestMember];
    cluster.kill(a);
    cluster.kill(b);
    const deadMs = await cluster.time.until(
      () => {
        // Nobody takes a share of somebody who may live.
        expect(c.membership.members()).toEqual(ids(members.filter((one) => one === c || !isDead(c, one))));
        return isDead(c, a) && isDead(c, b);
      },
      20_000,
      10,
    );
    expect(deadMs).toBeLessThan(6_000);
    await cluster.time.advance(500);
    expect(c.membership.shares()).toEqual([{ nodeId: c.nodeId }]);
  });
});

describe('a pause', () => {
  it('of 2 s kills nobody, whenever it comes', async () => {
    const members = await start(3, { loss: 0.01 });
    for (let round = 0; round < 12; round++) {
      await cluster.time.advance(4_000 + round * 171);
      const paused = members[round % 3]!;
      paused.clock.isPaused = true;
      await cluster.time.advance(2_000);
      paused.clock.isPaused = false;
    }
    await cluster.time.advance(4_000);
    await expectAllWell(members);
  });

  it('of a moment is not told as a stepping down', async () => {
    const members = await start(3);
    const standings: string[] = [];
    members[1]!.membership.onStanding((standing) => standings.push(standing));
    members[1]!.clock.isPaused = true;
    await cluster.time.advance(2_500);
    // It takes on nothing, for all it knows, but hangs up on nobody yet.
    expect(members[1]!.membership.standing).toBe('storeless');
    members[1]!.clock.isPaused = false;
    await cluster.time.advance(200);
    expect(members[1]!.membership.standing).toBe('joined');
    expect(standings).toEqual([]);
  });

  it('of the observer condemns nobody', async () => {
    const members = await start(3);
    for (const pauseMs of [1_000, 2_500, 6_000, 30_000]) {
      for (const member of members) member.clock.isPaused = true;
      await cluster.time.advance(pauseMs);
      // One wakes long before the others, who have been silent all the time.
      members[0]!.clock.isPaused = false;
      await cluster.time.advance(2_000);
      for (const member of members) member.clock.isPaused = false;
      await cluster.time.advance(5_000);
      expect(members.map(({ fencings }) => fencings)).toEqual([0, 0, 0]);
    }
    await cluster.time.advance(10_000);
    await expectAllWell(members);
  });
});

describe('gossip that is cut while the store answers', () => {
  it.each([
    ['both ways', false],
    ['one way', true],
  ])('for 5 s or for minutes kills nobody; it shows, and the node keeps its work (%s)', async (_, isOneWay) => {
    const members = await start(3);
    const [a, b, c] = members as [TestMember, TestMember, TestMember];
    cluster.cut([c], [a, b], isOneWay);
    await cluster.time.advance(5_000);
    expect([verdictOf(a, c), verdictOf(b, c)]).toEqual(['isolated', 'isolated']);
    expect(shareOf(a, c)).toEqual({ nodeId: c.nodeId, keptAmong: ids(members) });
    expect(shareOf(a, a)).toEqual({ nodeId: a.nodeId });
    // The one that hears only itself does not reach for the others' work.
    expect(shareOf(c, c)?.keptAmong).toEqual(isOneWay ? undefined : ids(members));
    // Somebody who comes now gets shares of those that are heard only.
    const late = cluster.make();
    cluster.cut([c], [late], isOneWay);
    await late.gossip!.start();
    await late.membership.join();
    void late.membership.setState('ready');
    await cluster.time.advance(5_000);
    expect(shareOf(a, c)?.keptAmong).toEqual(ids(members));
    expect(shareOf(a, late)).toEqual({ nodeId: late.nodeId });
    const commits = cluster.database.version;
    await cluster.time.advance(300_000);
    // After a while nobody hurries any more: four nodes, a heartbeat each in 0.8 s.
    expect(cluster.database.version - commits).toBeLessThan(4 * (300 / 0.8) + 2_000);
    expect(members.map(({ fencings }) => fencings)).toEqual([0, 0, 0]);
    expect([a, b, c].map(({ membership }) => membership.standing)).toEqual(['joined', 'joined', 'joined']);
    cluster.network!.heal();
    await cluster.time.advance(3_000);
    await expectAllWell([...members, late]);
  });

  it('and is cut for long, does not keep the dead alive', async () => {
    const [a, b, c] = (await start(3)) as [TestMember, TestMember, TestMember];
    cluster.cut([c], [a, b]);
    await cluster.time.advance(100_000);
    cluster.kill(c, false);
    expect(await cluster.time.until(() => isDead(a, c) && isDead(b, c), 20_000, 10)).toBeLessThan(6_000);
  });

  it('half from half: nobody takes what is the others', async () => {
    const members = await start(4);
    const [a, b, c, d] = members as [TestMember, TestMember, TestMember, TestMember];
    cluster.cut([a, b], [c, d]);
    await cluster.time.advance(30_000);
    expect([a, b].map((of) => shareOf(of, of))).toEqual(ids([a, b]).map((nodeId) => ({ nodeId })));
    expect([c, d].map((of) => shareOf(of, of)?.keptAmong)).toEqual([ids(members), ids(members)]);
    for (const of of [a, b, c, d]) expect(of.membership.members()).toEqual(ids(members));
    expect(shareOf(a, c)?.keptAmong).toEqual(ids(members));
    cluster.network!.heal();
    await cluster.time.advance(3_000);
    await expectAllWell(members);
  });

  it('by a link that flaps kills nobody', async () => {
    const members = await start(3);
    for (let i = 0; i < 25; i++) {
      cluster.network!.cutBoth(members[0]!.nodeId, members[1]!.nodeId);
      if (i % 3 === 0) cluster.network!.cutBoth(members[1]!.nodeId, members[2]!.nodeId);
      await cluster.time.advance(300 + i * 157);
      cluster.network!.heal();
      await cluster.time.advance(200 + i * 41);
    }
    await cluster.time.advance(5_000);
    await expectAllWell(members);
  });

  it('where it never worked at all, rows decide and everybody has a full share', async () => {
    cluster = new TestCluster({ network: { loss: 1 } });
    const members = await cluster.start(3);
    await cluster.time.advance(120_000);
    await expectAllWell(members);
    cluster.kill(members[2]!, false);
    const deadMs = await cluster.time.until(() => isDead(members[0]!, members[2]!));
    expect(deadMs).toBeGreaterThan(normal.termMs - normal.heartbeatMs);
  });

  it.each([0.01, 0.2])('or loses messages (%f): nobody is suspected for long', async (loss) => {
    const members = await start(5, { loss });
    await cluster.time.advance(40_000);
    await expectAllWell(members);
  });
});

describe('a store that one node can’t reach', () => {
  it('while gossip hears it: it is store-less, steps down after a term, and is dead after that', async () => {
    const [a, b, c] = (await start(3)) as [TestMember, TestMember, TestMember];
    c.kv.faults.outage = true;
    await cluster.time.advance(normal.termMs - 2_200);
    expect([c.membership.standing, verdictOf(a, c), verdictOf(b, c)]).toEqual(['joined', 'store-less', 'store-less']);
    expect(shareOf(a, c)).toEqual({ nodeId: c.nodeId });
    const { steppedDownMs, deadMs } = await orderOfEnd(c, [a, b], 20_000);
    expect(steppedDownMs).toBeLessThan(deadMs);
  });

  it.each([
    ['both ways', [], 3],
    ['nobody hears it', ['mute'], 3],
    ['it hears nobody', ['deaf'], 3],
    ['both ways, of two', [], 2],
    ['nobody hears it, of two', ['mute'], 2],
  ] as const)(
    'and gossip that is cut at the same time: it steps down before anybody declares it dead (%s)',
    async (_, ways, count) => {
      for (let seed = 1; seed <= 3; seed++) {
        const members = await start(count, { seed, loss: 0.01 });
        await cluster.time.advance(seed * 377);
        const victim = members[seed % count]!;
        const others = members.filter((member) => member !== victim);
        victim.kv.faults.outage = true;
        const [way] = ways;
        if (way === 'deaf') cluster.cut(others, [victim], true);
        else cluster.cut([victim], others, way === 'mute');
        const { steppedDownMs, deadMs } = await orderOfEnd(victim, others, 20_000);
        expect(steppedDownMs).toBeLessThan(deadMs);
        // Who is still heard has a term.
        if (way === 'deaf') expect(deadMs).toBeGreaterThan(normal.termMs - normal.heartbeatMs);
        else expect(deadMs).toBeLessThan(4_000);
        await cluster.close();
      }
    },
  );

  it.each([false, true])(
    'two that hear only one another step down as well before they are declared dead (one way: %s)',
    async (isOneWay) => {
      for (let seed = 1; seed <= 4; seed++) {
        const members = await start(4, { seed });
        const [a, b, c, d] = members as [TestMember, TestMember, TestMember, TestMember];
        await cluster.time.advance(seed * 613);
        for (const { kv } of [c, d]) kv.faults.outage = true;
        cluster.cut([c, d], [a, b], isOneWay);
        const ends = await Promise.all([orderOfEnd(c, [a, b], 20_000)]);
        expect(ends[0]!.deadMs).toBeLessThan(20_000);
        expect(ends[0]!.steppedDownMs).toBeLessThan(ends[0]!.deadMs);
        expect(d.membership.standing).not.toBe('joined');
        await cluster.close();
      }
    },
  );

  it('but is alone with itself: it knows the term only', async () => {
    const [a] = (await start(1)) as [TestMember];
    a.kv.faults.outage = true;
    await cluster.time.advance(normal.termMs - 2_200);
    expect(a.membership.standing).toBe('joined');
    await cluster.time.advance(3_000);
    expect(a.membership.standing).toBe('storeless');
  });

  it('of everybody kills nobody, gossip or not', async () => {
    const members = await start(3);
    for (const { kv } of members) kv.faults.outage = true;
    await cluster.time.advance(4_000);
    expect(members.map(({ membership }) => membership.standing)).toEqual(['joined', 'joined', 'joined']);
    cluster.cut([members[0]!], members.slice(1));
    await cluster.time.advance(60_000);
    for (const { kv } of members) kv.faults.clear();
    await cluster.time.advance(5_000);
    expect(members.map(({ fencings }) => fencings)).toEqual([0, 0, 0]);
    cluster.network!.heal();
    await cluster.time.advance(5_000);
    await expectAllWell(members);
  });
});

describe('what nodes tell one another', () => {
  it('makes joins, states and leaves known within tens of milliseconds', async () => {
    const [a, b] = (await start(2)) as [TestMember, TestMember];
    await cluster.time.advance(10_000);
    const late = cluster.make();
    await late.gossip!.start();
    await late.membership.join();
    await cluster.time.until(() => a.gossip!.connected().includes(late.nodeId), 3_000, 10);
    expect([a, b].map((of) => of.membership.nodes().length)).toEqual([3, 3]);
    void late.membership.setState('ready');
    expect(await cluster.time.until(() => [a, b].every((of) => of.membership.members().length === 3), 3_000, 10)).toBeLessThan(
      100,
    );
    const leaving = late.membership.leave();
    expect(await cluster.time.until(() => [a, b].every((of) => of.membership.members().length === 2), 3_000, 10)).toBeLessThan(
      100,
    );
    await leaving;
  });

  it('refutes a suspicion by a higher incarnation, and lets the row move', async () => {
    const [a, b, c] = (await start(3)) as [TestMember, TestMember, TestMember];
    await cluster.time.advance(5_000);
    const heard: unknown[] = [];
    a.gossip!.subscribe('membership', ({ from, incarnation, body }) => heard.push([from, incarnation, (body as unknown[])[0]]));
    b.gossip!.publish('membership', ['suspect', c.nodeId, 1]);
    await cluster.time.advance(20);
    expect(heard).toContainEqual([c.nodeId, 2, 'alive']);
    // An old suspicion is no reason to rise again.
    b.gossip!.publish('membership', ['suspect', c.nodeId, 1]);
    await cluster.time.advance(2_000);
    expect(heard.filter((one) => (one as unknown[])[2] === 'alive')).toHaveLength(1);
    await expectAllWell([a, b, c]);
  });

  it('may be garbage', async () => {
    const members = await start(2);
    const [a, b] = members as [TestMember, TestMember];
    const bodies = [
      null,
      7,
      'x',
      [],
      ['member'],
      ['member', 'heartbeat', 'x'],
      ['member', 'heartbeat', 1, true, 1, [{}, 2, a.nodeId, 1e300]],
    ];
    for (const body of [
      ...bodies,
      ['member', 'ack', 1, b.nodeId, -1],
      ['member', 'probe-request', 1, 'nobody', 1e12],
      ['suspect', 1],
      {},
      ['alive'],
    ]) {
      b.gossip!.send(a.nodeId, body);
      b.gossip!.publish('membership', body);
      b.gossip!.publish('control', body);
    }
    await cluster.time.advance(5_000);
    await expectAllWell(members);
  });
});

describe('a request to drain', () => {
  it('reaches the node through the store, hurried by gossip, and goes with its row', async () => {
    const [a, b] = (await start(2)) as [TestMember, TestMember];
    let told = 0;
    b.membership.onDrainRequested(() => told++);
    expect(await a.membership.requestDrain('f'.repeat(32))).toBe(false);
    expect(await a.membership.requestDrain(b.nodeId)).toBe(true);
    await cluster.time.advance(50);
    expect(told).toBe(1);
    expect(await a.membership.requestDrain(b.nodeId)).toBe(true);
    await cluster.time.advance(10_000);
    expect(told).toBe(1);
    // Who asks late is told as well.
    b.membership.onDrainRequested(() => (told += 10));
    expect(told).toBe(11);
    await b.membership.leave();
    expect(await cluster.eye.read(async (reads) => reads.get(nodeKeys.request(b.nodeId)))).toBeUndefined();
  });

  it('reaches it without gossip at its next round', async () => {
    cluster = new TestCluster();
    const [a, b] = (await cluster.start(2)) as [TestMember, TestMember];
    let told = 0;
    b.membership.onDrainRequested(() => told++);
    await a.membership.requestDrain(b.nodeId);
    await cluster.time.advance(2_100);
    expect(told).toBe(1);
  });
});

describe('joining', () => {
  it('that breaks off leaves nothing behind', async () => {
    const [a] = (await start(1)) as [TestMember];
    const late = cluster.make({
      claims: { release: async () => 0, holders: () => Promise.reject(new Error('no claims today')) },
    });
    await late.gossip!.start();
    await expect(late.membership.join({ isStoreExclusive: true })).rejects.toThrow('no claims today');
    expect(late.membership.standing).toBe('left');
    expect((await cluster.standing()).rows).toEqual([a.nodeId]);
    expect((await cluster.standing()).fences).toEqual([a.nodeId]);
  });

  it('beside a node of the release before, that does not gossip, works by rows', async () => {
    const members = await start(2);
    const [a] = members as [TestMember];
    const old = 'e'.repeat(32);
    const self = { hostname: 'old', addresses: [], roles: ['queue'], version: '0', formats: { node: 2 } };
    const base = { ...self, nodeId: old, incarnation: 1, startToken: 't', state: 'ready' as const, startedAtMs: 0, sentAtMs: 0 };
    const write = (heartbeat: number) =>
      cluster.eye.transact(async (tx) => {
        tx.set(nodeKeys.row(old), encodeRow({ ...base, heartbeat }));
        tx.set(nodeKeys.fence(old), Buffer.alloc(0));
      });
    for (let i = 0; i < 10; i++) {
      await write(i);
      await cluster.time.advance(2_000);
    }
    expect(a.membership.shares()).toEqual([...ids(members), old].sort().map((nodeId) => ({ nodeId })));
    // It does not keep others from being found dead in time.
    const writing = (async () => {
      for (let i = 10; i < 12; i++) await write(i);
    })();
    await writing;
    cluster.kill(members[1]!);
    expect(await cluster.time.until(() => isDead(a, members[1]!), 20_000, 10)).toBeLessThan(3_000);
  });
});
