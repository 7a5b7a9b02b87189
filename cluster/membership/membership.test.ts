import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { registry } from '../../ops/telemetry/index.js';
import { key, nodeKeys } from '../../store/keyspace.js';
import { KvError } from '../../store/kv/index.js';
import { TestCluster, type TestMember } from '../testing/nodes.js';
import { NodeIdTaken } from './index.js';
import { decodeRow, encodeRow } from './rows.js';

const termMs = 10_000;

let cluster: TestCluster;
beforeEach(() => {
  cluster = new TestCluster();
});
afterEach(() => cluster.close());

const idsOf = (members: readonly TestMember[]) => members.map(({ nodeId }) => nodeId).sort();
const isOut = (of: TestMember, dead: TestMember) => () => !of.membership.members().includes(dead.nodeId);

async function metric(name: string, labels: Record<string, string> = {}): Promise<number | undefined> {
  const { values } = await registry.getSingleMetric(name)!.get();
  return values.find((value) => Object.entries(labels).every(([label, text]) => value.labels[label as never] === text))?.value;
}

describe('members', () => {
  it('find one another, tell of changes, and know when one drains or is not ready', async () => {
    const [a, b, c] = (await cluster.start(3)) as [TestMember, TestMember, TestMember];
    for (const { membership } of [a, b, c]) expect(membership.members()).toEqual(idsOf([a, b, c]));
    let changes = 0;
    const stop = a.membership.onChange(() => changes++);
    const late = cluster.make();
    await late.membership.join();
    await cluster.time.advance(2_100);
    expect(changes).toBe(0);
    expect(a.membership.nodes().map(({ row }) => row!.state)).toEqual(['ready', 'ready', 'ready', 'starting']);
    const ready = late.membership.setState('ready');
    await cluster.time.advance(2_100);
    await ready;
    expect(a.membership.members()).toEqual(idsOf([a, b, c, late]));
    const draining = late.membership.setState('draining');
    expect(late.membership.members()).not.toContain(late.nodeId);
    await cluster.time.advance(2_100);
    await draining;
    expect(a.membership.members()).toEqual(idsOf([a, b, c]));
    expect(changes).toBe(2);
    stop();
    // While it drains it is alive: its claims stay its own.
    await cluster.time.advance(5 * termMs);
    expect((await cluster.standing()).fences).toContain(late.nodeId);
    expect(changes).toBe(2);
  });

  it('can be asked for by role, and agree on the newest format that all can read', async () => {
    const [a] = (await cluster.start(1)) as [TestMember];
    const self = { hostname: 'old', addresses: [], roles: ['smtp'], version: '0', formats: { mail: 1, queue: 2 } };
    const b = cluster.make({ self: { ...self, formats: { mail: 3 } } });
    await b.membership.join();
    void b.membership.setState('ready');
    await cluster.time.advance(4_000);
    expect(a.membership.members('smtp')).toEqual([b.nodeId]);
    expect(b.membership.members('queue')).toEqual([a.nodeId]);
    expect(b.membership.commonFormat('mail')).toBe(1);
    expect(b.membership.commonFormat('queue')).toBe(0);
  });

  it('leave at once when they leave by themselves, with nothing left behind', async () => {
    const [a, b] = (await cluster.start(2)) as [TestMember, TestMember];
    for (const item of ['1', '2', '3', '4', '5']) await b.claim(item);
    await b.membership.leave();
    expect(b.membership.standing).toBe('left');
    expect(await cluster.standing()).toEqual({ rows: [a.nodeId], fences: [a.nodeId], claims: [] });
    await cluster.time.advance(2_000);
    expect(a.membership.members()).toEqual([a.nodeId]);
    expect(b.fencings).toBe(0);
  });

  it('are freed by the others where leaving broke off half-way', async () => {
    const [a, b] = (await cluster.start(2)) as [TestMember, TestMember];
    for (const item of ['1', '2', '3']) await b.claim(item);
    let commits = 0;
    b.kv.faults.delayMs = (operation) => {
      if (operation === 'commit' && ++commits === 3) b.kv.faults.outage = true;
      return undefined;
    };
    const leaving = b.membership.leave();
    await cluster.time.advance(1_000);
    await leaving;
    expect(await cluster.standing()).toMatchObject({ rows: idsOf([a, b]), fences: [a.nodeId], claims: [b.nodeId] });
    await cluster.time.advance(2_000);
    expect(a.membership.members()).toEqual([a.nodeId]);
    await cluster.time.advance(termMs + 4_000);
    expect(await cluster.standing()).toEqual({ rows: [a.nodeId], fences: [a.nodeId], claims: [] });
  });

  it('keep a row that newer software has written, as long as its bytes change', async () => {
    const [a] = (await cluster.start(1)) as [TestMember];
    const newer = 'f'.repeat(32);
    const write = (version: number) =>
      cluster.eye.transact(async (tx) => {
        tx.set(nodeKeys.row(newer), Buffer.of(0x92, 99, version));
        tx.set(nodeKeys.fence(newer), Buffer.alloc(0));
      });
    for (let i = 0; i < 10; i++) {
      await write(i);
      await cluster.time.advance(2_000);
    }
    expect((await cluster.standing()).fences).toContain(newer);
    expect(a.membership.nodes()[1]).toMatchObject({ nodeId: newer, row: undefined, health: 'alive' });
    expect(a.membership.commonFormat('mail')).toBe(0);
    await cluster.time.advance(2 * termMs);
    expect((await cluster.standing()).rows).toEqual([a.nodeId]);
  });
});

