/** What members with faults, bad luck in order, and stores that hang must not do to the others. */
import { afterEach, describe, expect, it } from 'vitest';
import { nodeKeys } from '../../store/keyspace.js';
import { TestCluster, type TestMember } from '../testing/nodes.js';
import { VirtualTime } from '../testing/virtual-time.js';
import { failureTimings } from './contract.js';
import { Deadline } from './deadline.js';
import { Detector, type Voice } from './detector.js';
import { OwnBeats } from './own-beats.js';
import { Peer } from './peer.js';

const { normal } = failureTimings;

let cluster: TestCluster;
afterEach(() => cluster?.close());

async function start(count: number): Promise<TestMember[]> {
  cluster = new TestCluster({ network: {} });
  return cluster.start(count);
}

const verdicts = (members: readonly TestMember[]) =>
  members.flatMap(({ membership }) => membership.nodes().map(({ verdict }) => verdict));
const allAlive = (count: number) => Array.from({ length: count * count }, () => 'alive');

describe('a member that talks nonsense', () => {
  it('does not drive the incarnation of another beyond all numbers', async () => {
    const members = await start(3);
    const [a, b, c] = members as [TestMember, TestMember, TestMember];
    const heard = new Set<number>();
    a.gossip!.onDirect(({ from, incarnation }) => void (from === c.nodeId && heard.add(incarnation)));
    for (const incarnation of [Number.MAX_SAFE_INTEGER, 2 ** 53, 1e300, 7, 1.5]) {
      b.gossip!.publish('membership', ['suspect', c.nodeId, incarnation]);
      b.gossip!.send(c.nodeId, ['member', 'suspected', incarnation]);
      await cluster.time.advance(1_000);
    }
    expect([...heard]).toEqual([1]);
    // A suspicion of what it really is in is refuted as ever.
    b.gossip!.publish('membership', ['suspect', c.nodeId, 1]);
    await cluster.time.advance(1_000);
    expect([...heard]).toEqual([1, 2]);
    expect(verdicts(members)).toEqual(allAlive(3));
  });

  it('and suspects every new incarnation at once, is refuted at a bounded rate', async () => {
    const members = await start(3);
    const [a, b, c] = members as [TestMember, TestMember, TestMember];
    let refutations = 0;
    a.gossip!.subscribe('membership', ({ body }) => void ((body as unknown[])[0] === 'alive' && refutations++));
    for (let ms = 0; ms < 10_000; ms += 5) {
      b.gossip!.publish('membership', ['suspect', c.nodeId, refutations + 1]);
      await cluster.time.advance(5);
    }
    expect(refutations).toBeGreaterThan(5);
    expect(refutations).toBeLessThanOrEqual(10_000 / normal.gossipHeartbeatMs + 1);
  });

  it.each([1e300, 1.5, 2 ** 53])('of %d heartbeats makes nobody deaf for another', async (beat) => {
    const members = await start(3);
    const [a, b, c] = members as [TestMember, TestMember, TestMember];
    b.gossip!.send(a.nodeId, ['member', 'ack', 1, c.nodeId, beat === 1.5 ? 1e12 + 0.5 : beat]);
    b.gossip!.publish('membership', ['alive', 1, beat]);
    b.gossip!.send(a.nodeId, ['member', 'heartbeat', beat === 1.5 ? 1e12 + 0.5 : beat, true, 0, []]);
    await cluster.time.advance(10_000);
    expect(verdicts(members)).toEqual(allAlive(3));
  });

  it.each([
    ['control', (to: string) => ['drain', to]],
    ['membership', (to: string) => ['changed', to]],
    ['membership', (_to: string, i: number) => ['joined', `nobody ${i}`]],
  ] as const)('all the time (%s) does not make the others hammer on the store', async (topic, body) => {
    const [a, b] = (await start(2)) as [TestMember, TestMember];
    const before = cluster.database.version;
    for (let i = 0; i < 10_000; i++) {
      a.gossip!.publish(topic, body(b.nodeId, i));
      await cluster.time.advance(2);
    }
    // Two nodes, at the pace of doubt at most.
    expect(cluster.database.version - before).toBeLessThan(2 * (20_000 / normal.doubtRoundMs + 25));
  });

  it('asks all the time, and drives out nothing that dates what others have heard', () => {
    const beats = new OwnBeats(25);
    const first = beats.next(1_000);
    for (let i = 0; i < 10_000; i++) beats.next(1_000 + i / 5);
    expect(beats.sentMs(first)).toBe(1_000);
    expect(beats.lastMs).toBeGreaterThan(2_950);
  });
});

describe('the store', () => {
  it('that keeps the claims of one dead node does not keep the fence of another standing, nor its claims for ever', async () => {
    cluster = new TestCluster({ network: {} });
    let hanging = '';
    const claims = (() => {
      const table = cluster.claimTable(cluster.eye);
      return {
        holders: table.holders,
        release: (nodeId: string) => (nodeId === hanging ? new Promise<number>(() => {}) : table.release(nodeId)),
      };
    })();
    const members = Array.from({ length: 3 }, () => cluster.make({ claims }));
    for (const { membership, gossip } of members) {
      await gossip!.start();
      await membership.join();
      void membership.setState('ready');
    }
    await cluster.time.advance(5_000);
    const [a, b, c] = members as [TestMember, TestMember, TestMember];
    for (const member of [a, b]) await member.claim('work');
    hanging = a.nodeId;
    cluster.kill(a);
    await cluster.time.advance(100);
    cluster.kill(b);
    await cluster.time.advance(7_000);
    expect((await cluster.standing()).fences).toEqual([c.nodeId]);
    await cluster.time.advance(2 * normal.termMs);
    expect((await cluster.standing()).claims).toEqual([a.nodeId]);
    expect(c.membership.standing).toBe('joined');
  });

  it('that hangs does not keep a node from leaving', async () => {
    const [, b] = (await start(2)) as [TestMember, TestMember];
    const transact = b.kv.transact.bind(b.kv);
    b.kv.transact = () => new Promise(() => {});
    let hasLeft = false;
    void b.membership.leave().then(() => (hasLeft = true));
    await cluster.time.advance(4 * normal.termMs);
    expect(hasLeft).toBe(true);
    b.kv.transact = transact;
  });
});

