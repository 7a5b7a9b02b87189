import { afterEach, describe, expect, it } from 'vitest';
import { LeaseLost } from '../../cluster/leases/index.js';
import { KvError, openMemoryStore } from '../../store/kv/index.js';
import { type ClaimedDestination, type NewQueueMessage, shardOf } from '../../store/queue/index.js';
import { breakFence } from '../../store/queue/test-fences.js';
import { startTestNode, type TestNode, type TestNodeOptions } from '../mailflow/testing/node.js';
import type { DeliveryJob } from '../mailflow/types.js';
import { createPurger, createQueueRunner, type QueueRunnerDependencies } from './index.js';

const closing: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

/** A node whose own runner does not run. */
async function openNode(options: Partial<TestNodeOptions> = {}): Promise<TestNode> {
  const node = await startTestNode({ isRunning: false, ...options, kv: options.kv ?? openMemoryStore() });
  closing.push(() => node.close());
  return node;
}

async function startRunner(node: TestNode, more: Partial<QueueRunnerDependencies>) {
  const runner = createQueueRunner({ ...node, ...node.delivery, ...more });
  closing.unshift(() => runner.stop());
  await node.membership.join();
  runner.start();
  return runner;
}

function newMessage(node: TestNode, domain = 'example.test', text = 'x'): NewQueueMessage {
  const nowMs = node.clock.nowMs();
  return {
    id: node.queue.newId(),
    blob: node.blobs.prepare(Buffer.from(`Subject: ${text}\r\n\r\n${text}\r\n`)),
    relayOffsetBytes: 0,
    from: '',
    receivedAtMs: nowMs,
    expiresAtMs: nowMs + 100_000,
    isUtf8: false,
    body: '7BIT',
    priority: 0,
    source: { protocol: 'local' },
    destinations: [{ domain, isLocal: domain === 'example.test', recipients: [{ address: `alice@${domain}` }] }],
  };
}

/** Queues a message that is due, or one that this node has claimed. */
async function enqueue(node: TestNode, message: NewQueueMessage, isClaimed = false): Promise<ClaimedDestination[]> {
  const claimFor = isClaimed ? node.node : undefined;
  return node.kv.transact((tx) => node.queue.enqueue(tx, message, { nowSeconds: 1, claimFor }));
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 12_000 && !(await condition()); i++) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(await condition()).toBe(true);
}

const never = () => new Promise<void>(() => {});

describe('queue runner under load', () => {
  it('has in hand what it has won although the store goes away in the middle of a look', async () => {
    const kv = openMemoryStore();
    const node = await openNode({ kv });
    for (let i = 0; i < 60; i++) await enqueue(node, newMessage(node));
    let commits = 0;
    // Registering is the first commit, the first fifty claims are the second.
    kv.faults.delayMs = (operation) => {
      if (operation === 'commit' && ++commits === 3) kv.faults.outage = true;
      return undefined;
    };
    const runner = await startRunner(node, { deliver: never, limits: { maxLocalDeliveries: 100 } });
    await until(() => kv.faults.outage);
    await until(() => runner.size === 50);
    kv.faults.clear();
    await until(() => runner.size === 60);
  });

  it('reaches every shard however long the backlog of the others is', async () => {
    const node = await openNode();
    // Each in a shard of its own: within one, the same message would come first again and again.
    const shards = new Set<number>();
    while (shards.size < 5) {
      const message = newMessage(node);
      if (shards.has(shardOf(message.id))) continue;
      shards.add(shardOf(message.id));
      await enqueue(node, message);
    }
    const seen = new Set<string>();
    await startRunner(node, {
      limits: { maxClaims: 1, claimBatch: 1, minScanGapMs: 0, scanIntervalMs: 5 },
      // Never done: each is due again at once.
      deliver: async ({ claimed }) => {
        seen.add(claimed.message.id);
        await new Promise((resolve) => setImmediate(resolve));
        await node.queue.release([claimed], 1);
      },
    });
    await until(() => seen.size === 5);
  });

  it('takes local mail while slow remote hosts fill what it may claim, and hands back remote mail beyond that', async () => {
    const node = await openNode();
    const delivered: string[] = [];
    const runner = await startRunner(node, {
      limits: { maxClaims: 2, maxRemoteDeliveries: 1 },
      deliver: (job: DeliveryJob) => {
        if (!job.claimed.destination.isLocal) return never();
        delivered.push(job.claimed.message.id);
        return node.queue.release([job.claimed], 2_000_000_000);
      },
    });
    const accept = async (domain: string) => {
      expect(runner.hasRoom(1)).toBe(true);
      const message = newMessage(node, domain);
      runner.take((await enqueue(node, message, true)).map((claimed) => ({ claimed })));
      return message.id;
    };
    for (let i = 0; i < 5; i++) await accept(`slow${i}.test`);
    expect(runner.size).toBe(2);
    const id = await accept('example.test');
    await until(() => delivered.includes(id));
    await until(async () => (await node.queue.counts(node.clock.nowMs() / 1000)).dueNow === 3);
    expect(await node.queue.claimsOf(node.node, 10)).toHaveLength(2);
  });

  it('delivers a large local message while remote conversations go on', async () => {
    const node = await openNode();
    const delivered: string[] = [];
    const runner = await startRunner(node, {
      limits: { maxInFlightBytes: 300 * 1024 },
      deliver: async (job) => {
        if (!job.claimed.destination.isLocal) return never();
        delivered.push(job.claimed.message.id);
      },
    });
    const take = async (message: NewQueueMessage) =>
      runner.take((await enqueue(node, message, true)).map((claimed) => ({ claimed })));
    await take(newMessage(node, 'slow.test'));
    const large = newMessage(node, 'example.test', 'x'.repeat(40_000));
    await take(large);
    await until(() => delivered.includes(large.id));
  });

  it('keeps accepted content in memory for local deliveries only, as long as they need no second try, and up to a limit', async () => {
    const node = await openNode();
    const jobs: DeliveryJob[] = [];
    let isFirst = true;
    const runner = await startRunner(node, {
      limits: { maxFreshBytes: 100 },
      deliver: async (job) => {
        jobs.push(job);
        if (!isFirst) return never();
        isFirst = false;
        throw new KvError('unavailable', 'for a test', 'outage');
      },
      random: { float: () => 0, bytes: node.random.bytes },
    });
    const take = async (domain: string, length: number) => {
      const message = newMessage(node, domain);
      const fresh = { blob: message.blob, bytes: Buffer.alloc(length) };
      runner.take((await enqueue(node, message, true)).map((claimed) => ({ claimed, fresh })));
      return message.id;
    };
    const freshOf = (id: string) =>
      jobs.filter(({ claimed }) => claimed.message.id === id).map(({ fresh }) => fresh?.bytes.length);
    const tried = await take('example.test', 60);
    expect(freshOf(tried)).toEqual([60]);
    await until(() => freshOf(tried).length === 2);
    expect(freshOf(tried)).toEqual([60, undefined]);
    expect(freshOf(await take('remote.test', 60))).toEqual([undefined]);
    expect(freshOf(await take('example.test', 60))).toEqual([60]);
    expect(freshOf(await take('example.test', 60))).toEqual([undefined]);
    expect(freshOf(await take('example.test', 40))).toEqual([40]);
  });

  it('lets go of the queue when it is fenced', async () => {
    const node = await openNode();
    let listeners = 0;
    const queue = {
      ...node.queue,
      onDue: (listener: () => void) => {
        const leave = node.queue.onDue(listener);
        listeners++;
        return () => {
          listeners--;
          leave();
        };
      },
    };
    let isFenced = false;
    const runner = await startRunner(node, { queue, onFenced: () => (isFenced = true) });
    await breakFence(node.kv, node.node.nodeId);
    await enqueue(node, newMessage(node));
    runner.wake();
    await until(() => isFenced);
    expect(listeners).toBe(0);
  });
});

