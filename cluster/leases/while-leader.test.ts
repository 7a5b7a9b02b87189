import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeKeys } from '../../store/keyspace.js';
import { type LeaderLease, LeaseLost } from './index.js';
import { decodeRow } from './rows.js';
import { type Contestant, JobFloor } from './test-jobs.js';

let floor: JobFloor;
beforeEach(() => {
  floor = new JobFloor();
});
afterEach(async () => {
  await floor.close();
  expect(floor.violations).toEqual([]);
});

async function start(...names: string[]): Promise<Contestant[]> {
  const all: Contestant[] = [];
  // No members: whoever comes first takes the job.
  for (const name of names) all.push(await floor.add(name, { members: undefined }));
  return all;
}

async function begin(one: Contestant, job = 'purge', shape: { stepMs?: number; steps?: number } = {}) {
  const stop = one.leases.whileLeader(job, floor.work(one, job, shape));
  await one.leases.start();
  return stop;
}

describe('whileLeader', () => {
  it('runs the work on one node only, under its epoch, and again after a pause when it has ended', async () => {
    const [a, b] = (await start('a', 'b')) as [Contestant, Contestant];
    await begin(a, 'purge', { steps: 1 });
    await begin(b, 'purge', { steps: 1 });
    await floor.time.advance(20_000);
    // Each run lasts 400 ms, and the pause a second.
    expect(a.runs).toBe(15);
    expect(b.runs).toBe(0);
    expect(new Set(floor.effects.map(({ epoch }) => epoch))).toEqual(new Set([1]));
    expect(a.leases.holders()).toEqual([{ job: 'purge', nodeId: 'a', epoch: 1 }]);
    await floor.time.advance(3_000);
    expect(b.leases.holders()).toEqual([{ job: 'purge', nodeId: 'a', epoch: 1 }]);
    expect(() => a.leases.whileLeader('purge', async () => undefined)).toThrow('done by this node already');
  });

  it('aborts the work by the own clock before anybody can take over, and goes on under the same epoch when nobody has', async () => {
    const [a] = (await start('a')) as [Contestant];
    const signals: AbortSignal[] = [];
    a.leases.whileLeader('purge', async (_epoch, signal) => {
      signals.push(signal);
      await a.clock.sleep(1e9, signal);
    });
    await a.leases.start();
    a.kv.faults.outage = true;
    const startMs = floor.time.nowMs;
    await floor.time.until(() => signals[0]!.aborted);
    expect(signals[0]!.reason).toBeInstanceOf(LeaseLost);
    expect(floor.time.nowMs - startMs).toBeLessThanOrEqual(10_100);
    expect(a.leases.contend('purge').isHeld).toBe(false);
    a.kv.faults.clear();
    await floor.time.until(() => signals.length === 2);
    expect(a.leases.contend('purge').epoch).toBe(1);
  });

  it('fails the effects of a paused holder that wakes in the middle of its work, also when it gets the job again', async () => {
    const [a, b] = (await start('a', 'b')) as [Contestant, Contestant];
    const leases: LeaderLease[] = [];
    let hold = true;
    a.leases.whileLeader('purge', async (_epoch, signal, lease) => {
      leases.push(lease);
      // Heeds no signal for as long as `hold` stands.
      while (hold || !signal.aborted) await a.clock.sleep(500);
    });
    await a.leases.start();
    await begin(b);
    a.clock.isPaused = true;
    await floor.time.until(() => floor.workers('purge').includes('b'), 40_000);
    a.clock.isPaused = false;
    const effect = () => a.kv.transact(async (tx) => leases[0]!.assert(tx));
    await expect(effect()).rejects.toBeInstanceOf(LeaseLost);
    // As long as the old run has not ended, this node does not take the job.
    const releasing = b.leases.release();
    await floor.time.advance(20_000);
    await releasing;
    expect(floor.believers('purge')).toEqual([]);
    hold = false;
    await floor.time.until(() => leases.length === 2);
    expect(a.leases.contend('purge').epoch).toBe(3);
    await expect(effect()).rejects.toBeInstanceOf(LeaseLost);
    expect(leases[0]!.isHeld).toBe(false);
    await a.kv.transact(async (tx) => leases[1]!.assert(tx));
  });

  it('takes the lease from work that does not heed its signal', async () => {
    const [a, b] = (await start('a', 'b')) as [Contestant, Contestant];
    let isStuck = true;
    const stop = a.leases.whileLeader('purge', async () => {
      while (isStuck) await a.clock.sleep(100);
    });
    await a.leases.start();
    await begin(b);
    let isStopped = false;
    const stopping = stop().then(() => (isStopped = true));
    await floor.time.advance(4_900);
    expect(floor.believers('purge')).toEqual(['a']);
    await floor.time.until(() => floor.workers('purge').length > 0, 2_200);
    expect(floor.workers('purge')).toEqual(['b']);
    expect(isStopped).toBe(false);
    isStuck = false;
    await floor.time.advance(200);
    await stopping;
    expect(isStopped).toBe(true);
  });

  it('tries work that throws again, ever later, and keeps the lease', async () => {
    const [a] = (await start('a')) as [Contestant];
    const atMs: number[] = [];
    a.leases.whileLeader('purge', () => {
      atMs.push(floor.time.nowMs);
      throw new Error('broken at once');
    });
    await a.leases.start();
    await floor.time.advance(600_000);
    const pauses = atMs.slice(1).map((at, i) => Math.round((at - atMs[i]!) / 1_000));
    expect(pauses.slice(0, 8)).toEqual([1, 2, 4, 8, 16, 32, 60, 60]);
    expect(a.leases.contend('purge').epoch).toBe(1);
  });

  it('gives the job back when it is stopped', async () => {
    const [a, b] = (await start('a', 'b')) as [Contestant, Contestant];
    const stop = await begin(a);
    await begin(b);
    await floor.time.advance(1_000);
    await stop();
    b.leases.wake();
    await floor.time.advance(100);
    expect(floor.workers('purge')).toEqual(['b']);
    expect(a.leases.holders()).toEqual([]);
    // And it may be begun anew.
    await begin(a);
    await floor.time.advance(5_000);
    expect(floor.workers('purge')).toEqual(['b']);
  });

  it('waits for the work when all is released, renewing so long, and others have it at once when they are told', async () => {
    const [a, b] = (await start('a', 'b')) as [Contestant, Contestant];
    a.leases.onChange(() => b.leases.wake());
    const saved: string[] = [];
    a.leases.whileLeader('purge', async (_epoch, signal, lease) => {
      await a.clock.sleep(1e9, signal).catch(() => undefined);
      await a.clock.sleep(3_000);
      // Where it stands is saved as its last effect.
      await a.kv.transact(async (tx) => lease.assert(tx));
      saved.push('a');
    });
    await a.leases.start();
    await begin(b);
    const startMs = floor.time.nowMs;
    let releasedAtMs = 0;
    const releasing = a.leases.release().then(() => (releasedAtMs = floor.time.nowMs));
    await floor.time.until(() => floor.workers('purge').length > 0);
    await releasing;
    expect(saved).toEqual(['a']);
    expect(releasedAtMs - startMs).toBeLessThan(3_100);
    expect(floor.time.nowMs - startMs).toBeLessThan(3_300);
    expect(floor.workers('purge')).toEqual(['b']);
    await a.leases.release();
  });

  it('releases after 5 s although the work goes on', async () => {
    const [a] = (await start('a')) as [Contestant];
    let isStuck = true;
    a.leases.whileLeader('purge', async () => {
      while (isStuck) await a.clock.sleep(100);
    });
    await a.leases.start();
    let isReleased = false;
    const releasing = a.leases.release().then(() => (isReleased = true));
    await floor.time.advance(4_900);
    expect(isReleased).toBe(false);
    await floor.time.advance(200);
    await releasing;
    const row = await floor.eye.read((reads) => reads.get(nodeKeys.lease('purge')));
    expect(decodeRow(row)).toMatchObject({ holder: '', epoch: 1 });
    isStuck = false;
  });

  it('is aborted as soon as this node sees that its own fence is broken', async () => {
    const [a] = (await start('a')) as [Contestant];
    await begin(a);
    await floor.breakFence('a');
    a.leases.wake();
    await floor.time.advance(100);
    expect(floor.workers('purge')).toEqual([]);
    await floor.time.advance(60_000);
    expect(floor.believers('purge')).toEqual([]);
  });

  it('moves as soon as a fence is broken and the others are woken', async () => {
    const [a, b] = (await start('a', 'b')) as [Contestant, Contestant];
    await begin(a);
    await begin(b);
    a.clock.isPaused = true;
    await floor.breakFence('a');
    const startMs = floor.time.nowMs;
    b.leases.wake();
    await floor.time.until(() => floor.workers('purge').includes('b'));
    expect(floor.time.nowMs - startMs).toBeLessThanOrEqual(100);
  });
});
