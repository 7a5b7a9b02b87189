import { afterEach, describe, expect, it } from 'vitest';
import { registry } from '../../ops/telemetry/index.js';
import { startTestServer, type TestHandler } from '../../protocols/smtp/testing/server.js';
import { MemoryDatabase, openMemoryStore } from '../../store/kv/index.js';
import { ClaimLost, type QueueShare } from '../../store/queue/index.js';
import { breakFence } from '../../store/queue/test-fences.js';
import { nodesIn, post, queueLeftovers, startTestNode, type TestNode, type TestNodeOptions } from '../mailflow/testing/node.js';
import { createPurger, createQueueRunner } from './index.js';

const closing: { close(): Promise<void> }[] = [];

afterEach(async () => {
  for (const one of closing.splice(0)) await one.close();
});

async function openNode(options: Partial<TestNodeOptions> = {}): Promise<TestNode> {
  const node = await startTestNode({ ...options, kv: options.kv ?? openMemoryStore() });
  closing.push(node);
  return node;
}

/** A peer that keeps the answer to every message back until told. */
async function slowPeer() {
  const server = await startTestServer();
  closing.unshift(server);
  const handler = server.handler as TestHandler;
  const data = handler.data.bind(handler);
  let open!: () => void;
  const gate = new Promise<void>((resolve) => {
    open = resolve;
  });
  let running = 0;
  let mostRunning = 0;
  handler.data = (session, envelope) => {
    const sink = data(session, envelope);
    if ('code' in sink) return sink;
    mostRunning = Math.max(mostRunning, ++running);
    return {
      write: (chunk) => sink.write(chunk),
      abort: (reason) => sink.abort(reason),
      finish: async (facts) => {
        await gate;
        running--;
        return sink.finish(facts);
      },
    };
  };
  return { server, handler, open, running: () => running, mostRunning: () => mostRunning };
}

const password = 'correct horse battery';
const auth = { login: 'alice@example.test', password };
const text = 'From: alice@example.test\r\nSubject: x\r\n\r\nx\r\n';

async function withRemote(node: TestNode): Promise<(to: string) => Promise<unknown>> {
  await node.account('alice@example.test', { password });
  for (const domain of ['one.test', 'two.test']) node.resolver.mailHosts.set(domain, ['mx.one.test']);
  node.resolver.addresses.set('mx.one.test', '127.0.0.1');
  const { port } = await node.listen('submission');
  return (to) => post(port, { from: 'alice@example.test', to, auth, text });
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 12_000 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(condition()).toBe(true);
}

