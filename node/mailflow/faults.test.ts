import { afterEach, describe, expect, it } from 'vitest';
import { type KvStore, MemoryDatabase, type MemoryStore, openMemoryStore } from '../../store/kv/index.js';
import { allShards } from '../../store/queue/index.js';
import { breakFence } from '../../store/queue/test-fences.js';
import { createEnqueue } from './enqueue.js';
import { nodesIn, post, queueLeftovers, startTestNode, type TestNode, type TestNodeOptions } from './testing/node.js';

const opened: TestNode[] = [];

async function openNode(options: Partial<TestNodeOptions> = {}) {
  const node = await startTestNode({ ...options, kv: options.kv ?? openMemoryStore() });
  opened.push(node);
  return node;
}

afterEach(async () => {
  for (const node of opened.splice(0)) await node.close();
});

const ways = [
  ['through the queue', false],
  ['on the short way', true],
] as const;

describe('exactly once under faults', () => {
  it.each(ways)('delivers each of many messages once through conflicts and unknown commits, %s', async (_way, isDirect) => {
    const node = await openNode({ isDirect });
    const accounts = [
      await node.account('a@example.test'),
      await node.account('b@example.test'),
      await node.account('c@example.test'),
    ];
    const { port } = await node.listen();
    Object.assign((node.kv as MemoryStore).faults, { conflict: 0.1, commitUnknownApplied: 0.1, commitUnknownLost: 0.1 });
    const sent: string[] = [];
    await Promise.all(
      Array.from({ length: 60 }, async (_, i) => {
        const to = i % 5 === 0 ? ['a@example.test', 'b@example.test', 'c@example.test'] : [`${'abc'[i % 3]}@example.test`];
        const results = await post(port, { to, text: `Subject: number ${i}\r\n\r\nbody\r\n` });
        for (const { code, address } of results) if (code === 250) sent.push(`${address[0]} ${i}`);
      }),
    );
    await node.settled();
    (node.kv as MemoryStore).faults.clear();
    const got: string[] = [];
    for (const [at, account] of accounts.entries()) {
      for (const text of await node.mailbox(account)) got.push(`${'abc'[at]} ${/number (\d+)/.exec(text)![1]}`);
      expect(await node.mail.recount(account)).toEqual({ differences: [] });
    }
    expect(sent).toHaveLength(84);
    expect(got.sort()).toEqual(sent.sort());
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it.each(ways)('loses and doubles nothing when the process is cut off at any of its steps, %s', async (_way, isDirect) => {
    let acknowledged = 0;
    let lostSteps = 0;
    for (let step = 1; step <= 61; step += 3) {
      const database = new MemoryDatabase();
      const cut = openMemoryStore({ database });
      const first = await openNode({ kv: cut, isDirect });
      const alice = await first.account('alice@example.test');
      const { port } = await first.listen();
      await post(port, { to: 'alice@example.test', text: 'Subject: number 0\r\n\r\nx\r\n' });
      await first.settled();
      // From this operation on the process has no store any more; what it was committing stays unknown to it.
      let count = 0;
      cut.faults.delayMs = (operation) => {
        if (operation !== 'begin' && ++count === step) cut.faults.outage = true;
        return operation === 'commit' ? 1 : undefined;
      };
      const results = await Promise.all(
        [1, 2, 3].map((i) => post(port, { to: 'alice@example.test', text: `Subject: number ${i}\r\n\r\nx\r\n` })),
      );
      for (let i = 0; i < 100 && !cut.faults.outage; i++) await first.clock.sleep(1);
      await first.runner.stop();
      const second = await openNode({ kv: openMemoryStore({ database }), isRunning: false });
      await second.membership.join({ isStoreExclusive: true });
      second.runner.start();
      await second.settled();
      const numbers = (await second.mailbox(alice)).map((text) => Number(/number (\d+)/.exec(text)![1]));
      expect(new Set(numbers).size).toBe(numbers.length);
      for (const [i, [result]] of results.entries()) {
        if (result!.code === 250) expect(numbers).toContain(i + 1);
        if (result!.code === 250) acknowledged++;
        else lostSteps++;
      }
      expect(await queueLeftovers(second.kv)).toEqual([]);
      expect(await second.mail.recount(alice)).toEqual({ differences: [] });
      expect(await nodesIn(second.kv)).toEqual([second.node.nodeId]);
    }
    // Both sides of the acknowledgement were cut.
    expect(acknowledged).toBeGreaterThan(5);
    expect(lostSteps).toBeGreaterThan(2);
  });

  it('expands a list once through conflicts and unknown commits', async () => {
    const node = await openNode();
    const ids = [await node.account('a@example.test'), await node.account('b@example.test')];
    await node.directory.createPrincipal({
      kind: 'list',
      address: 'all@example.test',
      members: ['a@example.test', 'b@example.test'],
    });
    const { port } = await node.listen();
    Object.assign((node.kv as MemoryStore).faults, { conflict: 0.1, commitUnknownApplied: 0.2, commitUnknownLost: 0.1 });
    let accepted = 0;
    for (let i = 0; i < 15; i++) {
      const [result] = await post(port, { to: 'all@example.test', text: `Subject: number ${i}\r\n\r\nx\r\n` });
      if (result!.code === 250) accepted++;
    }
    await node.settled();
    (node.kv as MemoryStore).faults.clear();
    expect(accepted).toBe(15);
    for (const id of ids) {
      const numbers = (await node.mailbox(id)).map((text) => Number(/number (\d+)/.exec(text)![1])).sort((x, y) => x - y);
      expect(numbers).toEqual(Array.from({ length: 15 }, (_, i) => i));
    }
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it('delivers into INBOX when the mailbox that it found is removed meanwhile', async () => {
    const node = await openNode();
    const alice = await node.account('alice@example.test');
    await node.mail.createMailbox(alice, ['Lists']);
    const real = node.mail.mailboxByPath;
    const found = await real(alice, ['Lists']);
    await node.mail.deleteMailbox(alice, ['Lists']);
    let isStale = true;
    node.mail.mailboxByPath = async (accountId, path) => {
      if (path[0] !== 'Lists' || !isStale) return real(accountId, path);
      isStale = false;
      return found;
    };
    const { port } = await node.listen();
    await post(port, { to: 'alice+Lists@example.test' });
    await node.settled();
    expect(isStale).toBe(false);
    expect(await node.mailbox(alice)).toHaveLength(1);
  });

  it('delivers nothing more once its fence is broken, while another node finishes the work', async () => {
    const kv = openMemoryStore();
    const paused = await openNode({ kv, limits: { maxLocalDeliveries: 0 } });
    const alice = await paused.account('alice@example.test');
    const { port } = await paused.listen();
    await post(port, { to: 'alice@example.test' });
    const [claimed] = await paused.queue.claimsOf(paused.node, 10);
    const other = await openNode({ kv, isRunning: false });
    await other.membership.join({ isStoreExclusive: true });
    other.runner.start();
    await other.settled();
    expect(await paused.mailbox(alice)).toHaveLength(1);
    await expect(paused.delivery.deliver({ claimed: claimed! }, new AbortController().signal)).rejects.toThrow('lost');
    expect(await paused.mailbox(alice)).toHaveLength(1);
  });

  it('leaves its message to the node that took it over between an unknown commit and the next run', async () => {
    const database = new MemoryDatabase();
    const kv = openMemoryStore({ database });
    const fenced = await openNode({ kv, isRunning: false });
    const other = await openNode({ kv: openMemoryStore({ database }), isRunning: false });
    for (const { membership } of [fenced, other]) await membership.join();
    await fenced.account('alice@example.test');
    const takeOver = async () => {
      const nowSeconds = Math.floor(other.clock.nowMs() / 1000);
      await breakFence(other.kv, fenced.node.nodeId);
      expect(await other.queue.releaseClaimsOf(fenced.node.nodeId, nowSeconds)).toBe(1);
      const { entries } = await other.queue.due(allShards, nowSeconds, 10);
      return other.queue.claim(other.node, entries);
    };
    let taken: Awaited<ReturnType<typeof takeOver>> | undefined;
    // What runs again finds that another node has its message.
    const unknownOnce: KvStore['transact'] = (body, options) =>
      kv.transact(async (tx) => {
        if (tx.mayHaveCommitted && !taken) {
          kv.faults.clear();
          taken = await takeOver();
        }
        return body(tx);
      }, options);
    const desk = { node: fenced.node, hasRoom: () => true, take: () => {} };
    const store = Object.assign(Object.create(kv) as KvStore, { transact: unknownOnce });
    const enqueue = createEnqueue({ kv: store, queue: fenced.queue, clock: fenced.clock, desk });
    const id = fenced.queue.newId();
    kv.faults.commitUnknownApplied = 1;
    const claimed = await enqueue({
      id,
      blob: fenced.blobs.prepare(Buffer.from('Subject: once\r\n\r\nx\r\n')),
      relayOffsetBytes: 0,
      from: '',
      receivedAtMs: fenced.clock.nowMs(),
      expiresAtMs: fenced.clock.nowMs() + 100_000,
      isUtf8: false,
      body: '7BIT',
      priority: 0,
      source: { protocol: 'local' },
      destinations: [{ domain: 'example.test', isLocal: true, recipients: [{ address: 'alice@example.test' }] }],
    });
    expect(claimed).toEqual([]);
    expect(taken).toHaveLength(1);
    // Still the other node's: a destination that had become due again would be delivered by somebody else as well.
    expect((await other.queue.show(id))!.destinations).toMatchObject([{ state: 'claimed', claim: other.node }]);
    expect((await other.queue.due(allShards, Math.floor(other.clock.nowMs() / 1000), 10)).entries).toEqual([]);
  });

  it('waits for the store through an outage and then delivers', async () => {
    const node = await openNode();
    const alice = await node.account('alice@example.test');
    const { port } = await node.listen();
    const kv = node.kv as MemoryStore;
    let count = 0;
    // The outage begins with the commit after the acceptance.
    kv.faults.delayMs = (operation) => {
      if (operation === 'commit' && ++count === 2) kv.faults.outage = true;
      return undefined;
    };
    expect((await post(port, { to: 'alice@example.test' }))[0]!.code).toBe(250);
    for (let i = 0; i < 100 && !kv.faults.outage; i++) await node.clock.sleep(5);
    expect(kv.faults.outage).toBe(true);
    await node.clock.sleep(50);
    kv.faults.clear();
    await node.settled();
    expect(await node.mailbox(alice)).toHaveLength(1);
  });
});