describe('a node that dies', () => {
  it('is declared dead after a full term and not before; its claims are freed and its row goes', async () => {
    const [a, b, c] = (await cluster.start(3)) as [TestMember, TestMember, TestMember];
    for (const item of ['1', '2', '3', '4', '5']) await c.claim(item);
    const freedBefore = (await metric('starling_cluster_claims_freed_total')) ?? 0;
    c.clock.isPaused = true;
    await cluster.time.advance(termMs - 1);
    expect((await cluster.standing()).fences).toContain(c.nodeId);
    expect(a.membership.nodes().find(({ nodeId }) => nodeId === c.nodeId)!.health).toBe('late');
    await cluster.time.advance(5_000);
    expect(await cluster.standing()).toEqual({ rows: idsOf([a, b]), fences: idsOf([a, b]), claims: [] });
    for (const { membership } of [a, b]) expect(membership.members()).toEqual(idsOf([a, b]));
    expect((await metric('starling_cluster_claims_freed_total'))! - freedBefore).toBe(5);
  });

  it('finds itself fenced when it was only paused, and saves nothing', async () => {
    const [a, b] = (await cluster.start(2)) as [TestMember, TestMember];
    const standings: string[] = [];
    b.membership.onStanding((standing) => standings.push(standing));
    await b.save('before');
    b.clock.isPaused = true;
    await cluster.time.advance(2 * termMs);
    expect((await cluster.standing()).rows).toEqual([a.nodeId]);
    // Before any of its timers has run again, it knows by its clock alone that it may be dead.
    expect(b.membership.standing).toBe('storeless');
    await expect(b.save('after')).rejects.toThrow('fenced');
    b.clock.isPaused = false;
    await cluster.time.advance(100);
    expect(b.membership.standing).toBe('fenced');
    expect(standings.at(-1)).toBe('fenced');
    expect(b.fencings).toBe(1);
    await cluster.time.advance(5 * termMs);
    expect(b.fencings).toBe(1);
    expect((await cluster.standing()).rows).toEqual([a.nodeId]);
    await b.membership.leave();
    expect((await cluster.standing()).rows).toEqual([a.nodeId]);
  });

  it('does not declare the others dead when it wakes after a pause', async () => {
    const [a, b] = (await cluster.start(2)) as [TestMember, TestMember];
    // Longer than a term, but the machine of both stood still: nobody could see anything.
    for (const { clock } of [a, b]) clock.isPaused = true;
    await cluster.time.advance(6 * termMs);
    a.clock.isPaused = false;
    await cluster.time.advance(termMs - 2_000);
    expect((await cluster.standing()).fences).toEqual(idsOf([a, b]));
    b.clock.isPaused = false;
    await cluster.time.advance(4_000);
    for (const { membership } of [a, b]) expect(membership.standing).toBe('joined');
    expect([a.fencings, b.fencings]).toEqual([0, 0]);
  });

  it('is told from one that lives by the clocks of those who watch, however wrong its own wall clock is', async () => {
    const [a, b, c] = (await cluster.start(3)) as [TestMember, TestMember, TestMember];
    b.clock.wallShiftMs = 86_400_000;
    c.clock.wallShiftMs = -86_400_000;
    await cluster.time.advance(10 * termMs);
    for (const { membership } of [a, b, c]) expect(membership.members()).toEqual(idsOf([a, b, c]));
    const skewOf = (peer: TestMember) => a.membership.nodes().find(({ nodeId }) => nodeId === peer.nodeId)!.clockSkewMs!;
    expect(Math.abs(skewOf(b) - 86_400_000)).toBeLessThan(2_500);
    expect(Math.abs(skewOf(c) + 86_400_000)).toBeLessThan(2_500);
    expect(await metric('starling_cluster_clock_skew_seconds')).toBeGreaterThan(86_390);
    b.clock.isPaused = true;
    expect(await cluster.time.until(isOut(a, b))).toBeLessThan(termMs + 6_000);
    await cluster.time.advance(2_000);
    expect((await cluster.standing()).rows).toEqual(idsOf([a, c]));
  });

  it('is freed by another when the one that declared it dead dies before the end', async () => {
    const [a, b] = (await cluster.start(2)) as [TestMember, TestMember];
    const watcher = cluster.make();
    await watcher.membership.join();
    await cluster.time.advance(2_000);
    for (const item of ['1', '2', '3']) await b.claim(item);
    // The watcher sees it late, because it was paused itself; `a` breaks the fence and dies in the middle of freeing.
    watcher.clock.isPaused = true;
    b.clock.isPaused = true;
    a.kv.faults.delayMs = () => undefined;
    const transact = a.kv.transact.bind(a.kv);
    let isFenceBroken = false;
    a.kv.transact = (async (...args: Parameters<typeof transact>) => {
      if (isFenceBroken) throw new KvError('unavailable', 'dead', 'outage');
      const value = await transact(...args);
      if (args[1]?.label === 'break-fence') {
        isFenceBroken = true;
        a.clock.isPaused = true;
      }
      return value;
    }) as typeof a.kv.transact;
    await cluster.time.until(() => isFenceBroken);
    expect(await cluster.standing()).toMatchObject({
      rows: expect.arrayContaining([b.nodeId]),
      claims: [b.nodeId, b.nodeId, b.nodeId],
    });
    watcher.clock.isPaused = false;
    await cluster.time.advance(2 * termMs + 6_000);
    expect(await cluster.standing()).toEqual({ rows: [watcher.nodeId], fences: [watcher.nodeId], claims: [] });
  });

  it.each(['commitUnknownApplied', 'commitUnknownLost', 'conflict'] as const)(
    'is freed although half of all commits end as %s, and nobody else is',
    async (fault) => {
      for (let i = 0; i < 3; i++) {
        const member = cluster.make();
        member.kv.faults[fault] = 0.5;
        const joining = member.membership.join();
        await cluster.time.advance(1_000);
        await joining;
        void member.membership.setState('ready');
      }
      await cluster.time.advance(4_000);
      const [a, b, c] = cluster.members as [TestMember, TestMember, TestMember];
      for (const item of ['1', '2', '3', '4', '5'])
        await cluster.eye.transact(async (tx) => tx.set(key(99, c.nodeId, item), Buffer.alloc(0)));
      await cluster.time.advance(5 * termMs);
      expect((await cluster.standing()).fences).toEqual(idsOf([a, b, c]));
      c.clock.isPaused = true;
      await cluster.time.advance(termMs + 8_000);
      expect(await cluster.standing()).toEqual({ rows: idsOf([a, b]), fences: idsOf([a, b]), claims: [] });
      const leaving = b.membership.leave();
      await cluster.time.advance(2_000);
      await leaving;
      expect((await cluster.standing()).rows).toEqual([a.nodeId]);
      expect([a.fencings, b.fencings]).toEqual([0, 0]);
    },
  );
});

