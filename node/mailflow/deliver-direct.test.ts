import { afterEach, describe, expect, it } from 'vitest';
import { type KvStore, MemoryDatabase, openMemoryStore } from '../../store/kv/index.js';
import { createDirectDelivery } from './deliver-direct.js';
import { post, queueLeftovers, startTestNode, type TestNode } from './testing/node.js';

const opened: TestNode[] = [];
afterEach(async () => {
  for (const node of opened.splice(0)) await node.close();
});

/** A node whose queue works nothing: what is in a mailbox came there on the short way. */
async function openNode(kv: KvStore = openMemoryStore()) {
  const node = await startTestNode({ kv, isDirect: true, isRunning: false });
  await node.membership.join();
  opened.push(node);
  return node;
}

const text = 'Subject: hello\r\nMessage-ID: <m1@remote.test>\r\n\r\nHello.\r\n';

describe('the short way', () => {
  it('ends in the mailbox before the 250, with the trace fields in front', async () => {
    const node = await openNode();
    const alice = await node.account('alice@example.test', { aliases: ['al@example.test'] });
    const { port } = await node.listen();
    const [result] = await post(port, { to: 'al@example.test', text });
    expect(result!.code).toBe(250);
    const [message, ...others] = await node.mailbox(alice);
    expect(others).toEqual([]);
    expect(message).toMatch(/^Return-Path: <sender@remote\.test>\r\nReceived: from /);
    expect(message).toContain(/queued as (\S+)/.exec(result!.text)![1]);
    expect(message!.endsWith(text)).toBe(true);
    expect(await queueLeftovers(node.kv)).toEqual([]);
    expect(await node.mail.recount(alice)).toEqual({ differences: [] });
  });

  it('takes a subaddress to the mailbox that it names', async () => {
    const node = await openNode();
    const alice = await node.account('alice@example.test');
    await node.mail.createMailbox(alice, ['news']);
    const { port } = await node.listen();
    await post(port, { to: 'alice+news@example.test', text });
    expect(await node.mailbox(alice)).toEqual([]);
    expect(await node.mailbox(alice, ['news'])).toHaveLength(1);
  });

  it.each([
    ['two recipients', { to: ['alice@example.test', 'bob@example.test'] }],
    [
      'a report of success',
      { to: 'alice@example.test', recipients: [{ address: 'alice@example.test', notify: ['SUCCESS' as const] }] },
    ],
    ['a list', { to: 'list@example.test' }],
    [
      'a message that was not kept in memory',
      { to: 'alice@example.test', text: `Subject: x\r\n\r\n${'0123456789\r\n'.repeat(8_000)}` },
    ],
  ])('leaves %s to the queue', async (_what, posted) => {
    const node = await openNode();
    const alice = await node.account('alice@example.test');
    await node.account('bob@example.test');
    await node.directory.createPrincipal({ kind: 'list', address: 'list@example.test', members: ['alice@example.test'] });
    const { port } = await node.listen();
    const results = await post(port, { text, ...posted });
    expect(results.map(({ code }) => code)).toEqual(results.map(() => 250));
    expect(await node.mailbox(alice)).toEqual([]);
    expect(await node.queue.list()).toHaveLength(1);
  });

  it('leaves what a mailbox has no room for any more to the queue, and takes what fits', async () => {
    const node = await openNode();
    const alice = await node.account('alice@example.test', { quotaLimitBytes: 30_000 });
    const { port } = await node.listen();
    // Both are accepted at RCPT, where there is room for either.
    (node.kv as ReturnType<typeof openMemoryStore>).faults.delayMs = (operation) => (operation === 'commit' ? 20 : undefined);
    const large = `Subject: large\r\n\r\n${'0123456789\r\n'.repeat(1_700)}`;
    const results = await Promise.all([1, 2].map(() => post(port, { to: 'alice@example.test', text: large })));
    expect(results.map(([result]) => result!.code)).toEqual([250, 250]);
    expect(await node.mailbox(alice)).toHaveLength(1);
    expect(await node.queue.list()).toHaveLength(1);
    expect(await node.mail.recount(alice)).toEqual({ differences: [] });
  });

  it('keeps nothing and says so when the store is away', async () => {
    const kv = openMemoryStore();
    const node = await openNode(kv);
    const alice = await node.account('alice@example.test');
    const { port } = await node.listen();
    await post(port, { to: 'alice@example.test', text });
    kv.faults.delayMs = (operation) => {
      if (operation === 'commit') kv.faults.outage = true;
      return undefined;
    };
    const [result] = await post(port, { to: 'alice@example.test', text });
    expect(result!.code).toBe(451);
    kv.faults.clear();
    expect(await node.mailbox(alice)).toHaveLength(1);
    expect(await queueLeftovers(kv)).toEqual([]);
  });

  it('does not bring back what its owner has removed before an unknown commit was known', async () => {
    const database = new MemoryDatabase();
    const other = await openNode(openMemoryStore({ database }));
    const alice = await other.account('alice@example.test');
    const store = openMemoryStore({ database });
    let runs = 0;
    /** As a client on another node does at once, while the connection of this one to the store is down. */
    const removeAll = async () => {
      const { mailbox: inbox } = (await other.mail.mailboxByPath(alice, ['INBOX']))!;
      const uids = (await other.mail.entries(alice, inbox.id)).map(({ uid }) => uid);
      expect(await other.mail.expunge(alice, inbox.id, uids, { onlyDeleted: false })).toHaveLength(1);
    };
    const kv: KvStore = {
      backend: 'memory',
      transact: (body, options) => {
        if (options?.label !== 'deliver-direct') return store.transact(body, options);
        store.faults.nextCommit = 'applied';
        return store.transact(async (tx) => {
          if (++runs === 2) await removeAll();
          return body(tx);
        }, options);
      },
      transactVersioned: (body, options) => store.transactVersioned(body, options),
      read: (body, options) => store.read(body, options),
      check: () => store.check(),
      close: () => store.close(),
    };
    const node = await openNode(kv);
    const { port } = await node.listen();
    expect((await post(port, { to: 'alice@example.test', text }))[0]!.code).toBe(250);
    expect(runs).toBe(2);
    expect(await node.mailbox(alice)).toEqual([]);
    expect(await queueLeftovers(kv)).toEqual([]);
  });

  it.each([
    ['the short way', 'deliver-direct', 'alice@example.test'],
    ['the queue', 'deliver', 'alice@example.test'],
    ['the queue to several', 'settle', ['alice@example.test', 'bob@example.test']],
  ])('tells of a message whose commit was unknown, by %s', async (_way, label, to) => {
    const kv = openMemoryStore();
    const node = await startTestNode({ kv, isDirect: label === 'deliver-direct' });
    opened.push(node);
    const alice = await node.account('alice@example.test');
    await node.account('bob@example.test');
    const before = (await node.mail.usage(alice)).modseq;
    const told: number[] = [];
    node.mail.onLocalChange(({ accountId, modseq }) => accountId === alice && told.push(modseq));
    const transact = kv.transact.bind(kv);
    kv.transact = (body, options) => {
      if (options?.label === label) kv.faults.nextCommit = 'applied';
      return transact(body, options);
    };
    const { port } = await node.listen();
    expect((await post(port, { to, text }))[0]!.code).toBe(250);
    await node.settled();
    expect(await node.mailbox(alice)).toHaveLength(1);
    expect(told).toEqual([before + 1]);
  });

  it('combines what waits for one account', async () => {
    const node = await openNode();
    const alice = await node.account('alice@example.test');
    const { port } = await node.listen();
    const before = (await node.mail.usage(alice)).modseq;
    (node.kv as ReturnType<typeof openMemoryStore>).faults.delayMs = (operation) => (operation === 'commit' ? 5 : undefined);
    await Promise.all(Array.from({ length: 30 }, () => post(port, { to: 'alice@example.test', text })));
    expect(await node.mailbox(alice)).toHaveLength(30);
    expect((await node.mail.usage(alice)).modseq - before).toBeLessThan(30);
  });

  it('lets no more than a few wait for one account, also when all come at once', async () => {
    const node = await openNode();
    await node.account('alice@example.test');
    (node.kv as ReturnType<typeof openMemoryStore>).faults.delayMs = (operation) => (operation === 'commit' ? 20 : undefined);
    const direct = createDirectDelivery(node);
    const receivedAtMs = node.clock.nowMs();
    const taken = await Promise.all(
      Array.from({ length: 200 }, (_, i) => {
        const bytes = Buffer.from(`Received: number ${i}\r\n${text}`);
        const blob = node.blobs.prepare(bytes);
        return direct({ queueId: node.queue.newId(), address: 'alice@example.test', blob, bytes, receivedAtMs });
      }),
    );
    expect(taken.filter((isTaken) => isTaken).length).toBeLessThanOrEqual(64);
    expect(taken[0]).toBe(true);
  });

  it('leaves a message for an account without INBOX to the queue', async () => {
    const node = await openNode();
    await node.account('alice@example.test');
    node.mail.mailboxByPath = async () => undefined;
    const { port } = await node.listen();
    expect((await post(port, { to: 'alice@example.test', text }))[0]!.code).toBe(250);
    expect(await node.queue.list()).toHaveLength(1);
  });
});
