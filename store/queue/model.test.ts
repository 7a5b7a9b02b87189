import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { createBlobStore } from '../blobs/index.js';
import { key, keyItems, keysFrom, keysUnder, subspace } from '../keyspace.js';
import { type KvStore, MemoryDatabase, openEmbeddedStore, openMemoryStore } from '../kv/index.js';
import {
  allShards,
  type ClaimedDestination,
  ClaimLost,
  createQueue,
  type NodeIdentity,
  type Queue,
  type QueueId,
} from './index.js';
import { breakFence, raiseFence } from './test-fences.js';

const nowSeconds = 1_800_000_000;

/** One process as the model sees it: what it believes to have claimed. */
interface Worker {
  kv: KvStore;
  queue: Queue;
  blobs: ReturnType<typeof createBlobStore>;
  node: NodeIdentity;
  held: ClaimedDestination[];
}

let workerCount = 0;

async function openWorker(kv: KvStore): Promise<Worker> {
  const parts = { kv, clock: systemClock, random: systemRandom, logger: silentLogger };
  const blobs = createBlobStore(parts);
  const queue = createQueue({ ...parts, blobs });
  const node = { nodeId: String(++workerCount).padStart(32, '0'), incarnation: 1 };
  await raiseFence(kv, node);
  return { kv, queue, blobs, node, held: [] };
}

/** What was accepted: each recipient must have had its effect exactly once at the end. */
class Model {
  readonly accepted = new Set<string>();
  count = 0;

  async enqueue(worker: Worker, domains: number, isClaimed: boolean): Promise<void> {
    const id: QueueId = worker.queue.newId();
    const destinations = Array.from({ length: domains }, (_, d) => ({
      domain: `d${d}.test`,
      isLocal: d === 0,
      recipients: [0, 1].map((r) => ({ address: `r${r}@d${d}.test` })),
    }));
    const message = {
      id,
      blob: worker.blobs.prepare(Buffer.from(`message ${this.count++ % 3}`)),
      relayOffsetBytes: 0,
      from: 's@x.test',
      receivedAtMs: 0,
      expiresAtMs: (nowSeconds + 1_000_000) * 1000,
      isUtf8: false,
      body: '7BIT' as const,
      priority: this.count % 2,
      countedUnder: ['total'],
      source: { protocol: 'smtp' as const },
      destinations,
    };
    const claimFor = isClaimed ? worker.node : undefined;
    const claimed = await worker.kv.transact((tx) => worker.queue.enqueue(tx, message, { nowSeconds, claimFor }));
    worker.held.push(...claimed);
    for (const { recipients } of destinations) for (const { address } of recipients) this.accepted.add(`${id} ${address}`);
  }

  async claim(worker: Worker): Promise<void> {
    const { entries } = await worker.queue.due(allShards, nowSeconds, 20);
    worker.held.push(...(await worker.queue.claim(worker.node, entries)));
  }

  async park(worker: Worker): Promise<void> {
    const { entries } = await worker.queue.due(allShards, nowSeconds, 20);
    await worker.queue.park(entries, ({ domain }) => domain);
  }

  async claimFromLines(worker: Worker): Promise<void> {
    for (const line of await worker.queue.lines(undefined, 10)) {
      worker.held.push(...(await worker.queue.claim(worker.node, await worker.queue.lineEntries(line, allShards, 20))));
    }
  }

  /** Saves one recipient or all; the "effect" is a key written in the same transaction, as a mailbox insert would be. */
  async save(worker: Worker, pick: number, howMany: number, keepClaim: boolean): Promise<void> {
    const at = pick % Math.max(1, worker.held.length);
    const claimed = worker.held[at];
    if (!claimed) return;
    const effects = await worker.kv
      .transact(async (tx) => {
        const current = await worker.queue.current(tx, claimed);
        const chosen = current.recipients.filter(({ status }) => status === 'pending').slice(0, howMany);
        for (const { address } of chosen) tx.add(key(100, claimed.message.id, address), 1n);
        const results = chosen.map(({ address }) => ({ address, status: 'delivered' as const }));
        await worker.queue.save(tx, claimed, { results, keepClaim, nextDueAtSeconds: nowSeconds, current });
        return chosen.length;
      })
      .catch((error: unknown) => {
        if (error instanceof ClaimLost) return -1;
        throw error;
      });
    const place = worker.held.indexOf(claimed);
    if ((!keepClaim || effects <= 0) && place >= 0) worker.held.splice(place, 1);
    // A claim that is kept after its last recipient is gone by itself; the next save finds it lost.
  }
}

type Step =
  | { kind: 'enqueue'; worker: number; domains: number; isClaimed: boolean }
  | { kind: 'claim' | 'release' | 'die' | 'hold' | 'park' | 'claim-from-lines'; worker: number }
  | { kind: 'save'; worker: number; pick: number; howMany: number; keepClaim: boolean };