describe('a node that may have been declared dead', () => {
  it('claims nothing and begins nothing until it knows better; what waits is begun then', async () => {
    const node = await openNode();
    let mayWork = true;
    const begun: string[] = [];
    const runner = await startRunner(node, {
      deliver: async ({ claimed }) => {
        begun.push(claimed.message.id);
        await never();
      },
      limits: { maxLocalDeliveries: 1, scanIntervalMs: 5 },
      mayWork: () => mayWork,
    });
    for (let i = 0; i < 2; i++) await enqueue(node, newMessage(node));
    await until(() => runner.size === 2 && begun.length === 1);
    mayWork = false;
    expect(runner.hasRoom(1)).toBe(false);
    runner.setLimits({ maxLocalDeliveries: 10 });
    runner.wake();
    await enqueue(node, newMessage(node));
    await node.clock.sleep(50);
    expect([runner.size, begun.length]).toEqual([2, 1]);
    mayWork = true;
    runner.wake();
    await until(() => runner.size === 3 && begun.length === 3);
    expect(runner.hasRoom(1)).toBe(true);
  });
});

describe('purger', () => {
  it('stops between two steps when the job has passed to another node, and forgets nothing then', async () => {
    const node = await openNode();
    let steps = 0;
    let isOurs = true;
    const blobs = {
      async purge() {
        steps++;
        isOurs = steps < 3;
        return { removed: 0, removedBytes: 0, more: true };
      },
    };
    const lease = {
      assert: async () => {
        if (!isOurs) throw new LeaseLost('it has passed to another node');
      },
    };
    let forgotten = 0;
    const queue = { forgetReceipts: async () => void forgotten++ };
    const purger = createPurger({ ...node, blobs: blobs as never, queue, settings: {} });
    await expect(purger.runOnce({ accounts: true, lease })).rejects.toBeInstanceOf(LeaseLost);
    expect([steps, forgotten]).toEqual([3, 0]);
  });

  it('asserts the lease in the transaction that forgets receipts', async () => {
    const node = await openNode();
    const blobs = { purge: async () => ({ examined: 0, tombstoned: 0, removed: 0, removedBytes: 0, more: false }) };
    const queue = {
      async forgetReceipts(nowSeconds: number, assert?: Parameters<typeof node.queue.forgetReceipts>[1]) {
        isOurs = false;
        return node.queue.forgetReceipts(nowSeconds, assert);
      },
    };
    let isOurs = true;
    const lease = {
      assert: async () => {
        if (!isOurs) throw new LeaseLost('it has passed to another node');
      },
    };
    await expect(createPurger({ ...node, blobs, queue, settings: {} }).runOnce({ lease })).rejects.toBeInstanceOf(LeaseLost);
  });

  it('passes over an account that it can not tidy', async () => {
    const node = await openNode();
    await node.account('alice@example.test');
    await node.account('bob@example.test');
    const [first, second] = await node.directory.principals('account');
    const tidied: string[] = [];
    const mail = {
      ...node.mail,
      resumeRemovals: async (id: string) => {
        if (id === first!.id) throw new TypeError('a damaged record');
        tidied.push(id);
      },
    };
    await createPurger({ ...node, mail, settings: {} }).runOnce({ accounts: true });
    expect(tidied).toEqual([second!.id]);
  });
});
