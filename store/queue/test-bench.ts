/** A queue on a memory store for tests, with a clock that is set by hand. */
import { type Clock, silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { createBlobStore } from '../blobs/index.js';
import { key, keyItems, keysFrom, subspace } from '../keyspace.js';
import { type KvStore, MemoryDatabase, openMemoryStore } from '../kv/index.js';
import { createQueue, type NewQueueMessage, type NodeIdentity, type QueueDependencies } from './index.js';
import { raiseFence } from './test-fences.js';

export const startSeconds = 1_800_000_000;

export class HandClock implements Clock {
  seconds = startSeconds;
  nowMs = () => this.seconds * 1000;
  monotonicMs = () => this.seconds * 1000;
  setTimer = systemClock.setTimer;
  sleep = systemClock.sleep;
}

let nodeCount = 0;

/** One node's view of a database that several may share. */
export async function openBench(
  options: { database?: MemoryDatabase; clock?: HandClock; history?: QueueDependencies['history'] } = {},
) {
  const clock = options.clock ?? new HandClock();
  const database = options.database ?? new MemoryDatabase({ clock: systemClock });
  const kv: KvStore = openMemoryStore({ database });
  const parts = { kv, clock, random: systemRandom, logger: silentLogger };
  const blobs = createBlobStore(parts);
  const queue = createQueue({ ...parts, blobs, history: options.history });
  const node: NodeIdentity = { nodeId: String(++nodeCount).padStart(32, '0'), incarnation: 1 };
  await raiseFence(kv, node);

  /** A message to one recipient at each of these domains. */
  const message = (domains: string[], change: Partial<NewQueueMessage> = {}): NewQueueMessage => ({
    id: queue.newId(),
    blob: blobs.prepare(Buffer.from('Subject: test\r\n\r\nbody\r\n')),
    relayOffsetBytes: 0,
    from: 'sender@example.org',
    receivedAtMs: clock.nowMs(),
    expiresAtMs: clock.nowMs() + 86_400_000,
    isUtf8: false,
    body: '7BIT',
    priority: 0,
    source: { protocol: 'smtp' },
    destinations: domains.map((domain) => ({ domain, isLocal: false, recipients: [{ address: `x@${domain}` }] })),
    ...change,
  });

  return {
    ...parts,
    database,
    blobs,
    queue,
    node,
    message,
    put: async (domains: string[], change: Partial<NewQueueMessage> = {}, claimFor?: NodeIdentity) => {
      const one = message(domains, change);
      const claimed = await kv.transact((tx) => queue.enqueue(tx, one, { nowSeconds: clock.seconds, claimFor }));
      return { id: one.id, claimed };
    },
    /** Keys of the queue without receipts, as tuples without the subspace. */
    rows: async (): Promise<unknown[][]> => {
      const { begin, end } = keysFrom(key(subspace.queue));
      const rows = await kv.read((reads) => reads.getRange(begin, end));
      return rows.map((row) => keyItems(row.key).slice(1)).filter(([kind]) => kind !== 'receipt');
    },
  };
}

export type Bench = Awaited<ReturnType<typeof openBench>>;
