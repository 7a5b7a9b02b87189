import { randomBytes } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import type { OutgoingMessage, RecipientResult, SendResult } from '../../protocols/smtp/client/contract.js';
import type { LocalTarget, Resolution } from '../../store/directory/contract.js';
import { key, keysUnder, subspace } from '../../store/keyspace.js';
import { type MemoryStore, openMemoryStore } from '../../store/kv/index.js';
import type { NewQueueMessage } from '../../store/queue/index.js';
import { createDelivery } from './index.js';
import { post, queueLeftovers, startTestNode, type TestNode, type TestNodeOptions } from './testing/node.js';

const opened: TestNode[] = [];

async function openNode(options: Partial<TestNodeOptions> = {}) {
  const node = await startTestNode({ ...options, kv: options.kv ?? openMemoryStore() });
  opened.push(node);
  return node;
}

afterEach(async () => {
  for (const node of opened.splice(0)) await node.close();
});

const delivered = { outcome: 'delivered', code: 250, enhanced: '2.0.0', text: 'Ok', stage: 'end-of-data', wide: true } as const;

type Answer = (message: OutgoingMessage, signal?: AbortSignal) => Promise<Omit<RecipientResult, 'address'>[]>;

/** A node that does not run, and remote delivery whose hosts answer as told. */
async function openRemote(hosts: Record<string, Answer>, settings: TestNodeOptions['settings'] = {}) {
  const node = await openNode({ isRunning: false, settings });
  await node.membership.join();
  const names = Object.keys(hosts);
  node.resolver.mailHosts.set('remote.test', names);
  for (const name of names) node.resolver.addresses.set(name, '192.0.2.1');
  /** What each host was offered. */
  const offered: [string, string[]][] = [];
  const delivery = createDelivery({
    ...node,
    connect: async ({ hostname = '' }) => ({
      async send(message, signal): Promise<SendResult> {
        const addresses = message.recipients.map(({ address }) => address);
        offered.push([hostname, addresses]);
        const answers = await hosts[hostname]!(message, signal);
        return {
          recipients: answers.map((answer, at) => ({ ...answer, address: addresses[at]! })),
          dsnPassedOn: false,
          reusable: false,
        };
      },
      quit: async () => {},
      destroy: () => {},
    }),
  });
  return { node, delivery, offered, faults: (node.kv as MemoryStore).faults };
}

async function claimOne(node: TestNode, more: Partial<NewQueueMessage>) {
  const nowMs = node.clock.nowMs();
  const message: NewQueueMessage = {
    id: node.queue.newId(),
    blob: node.blobs.prepare(Buffer.from('Subject: x\r\n\r\nx\r\n')),
    relayOffsetBytes: 0,
    from: '',
    receivedAtMs: nowMs,
    expiresAtMs: nowMs + 100_000,
    isUtf8: false,
    body: '7BIT',
    priority: 0,
    source: { protocol: 'local' },
    destinations: [],
    ...more,
  };
  const [claimed] = await node.kv.transact((tx) => node.queue.enqueue(tx, message, { nowSeconds: 1, claimFor: node.node }));
  return claimed!;
}

const remote = (...addresses: string[]) => [
  { domain: 'remote.test', isLocal: false, recipients: addresses.map((address) => ({ address })) },
];