describe('queue runner', () => {
  it('keeps to the limit of each domain and lets other domains pass', async () => {
    const peer = await slowPeer();
    const node = await openNode({ settings: { smtpPort: peer.server.port }, limits: { maxDeliveriesPerDomain: 2 } });
    const send = await withRemote(node);
    for (let i = 0; i < 5; i++) await send(`x${i}@one.test`);
    await until(() => peer.running() === 2);
    await send('x@two.test');
    await until(() => peer.running() === 3);
    expect(node.runner.size).toBe(6);
    peer.open();
    await node.settled();
    expect(peer.handler.messages).toHaveLength(6);
    expect(peer.mostRunning()).toBe(3);
  });

  it('drains: finishes what runs, hands back what waits, leaves no claim and no row', async () => {
    const peer = await slowPeer();
    const kv = openMemoryStore();
    const node = await openNode({ kv, settings: { smtpPort: peer.server.port }, limits: { maxRemoteDeliveries: 1 } });
    const send = await withRemote(node);
    for (let i = 0; i < 3; i++) await send(`x${i}@one.test`);
    await until(() => peer.running() === 1);
    const rightly = node.clock.nowMs() / 1000;
    // What it hands back must not wait for a clock that is a day ahead.
    node.clock.shiftMs = 86_400_000;
    const drained = node.runner.drain(node.clock.monotonicMs() + 20_000);
    await until(() => node.runner.size === 1);
    expect(node.runner.hasRoom(1)).toBe(false);
    peer.open();
    await drained;
    await node.membership.leave();
    expect(peer.handler.messages).toHaveLength(1);
    expect(await node.queue.counts(rightly)).toMatchObject({ dueNow: 2, claimed: 0 });
    expect(await nodesIn(node.kv)).toEqual([]);
    const next = await openNode({ kv, settings: { smtpPort: peer.server.port } });
    next.resolver.mailHosts.set('one.test', ['mx.one.test']);
    next.resolver.addresses.set('mx.one.test', '127.0.0.1');
    await next.settled();
    expect(peer.handler.messages).toHaveLength(3);
    expect(await queueLeftovers(kv)).toEqual([]);
  });

  it('goes on while answers are being saved, but not beyond a bound, and a drain waits for them', async () => {
    const peer = await slowPeer();
    peer.open();
    const kv = openMemoryStore();
    const node = await openNode({ kv, settings: { smtpPort: peer.server.port }, limits: { maxRemoteDeliveries: 1 } });
    const send = await withRemote(node);
    let letSave!: () => void;
    const gate = new Promise<void>((resolve) => {
      letSave = resolve;
    });
    const { transact } = kv;
    kv.transact = async (body, options) => {
      if (options?.label === 'settle') await gate;
      return transact.call(kv, body, options) as ReturnType<typeof body>;
    };
    for (let i = 0; i < 5; i++) await send(`x${i}@one.test`);
    await until(() => peer.handler.messages.length === 2);
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setTimeout(resolve, 1));
    expect(peer.handler.messages).toHaveLength(2);
    const drained = node.runner.drain(node.clock.monotonicMs() + 20_000);
    await until(() => node.runner.size === 2);
    letSave();
    await drained;
    expect(peer.handler.messages).toHaveLength(2);
    expect(await node.queue.counts(node.clock.nowMs() / 1000)).toMatchObject({ dueNow: 3, claimed: 0 });
  });

  it('cuts off at the deadline what does not end, and gives it back', async () => {
    const peer = await slowPeer();
    const node = await openNode({ settings: { smtpPort: peer.server.port } });
    const send = await withRemote(node);
    await send('x@one.test');
    await until(() => peer.running() === 1);
    await node.runner.drain(node.clock.monotonicMs() + 50);
    await node.membership.leave();
    const [queued] = await node.queue.list();
    expect(queued!.destinations[0]).toMatchObject({ state: 'due', recipients: [{ status: 'pending' }] });
    expect(await nodesIn(node.kv)).toEqual([]);
    peer.open();
  });

  it('gives back claims that nobody here was told of, and works on them like on others', async () => {
    const kv = openMemoryStore();
    const node = await openNode({ kv, limits: { compareIntervalMs: 20, scanIntervalMs: 20 } });
    const alice = await node.account('alice@example.test');
    const message = {
      id: node.queue.newId(),
      blob: node.blobs.prepare(Buffer.from('Subject: lost\r\n\r\nx\r\n')),
      relayOffsetBytes: 0,
      from: '',
      receivedAtMs: node.clock.nowMs(),
      expiresAtMs: node.clock.nowMs() + 100_000,
      isUtf8: false,
      body: '7BIT' as const,
      priority: 0,
      source: { protocol: 'local' as const },
      destinations: [{ domain: 'example.test', isLocal: true, recipients: [{ address: 'alice@example.test' }] }],
    };
    // As after an acceptance whose commit stayed unknown to the end: claimed for this node, never handed over.
    await node.kv.transact((tx) => node.queue.enqueue(tx, message, { nowSeconds: 1, claimFor: node.node }));
    await node.settled();
    expect(await node.mailbox(alice)).toHaveLength(1);
    // The enqueue that hung for so long finds a trace of its message, though it has been delivered.
    kv.faults.nextCommit = 'lost';
    const again = await kv.transact((tx) => node.queue.enqueue(tx, message, { nowSeconds: 1, claimFor: node.node }));
    expect(again).toEqual([]);
    await node.settled();
    expect(await node.mailbox(alice)).toHaveLength(1);
  });

  it('shares the work of one queue among nodes and delivers everything once', async () => {
    const database = new MemoryDatabase();
    const shares: QueueShare[] = [];
    const nodes: TestNode[] = [];
    for (let i = 0; i < 3; i++) {
      nodes.push(
        await openNode({
          kv: openMemoryStore({ database }),
          shares: () => shares,
          limits: { scanIntervalMs: 20 },
          isRunning: false,
        }),
      );
    }
    const [first] = nodes as [TestNode];
    const alice = await first.account('alice@example.test');
    shares.push(...nodes.map(({ node: { nodeId } }) => ({ nodeId })));
    // The accepting node does not run: all messages become due.
    const { port } = await first.listen();
    const count = 60;
    await Promise.all(
      Array.from({ length: count }, (_, i) =>
        post(port, { to: 'alice@example.test', text: `Subject: number ${i}\r\n\r\nx\r\n` }),
      ),
    );
    for (const { membership, runner } of nodes) {
      await membership.join();
      runner.start();
    }
    for (const node of nodes) await node.settled();
    const numbers = (await first.mailbox(alice)).map((one) => Number(/number (\d+)/.exec(one)![1])).sort((x, y) => x - y);
    expect(numbers).toEqual(Array.from({ length: count }, (_, i) => i));
    expect(await first.mail.recount(alice)).toEqual({ differences: [] });
    expect(await queueLeftovers(first.kv)).toEqual([]);
  });

  it('stops for good when it finds itself fenced', async () => {
    const node = await openNode({ isRunning: false });
    let fenced = 0;
    const runner = createQueueRunner({ ...node, ...node.delivery, onFenced: () => fenced++ });
    await node.membership.join();
    runner.start();
    await breakFence(node.kv, node.node.nodeId);
    await node.account('alice@example.test');
    const { port } = await node.listen();
    await post(port, { to: 'alice@example.test' });
    await until(() => fenced === 1);
    expect(runner.hasRoom(1)).toBe(false);
    await runner.stop();
  });

  it('cuts off what runs at once when it is stopped, as after a fence, though the store hangs', async () => {
    const node = await openNode({ isRunning: false });
    await node.membership.join();
    let cutOff = 0;
    const runner = createQueueRunner({
      ...node,
      ...node.delivery,
      queue: { ...node.queue, due: () => new Promise<never>(() => {}) },
      deliver: (_job, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => {
            cutOff++;
            reject(signal.reason);
          });
        }),
    });
    runner.start();
    const message = {
      id: node.queue.newId(),
      blob: node.blobs.prepare(Buffer.from('Subject: x\r\n\r\nx\r\n')),
      relayOffsetBytes: 0,
      from: '',
      receivedAtMs: node.clock.nowMs(),
      expiresAtMs: node.clock.nowMs() + 100_000,
      isUtf8: false,
      body: '7BIT' as const,
      priority: 0,
      source: { protocol: 'local' as const },
      destinations: [{ domain: 'one.test', isLocal: false, recipients: [{ address: 'x@one.test' }] }],
    };
    const born = await node.kv.transact((tx) => node.queue.enqueue(tx, message, { nowSeconds: 1, claimFor: node.node }));
    runner.take(born.map((claimed) => ({ claimed })));
    void runner.stop();
    expect(cutOff).toBe(1);
  });

  it('drains in its time though the store hangs, and does not take its own leaving for a fence', async () => {
    const node = await openNode({ isRunning: false });
    await node.membership.join();
    let breakOff!: (error: Error) => void;
    let fenced = 0;
    const hanging = new Promise<never>((_resolve, reject) => {
      breakOff = reject;
    });
    const runner = createQueueRunner({
      ...node,
      ...node.delivery,
      queue: { ...node.queue, due: () => hanging },
      onFenced: () => void fenced++,
    });
    runner.start();
    await runner.drain(node.clock.monotonicMs() + 20);
    breakOff(new ClaimLost('the fence is gone'));
    await new Promise((resolve) => setImmediate(resolve));
    expect(fenced).toBe(0);
  });

  it('goes on after an outage of the store', async () => {
    const kv = openMemoryStore();
    const node = await openNode({ kv, limits: { scanIntervalMs: 10 } });
    const alice = await node.account('alice@example.test');
    kv.faults.outage = true;
    node.runner.wake();
    await node.clock.sleep(50);
    kv.faults.clear();
    const { port } = await node.listen();
    await post(port, { to: 'alice@example.test' });
    await node.settled();
    expect(await node.mailbox(alice)).toHaveLength(1);
  });

  it('puts off what fails in a way that nobody foresaw, instead of trying it forever', async () => {
    const node = await openNode({ isRunning: false });
    await node.account('alice@example.test');
    const runner = createQueueRunner({
      ...node,
      ...node.delivery,
      deliver: async () => {
        throw new TypeError('a bug');
      },
    });
    const { port } = await node.listen();
    await post(port, { to: 'alice@example.test' });
    await node.membership.join();
    runner.start();
    await until(() => runner.size === 0);
    const put = async () => (await node.queue.list())[0]!.destinations[0]!;
    for (let i = 0; i < 200 && (await put()).attempts === 0; i++) await node.clock.sleep(5);
    expect(await put()).toMatchObject({
      state: 'due',
      attempts: 1,
      recipients: [{ status: 'pending', lastReply: { enhanced: '4.3.0' } }],
    });
    await runner.stop();
  });

  it('shows the queue in metrics', async () => {
    const node = await openNode();
    await node.account('alice@example.test');
    const { port } = await node.listen();
    await post(port, { to: 'alice@example.test' });
    await node.settled();
    const shown = await registry.metrics();
    expect(shown).toMatch(/starling_queue_size\{state="due"\} 0/);
    expect(shown).toMatch(/starling_queue_messages_total\{event="completed"\} [1-9]/);
    expect(shown).toMatch(/starling_delivery_seconds_count [1-9]/);
    expect(shown).toMatch(/starling_queue_age_seconds 0/);
  });
});