describe('an outage of the store', () => {
  it('kills nobody when it is everybody’s, however long', async () => {
    const members = await cluster.start(3);
    const [a] = members as [TestMember];
    for (const { kv } of members) kv.faults.outage = true;
    await cluster.time.advance(termMs + 3_000);
    for (const { membership } of members) expect(membership.standing).toBe('storeless');
    expect(await metric('starling_cluster_storeless')).toBe(1);
    await cluster.time.advance(10 * termMs);
    // It comes back for one of them first, and for the others only just within a term.
    a.kv.faults.clear();
    await cluster.time.advance(termMs - 1_000);
    expect((await cluster.standing()).fences).toEqual(idsOf(members));
    for (const { kv } of members) kv.faults.clear();
    await cluster.time.advance(3 * termMs);
    for (const { membership, fencings } of members) {
      expect(membership.standing).toBe('joined');
      expect(membership.members()).toEqual(idsOf(members));
      expect(fencings).toBe(0);
    }
  });

  it('kills nobody when the store can be read but not written, by whoever can write first', async () => {
    const members = await cluster.start(3);
    const [a] = members as [TestMember];
    // As with a full disk: reads go on.
    const full = new KvError('unavailable', 'the disk is full', 'no-space');
    const real = members.map(({ kv }) => kv.transact);
    for (const { kv } of members) kv.transact = () => Promise.reject(full);
    await cluster.time.advance(3 * termMs);
    a.kv.transact = real[0]!;
    await cluster.time.advance(termMs - 1_000);
    for (const [i, { kv }] of members.entries()) kv.transact = real[i]!;
    await cluster.time.advance(2 * termMs);
    expect((await cluster.standing()).fences).toEqual(idsOf(members));
    expect(members.map(({ fencings }) => fencings)).toEqual([0, 0, 0]);
  });

  it('of one node makes it step down by itself before the others may fence it', async () => {
    const [a, b] = (await cluster.start(2)) as [TestMember, TestMember];
    const events: string[] = [];
    b.membership.onStanding((standing) => events.push(`${standing} at ${cluster.time.nowMs}`));
    b.kv.faults.outage = true;
    const startMs = cluster.time.nowMs;
    let steppedDownMs = Number.POSITIVE_INFINITY;
    while (a.membership.members().includes(b.nodeId)) {
      if (b.membership.standing === 'storeless') steppedDownMs = Math.min(steppedDownMs, cluster.time.nowMs);
      expect(cluster.time.nowMs - startMs).toBeLessThan(2 * termMs);
      await cluster.time.advance(10);
    }
    expect(steppedDownMs).toBeLessThan(cluster.time.nowMs);
    expect(events).toHaveLength(1);
    b.kv.faults.clear();
    await cluster.time.advance(1_000);
    expect(b.membership.standing).toBe('fenced');
    expect(b.fencings).toBe(1);
  });

  it('that ends before the others have judged leaves the node as it was', async () => {
    const [a, b] = (await cluster.start(2)) as [TestMember, TestMember];
    const standings: string[] = [];
    b.membership.onStanding((standing) => standings.push(standing));
    // `a` is not there to judge.
    a.clock.isPaused = true;
    b.kv.faults.outage = true;
    await cluster.time.advance(termMs + 2_000);
    b.kv.faults.clear();
    await cluster.time.advance(1_000);
    expect(standings).toEqual(['storeless', 'joined']);
    a.clock.isPaused = false;
    await cluster.time.advance(5 * termMs);
    expect([a, b].map(({ membership }) => membership.standing)).toEqual(['joined', 'joined']);
  });

  it('that hangs instead of failing is found out as well, and left behind when it ends', async () => {
    const [a, b] = (await cluster.start(2)) as [TestMember, TestMember];
    let letGo: (() => void)[] = [];
    const transact = b.kv.transact.bind(b.kv);
    let calls = 0;
    b.kv.transact = (async (...args: Parameters<typeof transact>) => {
      calls++;
      await new Promise<void>((resolve) => letGo.push(resolve));
      return transact(...args);
    }) as typeof b.kv.transact;
    a.clock.isPaused = true;
    await cluster.time.advance(termMs);
    expect(b.membership.standing).toBe('storeless');
    await cluster.time.advance(20 * termMs);
    // So many at most are left hanging.
    expect(calls).toBeLessThanOrEqual(3);
    b.kv.transact = transact;
    for (const go of letGo) go();
    letGo = [];
    await cluster.time.advance(3_000);
    expect(b.membership.standing).toBe('joined');
  });
});

