/** Gauges of the queue, read when metrics are asked for and at most every few seconds. */
import { type Clock, gauge } from '../../ops/telemetry/index.js';
import type { Queue } from '../../store/queue/index.js';

interface Watched {
  queue: Queue;
  clock: Clock;
  lanes: () => { size: number; running: number };
  readAtMs: number;
}

const maxAgeMs = 5000;
const watched = new Set<Watched>();

/** `state`: due (now), scheduled (later), of these waiting (in a line), claimed (by any node): destinations in the store. in-hand, running: of this node. */
const queueSize = gauge('starling_queue_size', 'Destinations in the queue, counted up to 1,000 per shard.', ['state'], collect);
const queueAge = gauge('starling_queue_age_seconds', 'Age of the oldest message in the queue.');

async function collect(): Promise<void> {
  for (const one of watched) {
    const { size, running } = one.lanes();
    queueSize.set({ state: 'in-hand' }, size);
    queueSize.set({ state: 'running' }, running);
    if (one.clock.monotonicMs() - one.readAtMs < maxAgeMs) continue;
    one.readAtMs = one.clock.monotonicMs();
    try {
      const nowMs = one.clock.nowMs();
      const [counts, oldest] = await Promise.all([one.queue.counts(Math.floor(nowMs / 1000)), one.queue.list({ limit: 1 })]);
      queueSize.set({ state: 'due' }, counts.dueNow);
      queueSize.set({ state: 'scheduled' }, counts.scheduled);
      queueSize.set({ state: 'waiting' }, counts.waiting);
      queueSize.set({ state: 'claimed' }, counts.claimed);
      queueAge.set(oldest[0] ? Math.max(0, nowMs - oldest[0].message.receivedAtMs) / 1000 : 0);
    } catch {
      // The store is away, which its own metrics say; the last values stand.
    }
  }
}

/** Reads this queue when metrics are asked for. Answers the way to stop it. */
export function watchQueue(queue: Queue, clock: Clock, lanes: Watched['lanes']): () => void {
  const one: Watched = { queue, clock, lanes, readAtMs: Number.NEGATIVE_INFINITY };
  watched.add(one);
  return () => watched.delete(one);
}