describe('a deadline', () => {
  it('does not take what fails at once for something that hangs', async () => {
    const time = new VirtualTime();
    const deadline = new Deadline(time.clock(), 1_000);
    for (let i = 0; i < 5; i++) {
      const failing = deadline.bound(() => {
        throw new Error('at once');
      });
      await expect(failing).rejects.toThrow('at once');
    }
    await expect(deadline.bound(async () => 'done')).resolves.toBe('done');
    expect(time.waiting.size).toBe(0);
  });
});

describe('a node', () => {
  it('that is told to leave while it joins, leaves nothing behind and does nothing any more', async () => {
    const [a] = (await start(1)) as [TestMember];
    const late = cluster.make();
    await late.gossip!.start();
    let letGo = () => {};
    const transact = late.kv.transact.bind(late.kv);
    late.kv.transact = (async (...args: Parameters<typeof transact>) => {
      await new Promise<void>((resolve) => (letGo = resolve));
      return transact(...args);
    }) as typeof late.kv.transact;
    const joining = late.membership.join();
    const refused = expect(joining).rejects.toThrow('leaves the cluster');
    await cluster.time.advance(10);
    await late.membership.leave();
    late.kv.transact = transact;
    letGo();
    await refused;
    await cluster.time.advance(3_000);
    expect(late.membership.standing).toBe('left');
    expect((await cluster.standing()).rows).toEqual([a.nodeId]);
    expect(await cluster.eye.read((reads) => reads.get(nodeKeys.fence(late.nodeId)))).toBeUndefined();
    let direct = 0;
    a.gossip!.onDirect(() => direct++);
    await cluster.time.advance(5_000);
    expect(direct).toBe(0);
  });

  it('whose state is changed before it could be seen does not keep anybody waiting for the first', async () => {
    const [a] = (await start(1)) as [TestMember];
    a.kv.faults.outage = true;
    const settled: string[] = [];
    void a.membership.setState('ready').then(() => settled.push('ready'));
    await cluster.time.advance(1_000);
    void a.membership.setState('draining').then(() => settled.push('draining'));
    await cluster.time.advance(10);
    expect(settled).toEqual(['ready']);
    a.kv.faults.clear();
    await cluster.time.advance(3_000);
    expect(settled).toEqual(['ready', 'draining']);
  });

  it('that frees what an earlier process has left sets no timer that never comes', async () => {
    cluster = new TestCluster({ network: {} });
    await cluster.eye.transact(async (tx) => tx.set(nodeKeys.fence('f'.repeat(32)), Buffer.alloc(0)));
    const one = cluster.make();
    const setTimer = one.clock.setTimer.bind(one.clock);
    const delays: number[] = [];
    one.clock.setTimer = (delayMs, callback) => {
      delays.push(delayMs);
      return setTimer(delayMs, callback);
    };
    await one.gossip!.start();
    await one.membership.join({ isStoreExclusive: true });
    expect((await cluster.standing()).fences).toEqual([one.nodeId]);
    expect(delays.filter((delayMs) => !Number.isFinite(delayMs))).toEqual([]);
  });
});

describe('the detector', () => {
  const silent: Voice = { send: () => true, announce: () => {}, setIncarnation: () => {}, hurry: () => {}, onHearing: () => {} };
  const heartbeat = (beat: number, ...digest: (string | number)[]) => ['member', 'heartbeat', beat, true, 0, digest];
  const peers = (...ids: string[]) => ids.map((nodeId) => ({ nodeId, incarnation: 1 }));

  it('does not miss an acknowledgement that there has been no time for, when the ring changes', () => {
    const peer = new Peer('a', normal, 0, 1, false);
    let nowMs = 0;
    for (let beat = 1; nowMs < 10_000; nowMs += normal.gossipHeartbeatMs) peer.heard(beat++, nowMs);
    expect(peer.isTroubled(nowMs)).toBe(false);
    peer.watch(true, nowMs);
    expect(peer.isTroubled(nowMs + 100)).toBe(false);
    for (let beat = 100; beat < 110; beat++) peer.heard(beat, (nowMs += normal.gossipHeartbeatMs));
    expect(peer.isTroubled(nowMs)).toBe(true);
  });

  it('expects nothing of a newcomer that it does not of the first, once all others are gone', () => {
    const detector = new Detector({ nodeId: 'a', incarnation: 1, timing: normal, voice: silent, float: () => 0 });
    detector.setPeers(peers('b'), 0);
    detector.start(0);
    detector.tick(0);
    detector.received('b', 1, heartbeat(1, 'a', 1), 10);
    expect(detector.isVouchedFor(20)).toBe(true);
    expect(detector.isVouchedFor(10_000)).toBe(false);
    // The newcomer may have been told that this node is heard, as long as somebody is left who was there before.
    detector.setPeers(peers('b', 'c'), 10_000);
    detector.setPeers(peers('c'), 10_000);
    expect(detector.isVouchedFor(10_000)).toBe(false);
    detector.setPeers(peers('d'), 20_000);
    expect(detector.isVouchedFor(20_000)).toBe(true);
    detector.received('d', 1, heartbeat(1, 'a', 1), 20_010);
    expect(detector.isVouchedFor(30_000)).toBe(false);
  });
});