describe('what is left over', () => {
  it('is found and freed: claims alone, a fence alone, a row alone', async () => {
    const [a] = (await cluster.start(1)) as [TestMember];
    const [claims, fence, row] = ['c', 'd', 'e'].map((digit) => digit.repeat(32)) as [string, string, string];
    await cluster.eye.transact(async (tx) => {
      for (let item = 0; item < 5; item++) tx.set(key(99, claims, `${item}`), Buffer.alloc(0));
      tx.set(nodeKeys.fence(fence), Buffer.alloc(0));
      tx.set(nodeKeys.row(row), Buffer.of(1, 2, 3));
    });
    await cluster.time.advance(termMs - 1);
    expect(await cluster.standing()).toMatchObject({ rows: [a.nodeId, row], fences: [a.nodeId, fence] });
    await cluster.time.advance(2 * termMs + 6_000);
    expect(await cluster.standing()).toEqual({ rows: [a.nodeId], fences: [a.nodeId], claims: [] });
  });

  it('is freed at once where no other process can be using the store', async () => {
    const [before] = (await cluster.start(1)) as [TestMember];
    for (const item of ['1', '2', '3']) await before.claim(item);
    const lost = 'c'.repeat(32);
    await cluster.eye.transact(async (tx) => tx.set(key(99, lost, '1'), Buffer.alloc(0)));
    before.clock.isPaused = true;
    const lines: { level: number; msg: string; deadNodeId?: string; claims?: number }[] = [];
    const logger = pino({ level: 'info' }, { write: (line: string) => void lines.push(JSON.parse(line)) });
    const next = cluster.make({ logger });
    await next.membership.join({ isStoreExclusive: true });
    expect(await cluster.standing()).toEqual({ rows: [next.nodeId], fences: [next.nodeId], claims: [] });
    // Nobody judged anybody: a node that was killed has come back to its store.
    expect(lines.map(({ level }) => level)).toEqual([30, 30]);
    expect(lines).toContainEqual(expect.objectContaining({ deadNodeId: before.nodeId, claims: 3 }));
    expect(next.membership.members()).toEqual([next.nodeId]);
  });
});