const worker = fc.nat(1);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('enqueue' as const),
      worker,
      domains: fc.integer({ min: 1, max: 3 }),
      isClaimed: fc.boolean(),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom('claim' as const, 'release' as const, 'hold' as const), worker }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('park' as const, 'claim-from-lines' as const), worker }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('die' as const), worker }) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('save' as const),
      worker,
      pick: fc.nat(9),
      howMany: fc.integer({ min: 1, max: 2 }),
      keepClaim: fc.boolean(),
    }),
  },
);

/** Steps run in groups at the same time, so that they race. */
async function play(groups: Step[][], open: () => KvStore, quiet: () => void): Promise<void> {
  const model = new Model();
  const workers = [await openWorker(open()), await openWorker(open())];
  for (const group of groups) {
    await Promise.all(
      group
        .map(async (one) => {
          const mine = workers[one.worker]!;
          if (one.kind === 'enqueue') await model.enqueue(mine, one.domains, one.isClaimed);
          else if (one.kind === 'claim') await model.claim(mine);
          else if (one.kind === 'save') await model.save(mine, one.pick, one.howMany, one.keepClaim);
          else if (one.kind === 'release') await mine.queue.release(mine.held.splice(0, 2), nowSeconds);
          else if (one.kind === 'park') await model.park(mine);
          else if (one.kind === 'claim-from-lines') await model.claimFromLines(mine);
          else if (one.kind === 'hold')
            for (const { message } of await mine.queue.list({ limit: 2 })) await mine.queue.hold(message.id);
        })
        .map((running) =>
          running.catch((error: unknown) => {
            // A worker that was fenced by `die` in an earlier group may not enqueue or claim any more.
            if (!(error instanceof ClaimLost)) throw error;
          }),
        ),
    );
    for (const one of group) {
      if (one.kind !== 'die') continue;
      const [dead, survivor] = [workers[one.worker]!, workers[1 - one.worker]!];
      await breakFence(survivor.kv, dead.node.nodeId);
      while ((await survivor.queue.releaseClaimsOf(dead.node.nodeId, nowSeconds)) > 0);
      // What the dead one still believes to hold it may try to save: nothing comes of it.
      for (let i = 0; i < 3; i++) await model.save(dead, i, 2, false);
      workers[one.worker] = await openWorker(open());
    }
  }
  quiet();
  await finish(model, workers);
}

async function finish(model: Model, workers: Worker[]): Promise<void> {
  const [last] = workers as [Worker];
  for (const one of workers) await one.queue.release(one.held.splice(0), nowSeconds);
  for (const { message } of await last.queue.list({ limit: 1000 })) await last.queue.unhold(message.id, nowSeconds);
  for (let i = 0; i < 500; i++) {
    await model.claim(last);
    await model.claimFromLines(last);
    if (last.held.length === 0) break;
    await model.save(last, 0, 2, false);
  }
  await last.queue.forgetReceipts(systemClock.nowMs() / 1000 + 7200);
  const { leftovers, effects } = await last.kv.read(async (reads) => {
    const all = async (range: { begin: Buffer; end: Buffer }) => reads.getRange(range.begin, range.end);
    const left = [...(await all(keysFrom(key(subspace.queue)))), ...(await all(keysUnder(subspace.blob, 'link')))];
    return { leftovers: left.map((pair) => keyItems(pair.key)), effects: await all(keysUnder(100)) };
  });
  expect(leftovers).toEqual([]);
  const counts = new Map(effects.map((pair) => [keyItems(pair.key).slice(1).join(' '), pair.value.readBigInt64LE()]));
  for (const recipient of model.accepted) expect([recipient, counts.get(recipient)]).toEqual([recipient, 1n]);
  for (const [recipient, count] of counts) expect([recipient, count]).toEqual([recipient, 1n]);
}

describe('queue model', () => {
  it('gives every accepted recipient its effect exactly once and leaves nothing, whatever races, dies or stays unknown', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(step, { minLength: 1, maxLength: 4 }), { maxLength: 14 }),
        fc.nat(2),
        async (groups, faults) => {
          const database = new MemoryDatabase({ clock: systemClock });
          const stores: ReturnType<typeof openMemoryStore>[] = [];
          const probability = [0, 0.08, 0.2][faults]!;
          const open = () => {
            const store = openMemoryStore({ database });
            Object.assign(store.faults, {
              conflict: probability,
              commitUnknownApplied: probability,
              commitUnknownLost: probability,
            });
            stores.push(store);
            return store;
          };
          await play(groups, open, () => {
            for (const store of stores) store.faults.clear();
          });
        },
      ),
      { numRuns: 120 },
    );
  });

  it('holds on the embedded store too', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'queue-model-'));
    const kv = await openEmbeddedStore({ directory, durability: 'none' });
    try {
      await fc.assert(
        fc.asyncProperty(fc.array(fc.array(step, { minLength: 1, maxLength: 4 }), { maxLength: 14 }), async (groups) => {
          await kv.transact(async (tx) => {
            const { begin, end } = keysUnder(100);
            tx.clearRange(begin, end);
          });
          await play(
            groups,
            () => kv,
            () => {},
          );
        }),
        { numRuns: 20 },
      );
    } finally {
      await kv.close();
      await rm(directory, { recursive: true, force: true });
    }
  });
});
