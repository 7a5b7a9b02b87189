import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../ops/telemetry/index.js';
import { key, nodeKeys } from '../../store/keyspace.js';
import { TestCluster, type TestMember } from '../testing/nodes.js';
import { createLeaderLeases, type LeaderLease, type LeaderLeases, LeaseLost } from './index.js';

const termMs = 10_000;
const effect = key(99, 'saved', 'effect');

interface Candidate extends TestMember {
  leases: LeaderLeases;
  lease: LeaderLease;
  /** Does the job's work: asserts the lease in the transaction of the effect. */
  work(): Promise<void>;
}

let cluster: TestCluster;
let candidates: Candidate[];

beforeEach(() => {
  cluster = new TestCluster();
  candidates = [];
});
afterEach(async () => {
  for (const { leases } of candidates) {
    const stopping = leases.stop();
    await cluster.time.advance(1);
    await stopping;
  }
  await cluster.close();
});

async function start(count: number, options: { termMs?: number } = {}): Promise<Candidate[]> {
  for (const member of await cluster.start(count)) {
    const { kv, clock, nodeId } = member;
    const leases = createLeaderLeases({ kv, clock, logger: silentLogger, nodeId, ...options });
    const lease = leases.contend('purge');
    const work = () =>
      kv.transact(async (tx) => {
        await lease.assert(tx);
        tx.set(effect, Buffer.from(nodeId));
      });
    candidates.push({ ...member, leases, lease, work });
    await leases.start();
  }
  return candidates;
}

const holders = () => candidates.filter(({ lease }) => lease.isHeld);

describe('leader leases', () => {
  it('are held by one node at a time, from the first moment on', async () => {
    const [a, b, c] = (await start(3)) as [Candidate, Candidate, Candidate];
    expect(holders()).toEqual([a]);
    expect(a.lease.epoch).toBe(1);
    await cluster.time.advance(10 * termMs);
    expect(holders()).toEqual([a]);
    expect(a.lease.epoch).toBe(1);
    await a.work();
    for (const other of [b, c]) await expect(other.work()).rejects.toBeInstanceOf(LeaseLost);
    expect(a.leases.contend('purge')).toBe(a.lease);
  });

  it('pass on at once when they are given back', async () => {
    const [a, b] = (await start(2)) as [Candidate, Candidate];
    await a.leases.release();
    expect(a.lease.isHeld).toBe(false);
    await cluster.time.advance(2_000);
    expect(holders()).toEqual([b]);
    expect(b.lease.epoch).toBe(2);
  });

  it('pass on when the holder has not renewed for a full term, and not before; its late effects fail', async () => {
    const [a, b] = (await start(2)) as [Candidate, Candidate];
    const startMs = cluster.time.nowMs;
    // Its fence stands: only its renewals do not come through.
    await a.membership.leave();
    await cluster.eye.transact(async (tx) => tx.set(nodeKeys.fence(a.nodeId), Buffer.alloc(0)));
    a.kv.faults.outage = true;
    await cluster.time.until(() => b.lease.isHeld);
    expect(cluster.time.nowMs - startMs).toBeGreaterThanOrEqual(termMs);
    expect(a.lease.isHeld).toBe(false);
    a.kv.faults.clear();
    await expect(a.work()).rejects.toBeInstanceOf(LeaseLost);
    await cluster.time.advance(3 * termMs);
    expect(holders()).toEqual([b]);
    expect(b.lease.epoch).toBe(2);
  });

  it('fail in the transaction of the effect when they pass on between the assertion and the commit', async () => {
    const [a] = (await start(1)) as [Candidate];
    let runs = 0;
    const working = a.kv.transact(async (tx) => {
      await a.lease.assert(tx);
      tx.set(effect, Buffer.of(1));
      if (runs++ > 0) return;
      await cluster.eye.transact(async (other) => other.set(nodeKeys.lease('purge'), Buffer.of(0x94, 1, 0xa1, 0x78, 7, 0)));
    });
    await expect(working).rejects.toBeInstanceOf(LeaseLost);
    expect(await cluster.eye.read((reads) => reads.get(effect))).toBeUndefined();
  });

  it('are not taken by a contender whose look is older than the last renewal', async () => {
    const [a, b] = (await start(2)) as [Candidate, Candidate];
    a.kv.faults.outage = true;
    const transact = b.kv.transact.bind(b.kv);
    let isRenewed = false;
    // Just before the contender's commit, the holder's renewal arrives after all.
    b.kv.transact = (async (...args: Parameters<typeof transact>) => {
      if (args[1]?.label === 'lease-renew' && !isRenewed) {
        isRenewed = true;
        await cluster.eye.transact(async (tx) => {
          const row = Buffer.from((await tx.get(nodeKeys.lease('purge')))!);
          row[row.length - 1]! += 1;
          tx.set(nodeKeys.lease('purge'), row);
          tx.set(nodeKeys.fence(a.nodeId), Buffer.alloc(0));
        });
      }
      return transact(...args);
    }) as typeof b.kv.transact;
    await cluster.time.until(() => isRenewed);
    expect(b.lease.isHeld).toBe(false);
    await cluster.time.until(() => b.lease.isHeld);
    expect(b.lease.epoch).toBe(2);
  });

  it('pass on as soon as the holder is declared dead', async () => {
    const [a, b] = (await start(2, { termMs: 100 * termMs })) as [Candidate, Candidate];
    a.clock.isPaused = true;
    await cluster.time.until(() => b.lease.isHeld);
    expect((await cluster.standing()).fences).toEqual([b.nodeId]);
    a.clock.isPaused = false;
    await expect(a.work()).rejects.toBeInstanceOf(LeaseLost);
    await cluster.time.advance(termMs);
    expect(holders()).toEqual([b]);
  });

  it('stay where they are through an outage that is everybody’s', async () => {
    const [a, b] = (await start(2)) as [Candidate, Candidate];
    for (const { kv } of candidates) kv.faults.outage = true;
    await cluster.time.advance(5 * termMs);
    expect(holders()).toEqual([]);
    b.kv.faults.clear();
    await cluster.time.advance(termMs - 3_000);
    a.kv.faults.clear();
    await cluster.time.advance(termMs);
    expect(holders()).toEqual([a]);
    expect(a.lease.epoch).toBe(1);
  });

  it.each(['commitUnknownApplied', 'commitUnknownLost', 'conflict'] as const)(
    'have one holder per epoch although half of all commits end as %s',
    async (fault) => {
      await start(3);
      const seen = new Map<number, string>();
      for (const { kv } of candidates) kv.faults[fault] = 0.5;
      for (let i = 0; i < 100; i++) {
        if (i % 25 === 24) {
          const [holder] = holders();
          if (holder) {
            holder.clock.isPaused = true;
            await cluster.time.advance(2 * termMs);
            holder.clock.isPaused = false;
          }
        }
        await cluster.time.advance(700);
        for (const { lease, nodeId } of candidates) {
          if (lease.epoch === undefined) continue;
          expect(seen.get(lease.epoch) ?? nodeId).toBe(nodeId);
          seen.set(lease.epoch, nodeId);
        }
      }
      expect(seen.size).toBeGreaterThan(1);
    },
  );
});