describe('node ids', () => {
  it('are never shared by two processes', async () => {
    const [a] = (await cluster.start(1)) as [TestMember];
    const twin = cluster.make({ nodeId: a.nodeId });
    await expect(twin.membership.join()).rejects.toBeInstanceOf(NodeIdTaken);
    await cluster.time.advance(2 * termMs);
    expect(a.membership.standing).toBe('joined');
    // Nor while anything of an earlier one is left.
    const left = 'd'.repeat(32);
    await cluster.eye.transact(async (tx) => tx.set(nodeKeys.fence(left), Buffer.alloc(0)));
    await expect(cluster.make({ nodeId: left }).membership.join()).rejects.toBeInstanceOf(NodeIdTaken);
  });

  it('are told apart after an unknown commit of the very same write', async () => {
    const nodeId = 'a'.repeat(32);
    const [one, two] = [cluster.make({ nodeId }), cluster.make({ nodeId })];
    one.kv.faults.commitUnknownApplied = 1;
    const first = one.membership.join();
    await cluster.time.advance(1);
    one.kv.faults.clear();
    await expect(two.membership.join()).rejects.toBeInstanceOf(NodeIdTaken);
    await cluster.time.advance(1_000);
    await first;
    expect(one.membership.standing).toBe('joined');
  });

  it('whose row another process has overwritten stop the first one', async () => {
    const [a] = (await cluster.start(1)) as [TestMember];
    await cluster.eye.transact(async (tx) => {
      const row = decodeRow(a.nodeId, (await tx.get(nodeKeys.row(a.nodeId)))!)!;
      tx.set(nodeKeys.row(a.nodeId), encodeRow({ ...row, startToken: 'another' }));
    });
    await cluster.time.advance(2_000);
    expect([a.membership.standing, a.fencings]).toEqual(['fenced', 1]);
    await a.membership.leave();
    expect((await cluster.standing()).rows).toEqual([a.nodeId]);
  });
});