describe('purger', () => {
  it('removes blobs that nothing links, receipts, and old change log entries', async () => {
    const node = await openNode();
    const alice = await node.account('alice@example.test');
    const { port } = await node.listen();
    for (let i = 0; i < 5; i++) await post(port, { to: 'alice@example.test', text: `Subject: ${i}\r\n\r\n${i}\r\n` });
    await node.settled();
    const inbox = (await node.mail.mailboxByPath(alice, ['INBOX']))!.mailbox.id;
    const [entry] = await node.mail.entries(alice, inbox);
    const [message] = await node.mail.messages(alice, [entry!.emailId]);
    await node.mail.expunge(alice, inbox, [entry!.uid], { onlyDeleted: false });
    const purger = createPurger({ ...node, settings: { keptModseqs: 2 } });
    const stat = () => node.kv.read((reads) => node.blobs.stat(reads, message!.blobId));
    expect(await stat()).toBeDefined();
    for (let i = 0; i < 3; i++) {
      node.clock.shiftMs += 120_000;
      await purger.runOnce({ accounts: true });
    }
    expect(await stat()).toBeUndefined();
    expect(await node.mailbox(alice)).toHaveLength(4);
    const { modseq } = await node.mail.usage(alice);
    expect(await node.mail.changesSince(alice, 1)).toBeUndefined();
    expect((await node.mail.changesSince(alice, modseq - 2))!.sets).toHaveLength(2);
  });

  it('is a job of the cluster: one pass a run, ended after its step when it is told', async () => {
    const node = await openNode();
    let passes = 0;
    const over = new AbortController();
    const blobs = {
      purge: async () => {
        if (++passes === 3) over.abort(new Error('handed over'));
        return { examined: 0, tombstoned: 0, removed: 0, removedBytes: 0, more: passes > 1 };
      },
    };
    const lease = { job: 'purge', isHeld: true, epoch: 1, assert: async () => {} };
    const purger = createPurger({ ...node, blobs, settings: { intervalMs: 5 } });
    await purger.work(1, over.signal, lease);
    expect(passes).toBe(1);
    await purger.work(1, over.signal, lease);
    expect(passes).toBe(3);
  });
});
