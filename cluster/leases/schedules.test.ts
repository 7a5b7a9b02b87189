/** Random schedules of faults: never two holders of an epoch, never an effect of a former holder after one of a later, no two runs in one node. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Contestant, JobFloor } from './test-jobs.js';

const jobs = ['acme', 'purge'];
const names = ['node0', 'node1', 'node2'];

type Step =
  | { kind: 'wait'; ms: number }
  | { kind: 'pause' | 'resume' | 'outage' | 'fence' | 'unready' | 'heal' | 'release'; node: number }
  | { kind: 'unknown'; node: number; applied: boolean };

const node = fc.integer({ min: 0, max: names.length - 1 });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.integer({ min: 10, max: 14_000 }) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom('pause' as const, 'resume' as const, 'outage' as const, 'heal' as const, 'unready' as const),
      node,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('fence' as const, 'fence' as const, 'release' as const), node }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('unknown' as const), node, applied: fc.boolean() }) },
);

async function play(floor: JobFloor, steps: readonly Step[]): Promise<void> {
  for (const name of names) await floor.add(name, { settleMs: 5_000 });
  for (const one of floor.all) {
    for (const job of jobs) one.leases.whileLeader(job, floor.work(one, job, { stepMs: 700, steps: 4 }), { pauseMs: 300 });
    await one.leases.start();
  }
  const believed = new Map<string, string>();
  const check = () => {
    for (const { leases, nodeId } of floor.all) {
      for (const job of jobs) {
        const { epoch } = leases.contend(job);
        if (epoch === undefined) continue;
        const holder = believed.get(`${job}/${epoch}`) ?? nodeId;
        if (holder !== nodeId) floor.violations.push(`${holder} and ${nodeId} hold ${job} under ${epoch}`);
        believed.set(`${job}/${epoch}`, nodeId);
      }
    }
  };
  const pending: Promise<void>[] = [];
  for (const one of steps) {
    if (one.kind === 'wait') {
      for (let restMs = one.ms; restMs > 0; restMs -= 1_000) {
        await floor.time.advance(Math.min(restMs, 1_000));
        check();
      }
      continue;
    }
    const target = floor.all[one.node] as Contestant;
    if (one.kind === 'pause') target.clock.isPaused = true;
    if (one.kind === 'resume') target.clock.isPaused = false;
    if (one.kind === 'outage') target.kv.faults.outage = true;
    if (one.kind === 'heal') target.kv.faults.clear();
    if (one.kind === 'unknown') target.kv.faults[one.applied ? 'commitUnknownApplied' : 'commitUnknownLost'] = 0.6;
    if (one.kind === 'unready') floor.members = names.filter((name) => name !== target.nodeId);
    if (one.kind === 'fence') await floor.breakFence(target.nodeId);
    if (one.kind === 'release') pending.push(target.leases.release());
    check();
  }
  await floor.close();
  await Promise.all(pending);
}

describe('leases under random schedules', () => {
  it('have one holder per epoch, and effects in the order of the epochs', async () => {
    let effects = 0;
    let epochs = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 80 }), async (steps) => {
        const floor = new JobFloor();
        await play(floor, steps);
        expect(floor.violations).toEqual([]);
        effects += floor.effects.length;
        epochs = Math.max(epochs, ...floor.effects.map(({ epoch }) => epoch));
      }),
      { numRuns: 40, seed: 7 },
    );
    // The schedules did make jobs work and move.
    expect(effects).toBeGreaterThan(1_000);
    expect(epochs).toBeGreaterThan(3);
  });
});
