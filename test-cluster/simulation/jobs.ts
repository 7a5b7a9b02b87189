/**
 * Jobs that one node does for all. Each is a series of steps: every step is done once, in order, in a transaction that asserts the lease. What a node that
 * has lost the job still writes would be found at once.
 */
import { pack } from 'msgpackr';
import { type LeaderLease, LeaseLost } from '../../cluster/leases/index.js';
import type { Purger } from '../../node/services/index.js';
import { key } from '../../store/keyspace.js';
import { KvError } from '../../store/kv/index.js';
import { type Effect, effectSpace } from './commit-watch.js';
import { describe } from './story.js';
import type { JobHost } from './surroundings.js';

export const jobs = ['acme', 'reports', 'policy-publication'] as const;

const stepsKey = (job: string): Buffer => key(effectSpace, 'steps', job);
const shortestPauseMs = 60;
const longestPauseMs = 400;

/** Contends for these jobs and for the purge, which is a real one. They end when the leases are released. */
export function startJobs(node: JobHost, purger: Purger): void {
  const { leases, world } = node;
  for (const job of jobs)
    leases.whileLeader(job, (epoch, signal, lease) => work(node, job, epoch, signal, world.broken.lease(lease)));
  leases.whileLeader('purge', purger.work, { pauseMs: purger.intervalMs });
}

async function work(node: JobHost, job: string, epoch: number, signal: AbortSignal, lease: LeaderLease): Promise<void> {
  const random = node.random.fork(`${job}/${epoch}`);
  while (!signal.aborted) {
    try {
      await step(node, job, epoch, lease);
    } catch (error) {
      if (error instanceof LeaseLost) return;
      if (!(error instanceof KvError))
        node.world.story.violate('unforeseen', `${node.name}: ${job} failed: ${describe(error)}`, [job]);
    }
    await node.clock.sleep(random.between(shortestPauseMs, longestPauseMs), signal).catch(() => undefined);
  }
}

async function step(node: JobHost, job: string, epoch: number, lease: LeaderLease): Promise<void> {
  const effect: Effect = { nodeId: node.nodeId, epoch };
  /** The step that an earlier run of the body has written, perhaps. */
  let tried: number | undefined;
  await node.parts.kv.transact(
    async (tx) => {
      const steps = await tx.get(stepsKey(job));
      const done = steps ? steps.readUInt32BE() : 0;
      // After an unknown commit: nobody but the holder counts, so a count that has come to what was tried is this body's own.
      if (tx.mayHaveCommitted && tried === done) return;
      await lease.assert(tx);
      tried = done + 1;
      const counter = Buffer.allocUnsafe(4);
      counter.writeUInt32BE(tried);
      tx.set(stepsKey(job), counter);
      tx.set(key(effectSpace, 'effect', job, tried), pack(effect));
    },
    { label: 'job-step' },
  );
}
