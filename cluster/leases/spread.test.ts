import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeKeys } from '../../store/keyspace.js';
import { assignJobs } from './assignment.js';
import { decodeRow } from './rows.js';
import { type Contestant, JobFloor } from './test-jobs.js';

const jobs = ['acme', 'policy-publication', 'purge', 'reports'];
let floor: JobFloor;

beforeEach(() => {
  floor = new JobFloor();
});
afterEach(async () => {
  await floor.close();
  expect(floor.violations).toEqual([]);
});

async function begin(one: Contestant, shape: { stepMs?: number; steps?: number } = {}): Promise<void> {
  for (const job of jobs) one.leases.whileLeader(job, floor.work(one, job, shape));
  await one.leases.start();
}

const shares = () => floor.all.map(({ nodeId }) => jobs.filter((job) => floor.workers(job).includes(nodeId)).length).sort();
const isAssigned = () => {
  const wanted = assignJobs(jobs, floor.members);
  return jobs.every((job) => floor.believers(job).join() === wanted.get(job));
};

describe('jobs of several nodes', () => {
  it.each([
    [3, [1, 1, 2]],
    [5, [0, 1, 1, 1, 1]],
  ])('are spread over %i nodes that start together', async (count, expected) => {
    for (let i = 0; i < count; i++) await floor.add(`node${i}`);
    for (const one of floor.all) await begin(one);
    await floor.time.advance(100);
    expect(shares()).toEqual(expected);
    expect(isAssigned()).toBe(true);
    await floor.time.advance(120_000);
    expect(shares()).toEqual(expected);
    expect(new Set(floor.effects.map(({ epoch }) => epoch))).toEqual(new Set([1]));
  });

  it('are handed over between two runs once the members have been the same for a while', async () => {
    const a = await floor.add('node0');
    await begin(a, { steps: 5 });
    for (const name of ['node1', 'node2']) await begin(await floor.add(name), { steps: 5 });
    await floor.time.advance(28_000);
    expect(jobs.every((job) => floor.believers(job).join() === 'node0')).toBe(true);
    await floor.time.until(isAssigned, 12_000);
    // No run was broken off: each saved all of its five effects.
    for (const job of jobs) {
      const byEpoch = floor.effects.filter((effect) => effect.job === job && effect.nodeId === 'node0');
      if (assignJobs(jobs, floor.members).get(job) !== 'node0') expect(byEpoch.length % 5).toBe(0);
    }
    await floor.time.advance(100_000);
    expect(isAssigned()).toBe(true);
  });

  it('are taken from work that never ends by itself after a minute more', async () => {
    await begin(await floor.add('node0'));
    for (const name of ['node1', 'node2']) await begin(await floor.add(name));
    await floor.time.advance(80_000);
    expect(jobs.every((job) => floor.believers(job).join() === 'node0')).toBe(true);
    await floor.time.until(isAssigned, 25_000);
    expect(shares()).toEqual([1, 1, 2]);
  });

  it('move right after a holder was declared dead', async () => {
    for (let i = 0; i < 3; i++) await floor.add(`node${i}`);
    for (const one of floor.all) await begin(one);
    await floor.time.advance(10_000);
    const victim = floor.all.find(({ nodeId }) => floor.workers('purge').includes(nodeId))!;
    victim.clock.isPaused = true;
    await floor.breakFence(victim.nodeId);
    floor.members = floor.members.filter((name) => name !== victim.nodeId);
    const startMs = floor.time.nowMs;
    for (const { leases } of floor.all) leases.wake();
    const others = floor.all.filter((one) => one !== victim);
    await floor.time.until(() => jobs.every((job) => others.some(({ nodeId }) => floor.workers(job).includes(nodeId))), 4_000);
    expect(floor.time.nowMs - startMs).toBeLessThanOrEqual(200);
  });

  it('are taken by another after a grace when the preferred member lets them lie, and not handed to it again', async () => {
    const a = await floor.add('node0');
    floor.members = ['node0', 'idle1', 'idle2'];
    await begin(a, { steps: 1 });
    expect(jobs.filter((job) => floor.believers(job).length > 0)).toHaveLength(
      jobs.filter((job) => assignJobs(jobs, floor.members).get(job) === 'node0').length,
    );
    await floor.time.advance(3_300);
    expect(jobs.every((job) => floor.believers(job).join() === 'node0')).toBe(true);
    const epochs = () =>
      Promise.all(jobs.map(async (job) => decodeRow(await floor.eye.read((r) => r.get(nodeKeys.lease(job))))?.epoch));
    const before = await epochs();
    await floor.time.advance(300_000);
    expect(await epochs()).toEqual(before);
  });

  it('are not handed to and fro by two that know different jobs, as two releases do', async () => {
    const a = await floor.add('node0', { settleMs: 1_000 });
    const known = Array.from({ length: 12 }, (_, i) => `job-${i}`);
    const older = known.filter((_, i) => i % 3 > 0);
    for (const job of known) a.leases.whileLeader(job, floor.work(a, job, { steps: 1 }));
    await a.leases.start();
    await floor.time.advance(5_000);
    const b = await floor.add('node1', { settleMs: 1_000 });
    const [byA, byB] = [assignJobs(known, floor.members), assignJobs(older, floor.members)];
    // Each takes the other for the one that should have it.
    const disputed = older.filter((job) => byA.get(job) === 'node1' && byB.get(job) === 'node0');
    expect(disputed.length).toBeGreaterThan(0);
    for (const job of older) b.leases.whileLeader(job, floor.work(b, job, { steps: 1 }));
    await b.leases.start();
    await floor.time.advance(300_000);
    const holders = b.leases.holders().filter(({ job }) => disputed.includes(job));
    expect(holders).toHaveLength(disputed.length);
    for (const { epoch } of holders) expect(epoch).toBeLessThanOrEqual(3);
  });

  it('come back from a member that was to have them and has gone since', async () => {
    const a = await floor.add('node0', { settleMs: 1_000 });
    await begin(a, { steps: 1 });
    floor.members = ['node0', 'idle1', 'idle2'];
    const reserved = async () =>
      (await Promise.all(jobs.map(async (job) => decodeRow(await floor.eye.read((r) => r.get(nodeKeys.lease(job))))))).filter(
        (row) => row?.reservedFor,
      ).length;
    await floor.time.advance(4_200);
    expect(await reserved()).toBeGreaterThan(0);
    floor.members = ['node0'];
    a.leases.wake();
    await floor.time.advance(100);
    expect(jobs.every((job) => floor.believers(job).join() === 'node0')).toBe(true);
  });

  it('are not taken by a node that is no ready member, and given away by one that ceases to be', async () => {
    const a = await floor.add('node0');
    floor.members = ['node1'];
    await begin(a, { steps: 1 });
    await floor.time.advance(20_000);
    expect(jobs.flatMap((job) => floor.believers(job))).toEqual([]);
    floor.members = ['node0'];
    a.leases.wake();
    await floor.time.advance(100);
    expect(jobs.every((job) => floor.believers(job).join() === 'node0')).toBe(true);
    const b = await floor.add('node1');
    await begin(b, { steps: 1 });
    floor.members = ['node1'];
    a.leases.wake();
    await floor.time.until(() => jobs.every((job) => floor.believers(job).join() === 'node1'), 6_000);
  });

  it('are told of by a source that changes when one has moved, and not when one was renewed', async () => {
    const a = await floor.add('node0');
    await begin(a);
    const read = () => floor.eye.read((reads) => a.leases.source.read(reads));
    const before = await read();
    await floor.time.advance(10_000);
    expect(await read()).toBe(before);
    await a.leases.release();
    expect(await read()).not.toBe(before);
  });
});