describe('remote delivery and a store that goes away', () => {
  it('offers nobody again whom a peer has taken, when the message can not be read for the next host', async () => {
    const { node, delivery, offered, faults } = await openRemote({
      // The first host takes no internationalized addresses.
      'mx1.remote.test': async ({ recipients }) =>
        recipients.map(({ address }) =>
          address.startsWith('ü')
            ? { outcome: 'permanent', code: 0, enhanced: '5.6.7', text: 'needs SMTPUTF8', stage: 'mail', wide: true }
            : delivered,
        ),
      'mx2.remote.test': async ({ recipients, body }) => {
        try {
          for await (const _ of body.open());
          return recipients.map(() => delivered);
        } catch {
          return recipients.map(() => ({
            outcome: 'temporary',
            code: 0,
            enhanced: '4.3.0',
            text: '',
            stage: 'data',
            wide: true,
          }));
        }
      },
    });
    const claimed = await claimOne(node, { destinations: remote('bob@remote.test', 'ü@remote.test') });
    // Four commits: the message, the fence, the first host's result; the content of the second one's is not to be had.
    faults.delayMs = (operation) => {
      if (operation === 'begin' && offered.length === 2) faults.outage = true;
      return undefined;
    };
    const { signal } = new AbortController();
    await expect(delivery.deliver({ claimed }, signal)).rejects.toMatchObject({ code: 'unavailable' });
    faults.clear();
    offered.length = 0;
    await delivery.deliver({ claimed }, signal);
    expect(offered).toEqual([
      ['mx1.remote.test', ['ü@remote.test']],
      ['mx2.remote.test', ['ü@remote.test']],
    ]);
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it('insists on saving what a peer has taken also when the time for the delivery is over', async () => {
    const { node, delivery, offered, faults } = await openRemote(
      {
        'mx1.remote.test': async ({ recipients }) => {
          faults.outage = true;
          return recipients.map(() => delivered);
        },
      },
      { maxRemoteDeliverySeconds: 0.05 },
    );
    const claimed = await claimOne(node, { destinations: remote('bob@remote.test') });
    const delivering = delivery.deliver({ claimed }, new AbortController().signal);
    await node.clock.sleep(150);
    faults.clear();
    await delivering;
    expect(offered).toHaveLength(1);
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it('ends a conversation when its time is over, and when the node stops', async () => {
    const silent: Answer = (_, signal) =>
      new Promise((_, reject) => signal!.addEventListener('abort', () => reject(signal!.reason), { once: true }));
    const { node, delivery, offered } = await openRemote({ 'mx1.remote.test': silent }, { maxRemoteDeliverySeconds: 0.05 });
    const late = await claimOne(node, { destinations: remote('bob@remote.test') });
    await delivery.deliver({ claimed: late }, new AbortController().signal);
    const [queued] = await node.queue.list();
    expect(queued!.destinations[0]).toMatchObject({ state: 'due', recipients: [{ lastReply: { enhanced: '4.4.2' } }] });
    const stopping = new AbortController();
    const cut = await claimOne(node, { destinations: remote('bob@remote.test') });
    const delivering = delivery.deliver({ claimed: cut }, stopping.signal);
    for (let i = 0; i < 200 && offered.length < 2; i++) await node.clock.sleep(1);
    stopping.abort(new Error('stopping'));
    await expect(delivering).rejects.toThrow('stopping');
  });
});

describe('content that is damaged or odd', () => {
  const sender = 'sender@example.test';

  it('tells the sender at the end of the message’s time, although its content can not be read', async () => {
    const node = await openNode({ isRunning: false });
    const alice = await node.account('alice@example.test');
    const back = await node.account(sender);
    await node.membership.join();
    const claimed = await claimOne(node, {
      from: sender,
      destinations: [{ domain: 'example.test', isLocal: true, recipients: [{ address: 'alice@example.test' }] }],
    });
    const headKey = key(subspace.blob, 'head', claimed.message.blobId);
    await node.kv.transact(async (tx) => {
      const head = (await tx.get(headKey))!;
      head[head.length - 1]! ^= 1;
      tx.set(headKey, head);
    });
    const { signal } = new AbortController();
    const damaged = await node.delivery.deliver({ claimed }, signal).catch((error: unknown) => error);
    expect(damaged).toMatchObject({ name: 'BlobCorrupt' });
    node.clock.shiftMs += 200_000;
    await node.delivery.putOff({ claimed }, damaged);
    node.runner.start();
    await node.settled();
    expect(await node.mailbox(alice)).toEqual([]);
    const [report] = await node.mailbox(back);
    expect(report).toContain('Undelivered mail');
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it('returns no more than a report can hold, whatever is set', async () => {
    const node = await openNode({ settings: { maxReturnedBytes: 100_000_000, maxHeaderBytes: 100_000_000 } });
    const back = await node.account(sender);
    const { port } = await node.listen('mx', { limits: { maxMessageBytes: 20_000_000 } });
    for (const separator of ['\r\n\r\n', '\r\nX-Long: ']) {
      const line = `${'x'.repeat(900)}\r\n `;
      // Gone by the time it is delivered.
      const gone = await node.account('gone@example.test');
      expect(gone).toBeTruthy();
      node.runner.hasRoom = () => false;
      const announce = node.queue.announceDue;
      node.queue.announceDue = () => {};
      const text = `Subject: big${separator}${line.repeat(6_000)}\r\n\r\nend\r\n`;
      const [result] = await post(port, { from: sender, to: 'gone@example.test', text });
      expect(result!.code).toBe(250);
      await node.directory.removePrincipal('gone@example.test');
      node.queue.announceDue = announce;
      node.runner.wake();
      await node.settled();
    }
    const reports = await node.mailbox(back);
    expect(reports).toHaveLength(2);
    for (const report of reports) expect(report).toContain('550 5.1.1');
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });
});

describe('recipients of every kind', () => {
  it('gives one copy for addresses that differ in case, are given twice, or are aliases, composed or not', async () => {
    const node = await openNode();
    const alice = await node.account('alice@example.test', { aliases: ['al@example.test'] });
    const josé = await node.account('jos\u00e9@example.test');
    const { port } = await node.listen();
    const to = [
      'alice@example.test',
      'ALICE@example.test',
      'alice@EXAMPLE.TEST',
      'alice@example.test',
      'al@example.test',
      'jos\u00e9@example.test',
      'jose\u0301@example.test',
      'JOS\u00c9@example.test',
    ];
    for (const { code } of await post(port, { to })) expect(code).toBe(250);
    await node.settled();
    expect(await node.mailbox(alice)).toHaveLength(1);
    expect(await node.mailbox(josé)).toHaveLength(1);
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it('finds a mailbox for every subaddress that a stranger can think of', async () => {
    const node = await openNode();
    const alice = await node.account('alice@example.test');
    const { port } = await node.listen();
    const details = ['/', 'a//b', 'a/b', '%', 'x'.repeat(50), 'a/'.repeat(20), 'INBOX', 'inbox/', '\u{1f600}', '+', '++', '*'];
    for (const detail of details) {
      const [result] = await post(port, { to: `alice+${detail}@example.test` });
      expect([detail, result!.code]).toEqual([detail, 250]);
    }
    await node.settled();
    expect(await node.mailbox(alice)).toHaveLength(details.length);
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it('expands lists in batches that are too large for one transaction', async () => {
    const node = await openNode({ isRunning: false });
    await node.account('alice@example.test');
    await node.membership.join();
    const resolve = node.directory.resolve;
    const members = (list: string) =>
      Array.from({ length: 9_000 }, (_, i) => `${list[0]}${'m'.repeat(200)}${i}@${'d'.repeat(50)}.test`);
    node.directory.resolve = async (address): Promise<Resolution> => {
      if (!address.startsWith('list')) return resolve(address);
      return { kind: 'local', targets: [] as LocalTarget[], remote: members(address), listAddress: address };
    };
    const delivery = createDelivery(node);
    const lists = Array.from({ length: 6 }, (_, i) => ({ address: `list${i}@example.test` }));
    const claimed = await claimOne(node, {
      from: 'someone@remote.test',
      destinations: [{ domain: 'example.test', isLocal: true, recipients: lists }],
    });
    await delivery.deliver({ claimed }, new AbortController().signal);
    const queued = await node.queue.list();
    // A message for each thousand.
    expect(queued).toHaveLength(6 * 9);
    for (const { message } of queued) expect(message.id).not.toBe(claimed.message.id);
    const all = queued.flatMap(({ destinations }) => destinations.flatMap(({ recipients }) => recipients));
    expect(new Set(all.map(({ address }) => address)).size).toBe(9_000);
    expect(all).toHaveLength(54_000);
  });

  it('leaves no upload behind when the second of two lists can not be expanded', async () => {
    const node = await openNode({ isRunning: false });
    await node.account('alice@example.test');
    await node.membership.join();
    const list = (address: string): Resolution => ({
      kind: 'local',
      targets: [],
      remote: ['a@remote.test'],
      listAddress: address,
    });
    const directory = {
      ...node.directory,
      resolve: async (address: string) => {
        if (address.startsWith('second')) throw new TypeError('a bug');
        return list(address);
      },
    };
    const delivery = createDelivery({ ...node, directory });
    const writer = node.blobs.writer();
    await writer.write(randomBytes(300_000));
    const claimed = await claimOne(node, {
      from: 'someone@remote.test',
      blob: await writer.finish(),
      destinations: [
        {
          domain: 'example.test',
          isLocal: true,
          recipients: [{ address: 'first@example.test' }, { address: 'second@example.test' }],
        },
      ],
    });
    await expect(delivery.deliver({ claimed }, new AbortController().signal)).rejects.toThrow('a bug');
    const uploads = keysUnder(subspace.blob, 'upload');
    expect(await node.kv.read((reads) => reads.getRange(uploads.begin, uploads.end))).toEqual([]);
  });
});
