import { hash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../ops/telemetry/index.js';
import { keyItems, keysUnder, subspace } from '../../store/keyspace.js';
import { type KvStore, type MemoryStore, openEmbeddedStore, openMemoryStore } from '../../store/kv/index.js';
import { post, queueLeftovers, startTestNode, type TestNode, type TestNodeOptions } from './testing/node.js';

const opened: TestNode[] = [];
const cleanups: (() => Promise<void>)[] = [];

async function openNode(options: Partial<TestNodeOptions> = {}) {
  const kv = options.kv ?? openMemoryStore();
  const node = await startTestNode({ ...options, kv });
  opened.push(node);
  return node;
}

afterEach(async () => {
  for (const node of opened.splice(0)) await node.close();
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

const plain = 'Subject: hello\r\nMessage-ID: <m1@remote.test>\r\nFrom: <sender@remote.test>\r\n\r\nHello.\r\n';

async function onEveryStore(): Promise<[string, KvStore][]> {
  const directory = await mkdtemp(join(tmpdir(), 'mailflow-'));
  const embedded = await openEmbeddedStore({ directory, durability: 'none', logger: silentLogger });
  cleanups.push(async () => {
    await embedded.close();
    await rm(directory, { recursive: true, force: true });
  });
  return [
    ['memory', openMemoryStore()],
    ['embedded', embedded],
  ];
}

describe('from SMTP into a mailbox', () => {
  it('delivers once, with trace fields in front and the bytes untouched behind, and leaves nothing in the queue', async () => {
    for (const [, kv] of await onEveryStore()) {
      const node = await openNode({ kv });
      const alice = await node.account('alice@example.test');
      const { port } = await node.listen();
      const [result] = await post(port, { to: 'Alice@example.test' });
      expect(result).toMatchObject({ code: 250, outcome: 'delivered' });
      const id = /queued as ([0-9a-v]{20})/.exec(result!.text)![1]!;
      await node.settled();
      const [message, ...others] = await node.mailbox(alice);
      expect(others).toEqual([]);
      const trace = message!.slice(0, message!.length - plain.length);
      expect(message!.endsWith(plain)).toBe(true);
      expect(trace.replace(/;\r\n\t.*\r\n$/, ';\r\n\tDATE\r\n')).toBe(
        'Return-Path: <sender@remote.test>\r\n' +
          'Received: from client.remote.test ([127.0.0.1])\r\n' +
          `\tby mx.example.test with ESMTP id ${id}\r\n\tfor <Alice@example.test>;\r\n\tDATE\r\n`,
      );
      expect(await queueLeftovers(kv)).toEqual([]);
      expect(await node.mail.recount(alice)).toEqual({ differences: [] });
      // Its content is named by time: by digest alone it would cost a long queue pages of its own.
      const { begin, end } = keysUnder(subspace.blob, 'head');
      const [head, ...more] = await kv.read((reads) => reads.getRange(begin, end));
      expect(more).toEqual([]);
      const blobId = keyItems(head!.key)[2] as string;
      const digest = hash('sha256', Buffer.from(message!, 'latin1'), 'hex');
      expect(blobId).not.toBe(digest);
      expect(blobId.slice(14)).toBe(digest.slice(14));
    }
  });

  it('refuses unknown, disabled and foreign recipients, and keeps the others', async () => {
    const node = await openNode();
    const alice = await node.account('alice@example.test');
    await node.account('gone@example.test');
    await node.directory.updatePrincipal('gone@example.test', { isEnabled: false });
    const { port } = await node.listen();
    const to = ['nobody@example.test', 'gone@example.test', 'x@elsewhere.test', 'alice@example.test'];
    const results = await post(port, { to });
    expect(results.map(({ code, enhanced }) => [code, enhanced])).toEqual([
      [550, '5.1.1'],
      [550, '5.2.1'],
      [550, '5.7.1'],
      [250, '2.0.0'],
    ]);
    await node.settled();
    expect(await node.mailbox(alice)).toHaveLength(1);
  });

  it('accepts postmaster without a domain and of any local domain', async () => {
    const node = await openNode();
    const postmaster = await node.account('postmaster@example.test');
    await node.directory.createDomain('other.test');
    const { port } = await node.listen();
    expect((await post(port, { to: ['postmaster', 'Postmaster@other.test'] })).map(({ code }) => code)).toEqual([250, 250]);
    await node.settled();
    expect(await node.mailbox(postmaster)).toHaveLength(1);
  });

  it('takes mail for the postmaster to an administrator where our own name is no domain of ours', async () => {
    const node = await openNode({ settings: { postmasterAddress: 'postmaster@mx.elsewhere.test' } });
    const admin = await node.account('root@example.test');
    const { port } = await node.listen();
    expect((await post(port, { to: 'postmaster' })).map(({ code }) => code)).toEqual([550]);
    await node.directory.updatePrincipal('root@example.test', { isAdmin: true });
    const recipients = [{ address: 'Postmaster' }, { address: 'postmaster@Example.test' }];
    expect((await post(port, { to: [], recipients })).map(({ code }) => code)).toEqual([250, 250]);
    await node.settled();
    expect(await node.mailbox(admin)).toHaveLength(1);
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it('delivers one copy through aliases, and into the mailbox that a subaddress names', async () => {
    const node = await openNode();
    const alice = await node.account('alice@example.test', { aliases: ['al@example.test'] });
    await node.mail.createMailbox(alice, ['Lists']);
    const { port } = await node.listen();
    await post(port, { to: ['alice@example.test', 'al@example.test', 'ALICE@example.test'] });
    await post(port, { to: 'alice+Lists@example.test' });
    await post(port, { to: 'alice+nowhere@example.test' });
    await node.settled();
    expect(await node.mailbox(alice)).toHaveLength(2);
    expect(await node.mailbox(alice, ['Lists'])).toHaveLength(1);
  });

  it('takes what has no owner to the catch-all address of its domain, where there is one', async () => {
    const node = await openNode();
    const alice = await node.account('alice@example.test');
    await node.account('carol@strict.test');
    await node.directory.updateDomain('example.test', { catchAll: 'alice@example.test' });
    const { port } = await node.listen();
    const answers = await post(port, { to: ['nobody+at-all@example.test', 'nobody@strict.test'] });
    expect(answers.map(({ code }) => code)).toEqual([250, 550]);
    await node.settled();
    expect(await node.mailbox(alice)).toHaveLength(1);
  });

  it('says at RCPT that a mailbox is full', async () => {
    const node = await openNode();
    const small = await node.account('small@example.test', { quotaLimitBytes: 2000 });
    const { port } = await node.listen();
    await post(port, { to: 'small@example.test', text: `Subject: big\r\n\r\n${'x'.repeat(60)}\r\n`.padEnd(1500, 'y\r\n') });
    await node.settled();
    expect(await node.mailbox(small)).toHaveLength(1);
    const [full] = await post(port, { to: 'small@example.test', text: `Subject: more\r\n\r\n${'x'.repeat(900)}\r\n` });
    expect(full).toMatchObject({ code: 452, enhanced: '4.2.2' });
  });

  it('tries a mailbox that became full again, while the other recipients have theirs, and bounces at the end', async () => {
    const node = await openNode({ settings: { messageLifetimeSeconds: 600 } });
    const sender = await node.account('sender@example.test');
    const bob = await node.account('bob@example.test');
    await node.account('small@example.test');
    const { port } = await node.listen();
    // Between RCPT and delivery the limit is set.
    await node.runner.stop();
    const late = await openNode({ kv: node.kv, clock: node.clock, settings: node.settings(), isRunning: false });
    await post(port, { from: 'sender@example.test', to: ['small@example.test', 'bob@example.test'] });
    await node.directory.updatePrincipal('small@example.test', { quotaLimitBytes: 10 });
    await late.membership.join({ isStoreExclusive: true });
    late.runner.start();
    await late.settled();
    expect(await node.mailbox(bob)).toHaveLength(1);
    const destinations = (await late.queue.list())[0]!.destinations;
    expect(destinations[0]).toMatchObject({ attempts: 1 });
    expect(destinations[0]!.recipients).toMatchObject([
      { address: 'small@example.test', status: 'pending', lastReply: { code: 452, enhanced: '4.2.2' } },
      { address: 'bob@example.test', status: 'delivered' },
    ]);
    node.clock.shiftMs += 700_000;
    late.runner.wake();
    await late.settled();
    const [bounce] = await node.mailbox(sender);
    expect(bounce).toContain('Final-Recipient: rfc822; small@example.test\r\nAction: failed\r\nStatus: 4.2.2\r\n');
    expect(bounce).not.toContain('bob@example.test');
    expect(await node.mailbox(bob)).toHaveLength(1);
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it('refuses loops and headers that are too large, and leaves no bytes behind', async () => {
    const node = await openNode({ settings: { maxHeaderBytes: 20_000 } });
    const alice = await node.account('alice@example.test');
    const { port } = await node.listen();
    const hops = (count: number) => `${'Received: from a by b; Mon, 1 Jan 2026 00:00:00 +0000\r\n'.repeat(count)}${plain}`;
    expect((await post(port, { to: 'alice@example.test', text: hops(51) }))[0]).toMatchObject({ code: 554, enhanced: '5.4.6' });
    expect((await post(port, { to: 'alice@example.test', text: hops(50) }))[0]).toMatchObject({ code: 250 });
    const long = `X-Long: ${'x'.repeat(900)}\r\n`.repeat(30);
    expect((await post(port, { to: 'alice@example.test', text: `${long}\r\nbody\r\n` }))[0]).toMatchObject({
      code: 552,
      enhanced: '5.3.4',
    });
    expect((await post(port, { to: 'alice@example.test', text: ' folded\r\n\r\nbody\r\n' }))[0]).toMatchObject({
      code: 554,
      enhanced: '5.6.0',
    });
    await node.settled();
    expect(await node.mailbox(alice)).toHaveLength(1);
  });

  it('takes large messages, messages without header, and empty ones', async () => {
    const node = await openNode();
    const alice = await node.account('alice@example.test');
    const { port } = await node.listen();
    const large = `Subject: large\r\n\r\n${`${'0123456789abcdef'.repeat(4)}\r\n`.repeat(60_000)}`;
    const bodies = [large, '\r\nonly a body\r\n', ''];
    for (const text of bodies) expect((await post(port, { to: 'alice@example.test', text }))[0]!.code).toBe(250);
    await node.settled();
    const delivered = await node.mailbox(alice);
    expect(delivered).toHaveLength(3);
    for (const text of bodies) expect(delivered.some((one) => one.endsWith(`+0000\r\n${text}`))).toBe(true);
    expect(await node.mail.recount(alice)).toEqual({ differences: [] });
  });

  it('answers 452 when the store is full and 451 when it is away, and keeps nothing', async () => {
    const node = await openNode();
    await node.account('alice@example.test');
    const { port } = await node.listen();
    const kv = node.kv as MemoryStore;
    const away = async (session: () => Promise<{ code: number }[]>) => {
      try {
        return (await session())[0]!.code;
      } finally {
        kv.faults.clear();
      }
    };
    // Known to the directory's memory, so that RCPT needs no read.
    await post(port, { to: 'alice@example.test' });
    await node.settled();
    kv.faults.outage = true;
    expect(await away(() => post(port, { to: 'alice@example.test' }))).toBe(451);
    expect((await post(port, { to: 'alice@example.test' }))[0]!.code).toBe(250);
    await node.settled();
    expect(await queueLeftovers(kv)).toEqual([]);
  });
});

describe('lists and groups', () => {
  it('expands a list once, with a new reverse-path and List-Id, and never a report or its own mail', async () => {
    const node = await openNode();
    const alice = await node.account('alice@example.test');
    const bob = await node.account('bob@example.test');
    await node.account('postmaster@example.test');
    const members = ['alice@example.test', 'bob@example.test'];
    await node.directory.createPrincipal({ kind: 'list', address: 'all@example.test', members });
    const { port } = await node.listen();
    await post(port, { to: ['all@example.test'] });
    await post(port, { from: '', to: ['all@example.test'] });
    await node.settled();
    for (const account of [alice, bob]) {
      const [message, ...more] = await node.mailbox(account);
      expect(more).toEqual([]);
      expect(message).toMatch(
        /^Return-Path: <postmaster@example\.test>\r\nList-Id: <all\.example\.test>\r\nList-Post: <mailto:all@example\.test>\r\nSender: <all@example\.test>\r\n/,
      );
      expect(message!.match(/^Return-Path:/gm)).toHaveLength(1);
      expect(message!.endsWith(plain)).toBe(true);
    }
    const echo = (await node.mailbox(alice))[0]!.replace(/^Return-Path:.*\r\n/, '');
    await post(port, { to: ['all@example.test'], from: '', text: echo });
    await node.settled();
    expect(await node.mailbox(bob)).toHaveLength(1);
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it('delivers to more accounts than one transaction takes, some of them refusing', async () => {
    const node = await openNode();
    const ids: string[] = [];
    for (let i = 0; i < 45; i++)
      ids.push(await node.account(`m${i}@example.test`, { quotaLimitBytes: i === 7 ? 10 : undefined }));
    const members = ids.map((_, i) => `m${i}@example.test`);
    await node.directory.createPrincipal({ kind: 'list', address: 'many@example.test', members });
    const { port } = await node.listen();
    await post(port, { from: '', to: members });
    await post(port, { to: 'many@example.test' });
    await node.settled();
    const counts = await Promise.all(ids.map(async (id) => (await node.mailbox(id)).length));
    expect(counts).toEqual(ids.map((_, i) => (i === 7 ? 0 : 2)));
    const left = await node.queue.list();
    const pending = left
      .flatMap(({ destinations }) => destinations.flatMap(({ recipients }) => recipients))
      .filter((one) => one.status === 'pending');
    expect(pending.map(({ address }) => address)).toEqual(['m7@example.test']);
  });

  it('delivers to a group’s own mailbox', async () => {
    const node = await openNode();
    await node.account('alice@example.test');
    const { id } = await node.directory.createPrincipal({
      kind: 'group',
      address: 'team@example.test',
      members: ['alice@example.test'],
    });
    const { port } = await node.listen();
    await post(port, { to: 'team@example.test' });
    await node.settled();
    expect(await node.mailbox(id)).toHaveLength(1);
  });
});

describe('submission', () => {
  const password = 'correct horse battery';

  it('asks for authentication and for a sender that is the user’s own', async () => {
    const node = await openNode({ settings: { fromFieldMustMatch: true } });
    await node.account('alice@example.test', { password });
    const bob = await node.account('bob@example.test');
    const { port } = await node.listen('submission');
    const auth = { login: 'alice@example.test', password };
    expect((await post(port, { from: 'alice@example.test', to: 'bob@example.test' }))[0]).toMatchObject({ code: 530 });
    expect((await post(port, { from: 'bob@example.test', to: 'bob@example.test', auth }))[0]).toMatchObject({
      code: 553,
      enhanced: '5.7.1',
    });
    const forged = 'From: <bob@example.test>\r\nSubject: x\r\n\r\nx\r\n';
    const refused = await post(port, { from: 'alice@example.test', to: 'bob@example.test', auth, text: forged });
    expect(refused[0]).toMatchObject({ code: 550, enhanced: '5.7.1' });
    const double = 'From: <alice@example.test>\r\nFrom: <bob@example.test>\r\n\r\nx\r\n';
    expect((await post(port, { from: 'alice@example.test', to: 'bob@example.test', auth, text: double }))[0]).toMatchObject({
      code: 554,
    });
    const text = 'From: Alice\r\n <alice+x@example.test>\r\nSubject: x\r\n\r\nx\r\n';
    expect((await post(port, { from: 'alice@example.test', to: 'bob@example.test', auth, text }))[0]).toMatchObject({
      code: 250,
    });
    await node.settled();
    const [message] = await node.mailbox(bob);
    expect(message).toMatch(/with ESMTPSA id [0-9a-v]{20}\r\n/);
    expect(message).toMatch(/\r\nDate: [^\r\n]+\r\nMessage-ID: <[0-9a-v]{20}@mx\.example\.test>\r\nFrom: Alice\r\n/);
    expect(message!.endsWith(text)).toBe(true);
  });
});

describe('the From field', () => {
  const password = 'correct horse battery';

  it('is the user’s own business unless a setting says otherwise', async () => {
    const node = await openNode();
    await node.account('alice@example.test', { password });
    await node.account('bob@example.test');
    const { port } = await node.listen('submission');
    const auth = { login: 'alice@example.test', password };
    const text = 'From: <bob@example.test>\r\nSubject: x\r\n\r\nx\r\n';
    const replies = await post(port, { from: 'alice@example.test', to: 'bob@example.test', auth, text });
    expect(replies[0]).toMatchObject({ code: 250 });
    await node.settled();
  });
});

describe('LMTP', () => {
  it('takes messages for local recipients', async () => {
    const node = await openNode();
    const alice = await node.account('alice@example.test');
    const server = await node.listen('lmtp');
    const { SmtpClient } = await import('../../protocols/smtp/client/client.js');
    const client = await SmtpClient.connect({
      address: '127.0.0.1',
      port: server.port,
      heloName: 'c',
      protocol: 'lmtp',
      tls: { mode: 'none' },
    });
    const body = Buffer.from(plain);
    const { recipients } = await client.send({
      from: 'x@remote.test',
      recipients: [{ address: 'alice@example.test' }, { address: 'nobody@example.test' }],
      body: {
        sizeBytes: body.length,
        eightBit: false,
        utf8: false,
        open: async function* () {
          yield body;
        },
      },
    });
    await client.quit();
    expect(recipients.map(({ code }) => code)).toEqual([250, 550]);
    await node.settled();
    expect((await node.mailbox(alice))[0]).toContain('with LMTP id');
  });
});

describe('many recipients', () => {
  it('takes 10,000 recipients in one message and gives each account one copy per part of it', async () => {
    const node = await openNode();
    const ids: string[] = [];
    const aliases = (account: number) => Array.from({ length: 99 }, (_, i) => `u${account}x${i}@example.test`);
    for (let i = 0; i < 4; i++) ids.push(await node.account(`u${i}@example.test`, { aliases: aliases(i) }));
    await node.directory.updateDomain('example.test', { catchAll: 'u0@example.test' });
    const server = await node.listen('mx', { limits: { maxRecipients: 10_000 } });
    const to = Array.from({ length: 10_000 }, (_, i) => (i < 396 ? aliases(i % 4)[Math.floor(i / 4)]! : `any${i}@example.test`));
    const results = await post(server.port, { to });
    expect(results.every(({ code }) => code === 250)).toBe(true);
    await node.settled();
    const counts = await Promise.all(ids.map(async (id) => (await node.mail.usage(id)).messages));
    // One copy per account and part of 100 recipients: the aliases fill the first four parts, the catch-all has the others.
    expect(counts).toEqual([100, 4, 4, 4]);
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });
});
