/** Outgoing mail from a claimed destination to real servers on real sockets, and what is saved of it. */
import type { Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { SmtpClient } from '../../../protocols/smtp/client/client.js';
import { SmtpConnectError } from '../../../protocols/smtp/client/contract.js';
import { peer, withPeer } from '../../../protocols/smtp/client/test-peers.js';
import { startTestServer, type TestServer } from '../../../protocols/smtp/testing/server.js';
import { openMemoryStore } from '../../../store/kv/index.js';
import type { DestinationHealthReport } from '../../../store/queue/destinations-contract.js';
import type { ClaimedDestination, NewQueueMessage } from '../../../store/queue/index.js';
import { createDelivery, type DeliveryDependencies } from '../delivery.js';
import { startTestNode, type TestNode } from '../testing/node.js';
import { defaultOutboundSettings, type OutboundSettings } from './contract.js';

const closing: { close(): unknown }[] = [];
const { signal } = new AbortController();

afterEach(async () => {
  for (const one of closing.splice(0)) await one.close();
});

async function serve(options: Parameters<typeof startTestServer>[0] = {}): Promise<TestServer> {
  const server = await startTestServer(options);
  closing.push(server);
  return server;
}

/** A node that does not run, whose deliveries are made one by one; mail for `remote.test` goes to this port of this machine. */
async function open(port: number, outbound: Partial<OutboundSettings> = {}, more: Partial<DeliveryDependencies> = {}) {
  const node = await startTestNode({
    kv: openMemoryStore(),
    isRunning: false,
    settings: { smtpPort: port, outbound: { ...defaultOutboundSettings, ...outbound } },
  });
  await node.membership.join();
  node.resolver.mailHosts.set('remote.test', ['mx.remote.test']);
  node.resolver.addresses.set('mx.remote.test', '127.0.0.1');
  const reports: DestinationHealthReport[] = [];
  const putOff: [string, number][] = [];
  const destinations = {
    report: async (report: DestinationHealthReport) => void reports.push(report),
    putOffProbe: async (domain: string, seconds: number) => void putOff.push([domain, seconds]),
  };
  const delivery = createDelivery({ ...node, destinations, ...more });
  closing.unshift({ close: () => delivery.close() }, node);
  return { node, delivery, reports, putOff };
}

async function claim(node: TestNode, to: string[], more: Partial<NewQueueMessage> = {}): Promise<ClaimedDestination> {
  const message: NewQueueMessage = {
    id: node.queue.newId(),
    blob: node.blobs.prepare(Buffer.from('Subject: x\r\n\r\nx\r\n')),
    relayOffsetBytes: 0,
    from: '',
    receivedAtMs: node.clock.nowMs(),
    expiresAtMs: node.clock.nowMs() + 100_000,
    isUtf8: false,
    body: '7BIT',
    priority: 0,
    source: { protocol: 'local' },
    destinations: [
      { domain: to[0]!.slice(to[0]!.indexOf('@') + 1), isLocal: false, recipients: to.map((address) => ({ address })) },
    ],
    ...more,
  };
  const [claimed] = await node.kv.transact((tx) => node.queue.enqueue(tx, message, { nowSeconds: 1, claimFor: node.node }));
  return claimed!;
}

/** What the queue holds of the message's first destination; undefined once it is done. */
const kept = async (node: TestNode) => (await node.queue.list())[0]?.destinations[0];

describe('a route', () => {
  it('by LMTP has an answer for each recipient', async () => {
    const server = await serve({ mode: 'lmtp' });
    const routes = [{ name: 'boxes', kind: 'lmtp' as const, hosts: [{ host: '127.0.0.1', port: server.port }] }];
    const { node, delivery } = await open(1, { routes, route: "rcpt_domain == 'remote.test' ? 'boxes' : ''" });
    const claimed = await claim(node, ['bob@remote.test', 'full@remote.test', 'unknown@remote.test']);
    await delivery.deliver({ claimed }, signal);
    const { recipients, attempts } = (await kept(node))!;
    expect(attempts).toBe(1);
    expect(recipients.map(({ status, lastReply }) => [status, lastReply?.code])).toEqual([
      ['relayed', 250],
      ['pending', 452],
      ['failed', 550],
    ]);
    expect(server.handler.messages[0]!.recipients).toContain('bob@remote.test');
  });

  it('named local ends in the mailboxes of those whom the directory has, once; others are unknown', async () => {
    const { node, delivery, reports } = await open(1, {
      route: "rcpt_domain in ['example.test', 'elsewhere.test'] ? 'local' : ''",
    });
    const bob = await node.account('bob@example.test');
    await node.account('sender@example.test');
    // What counted as another's domain when it was accepted.
    const claimed = await claim(node, ['bob@example.test', 'nobody@example.test'], { from: 'sender@example.test' });
    const asItWas = { ...claimed };
    await delivery.deliver({ claimed }, signal);
    expect(await node.mailbox(bob)).toHaveLength(1);
    const [bounce] = await node.queue.list();
    expect(bounce!.message.from).toBe('');
    const report = (await node.blobs.read(bounce!.message.blobId)).toString('latin1');
    expect(report).toMatch(/Final-Recipient: rfc822; nobody@example\.test\r\nAction: failed\r\nStatus: 5\.1\.1\r\n/);
    expect(reports).toEqual([{ domain: 'example.test', result: 'reached' }]);
    // By a claim that has done its work nobody is served twice.
    await expect(delivery.deliver({ claimed: asItWas }, signal)).rejects.toThrow(/lost/);
    expect(await node.mailbox(bob)).toHaveLength(1);
    await delivery.deliver({ claimed: await claim(node, ['x@elsewhere.test']) }, signal);
    expect(await node.queue.list()).toHaveLength(1);
  });

  it('that an operator has named local keeps its meaning', async () => {
    const server = await serve();
    const routes = [{ name: 'local', kind: 'relay' as const, hosts: [{ host: '127.0.0.1', port: server.port }] }];
    const { node, delivery } = await open(1, { routes, route: "'local'" });
    await delivery.deliver({ claimed: await claim(node, ['bob@remote.test']) }, signal);
    expect(server.handler.messages).toHaveLength(1);
  });

  it('of an operator wins over the settings', async () => {
    const server = await serve();
    const { node, delivery } = await open(1);
    const claimed = await claim(node, ['bob@remote.test']);
    claimed.destination.route = { host: '127.0.0.1', port: server.port };
    await delivery.deliver({ claimed }, signal);
    expect(server.handler.messages).toHaveLength(1);
  });

  it('falls back when the hosts of the domain have all failed, and the domain was reached then', async () => {
    const server = await serve();
    const { node, delivery, reports } = await open(1, { fallbackHosts: [{ host: '127.0.0.1', port: server.port }] });
    await delivery.deliver({ claimed: await claim(node, ['bob@remote.test']) }, signal);
    expect(server.handler.messages).toHaveLength(1);
    expect(reports).toMatchObject([{ domain: 'remote.test', result: 'reached' }]);
    expect(await kept(node)).toBeUndefined();
  });

  it('that leads back here is a loop, also by address and port', async () => {
    const server = await serve();
    const ownEndpoints = () => ({ endpoints: [{ address: '0.0.0.0', port: server.port }], interfaces: [] });
    const { node, delivery, reports } = await open(server.port, {}, { ownEndpoints });
    await delivery.deliver({ claimed: await claim(node, ['bob@remote.test', 'carl@remote.test']) }, signal);
    // From '': nobody is told, and nothing is kept.
    expect(await kept(node)).toBeUndefined();
    expect(server.sessions).toHaveLength(0);
    expect(reports).toEqual([]);
  });
});

describe('a host', () => {
  it('gets the recipients in as many transactions as it wants, over one connection', async () => {
    await withPeer(peer(['LIMITS RCPTMAX=2', 'PIPELINING']), async (port, lines) => {
      const { node, delivery } = await open(port);
      const to = Array.from({ length: 5 }, (_, at) => `r${at}@remote.test`);
      await delivery.deliver({ claimed: await claim(node, to) }, signal);
      expect(await kept(node)).toBeUndefined();
      expect(lines.filter((line) => line.startsWith('EHLO'))).toHaveLength(1);
      expect(lines.filter((line) => line.startsWith('MAIL'))).toHaveLength(3);
      expect(lines.filter((line) => line.startsWith('RCPT')).map((line) => line.slice('RCPT TO:<'.length, -1))).toEqual(to);
      delivery.close();
    });
  });

  it('that takes one domain in a connection gets another one for the next', async () => {
    await withPeer(peer(['LIMITS RCPTDOMAINMAX=1', 'PIPELINING']), async (port, lines) => {
      const { node, delivery } = await open(port);
      node.resolver.mailHosts.set('other.test', ['mx.remote.test']);
      for (const to of ['a@remote.test', 'b@remote.test', 'c@other.test', 'd@other.test', 'e@remote.test'])
        await delivery.deliver({ claimed: await claim(node, [to]) }, signal);
      expect(await kept(node)).toBeUndefined();
      expect(lines.filter((line) => /^(EHLO|RCPT)/.test(line)).map((line) => line.slice(0, 10).trim())).toEqual([
        'EHLO mx.ex',
        'RCPT TO:<a',
        'RCPT TO:<b',
        'EHLO mx.ex',
        'RCPT TO:<c',
        'RCPT TO:<d',
        'EHLO mx.ex',
        'RCPT TO:<e',
      ]);
      delivery.close();
    });
  });

  it('whose TLS does not work is spoken to without, and that is remembered', async () => {
    const talk = peer(['STARTTLS'], { STARTTLS: '220 go\r\n' });
    const answer = (line: string) =>
      /^(EHLO|STARTTLS|MAIL|RCPT|DATA|QUIT|\.|x$|Subject|$)/.test(line) ? talk(line) : 'garbage\r\n';
    await withPeer(answer, async (port, lines) => {
      const { node, delivery } = await open(port, { maxMessagesPerConnection: 1, timeouts: { tlsHandshakeMs: 200 } });
      for (let i = 0; i < 2; i++) await delivery.deliver({ claimed: await claim(node, ['bob@remote.test']) }, signal);
      expect(await kept(node)).toBeUndefined();
      expect(lines.filter((line) => line === 'STARTTLS')).toHaveLength(1);
      expect(lines.filter((line) => line.startsWith('EHLO'))).toHaveLength(3);
      delivery.close();
    });
  });

  it('gets no more messages over one connection than is set', async () => {
    const server = await serve();
    const { node, delivery } = await open(server.port, { maxMessagesPerConnection: 2 });
    for (let i = 0; i < 5; i++) await delivery.deliver({ claimed: await claim(node, ['bob@remote.test']) }, signal);
    expect(server.handler.messages).toHaveLength(5);
    expect(server.sessions).toHaveLength(3);
  });

  it('that can not be reached slows down the pace, and the cluster hears of it', async () => {
    const { node, delivery, reports } = await open(1);
    expect(delivery.pacer.limitOf('remote.test')).toBe(5);
    await delivery.deliver({ claimed: await claim(node, ['bob@remote.test']) }, signal);
    expect(delivery.pacer.limitOf('remote.test')).toBe(2);
    expect(reports).toMatchObject([
      { domain: 'remote.test', result: 'unreachable', reply: { enhanced: '4.4.1', host: 'mx.remote.test' } },
    ]);
    expect(await kept(node)).toMatchObject({ state: 'due', attempts: 1 });
    node.resolver.isDown = true;
    await delivery.deliver({ claimed: await claim(node, ['bob@remote.test']) }, signal);
    expect(reports[1]).toMatchObject({ result: 'unreachable', reply: { enhanced: '4.4.3' } });
  });
});

describe('the address to send from', () => {
  it('is the one that is set; one that this machine does not have gives way, and the log says so', async () => {
    const server = await serve();
    const { node, delivery } = await open(server.port, {
      sourceAddress4: "sender == '' ? '127.0.0.5' : '192.0.2.77'",
      heloName: "'out.' + hostname",
    });
    await delivery.deliver({ claimed: await claim(node, ['bob@remote.test']) }, signal);
    await delivery.deliver({ claimed: await claim(node, ['bob@remote.test'], { from: 'a@b.test' }) }, signal);
    expect(server.handler.messages).toHaveLength(2);
    expect(server.sessions.map(({ connection }) => (connection.socket as Socket).remoteAddress?.replace('::ffff:', ''))).toEqual([
      '127.0.0.5',
      '127.0.0.1',
    ]);
  });
});

describe('what is known of a domain', () => {
  const refuse = (systemCode: string) => async () => {
    throw new SmtpConnectError('connect', 'temporary', 0, '4.4.1', 'no connection', undefined, systemCode);
  };

  it('does not suffer from what this machine lacks, nor from settings', async () => {
    for (const code of ['EMFILE', 'ENETUNREACH', 'EADDRNOTAVAIL']) {
      const { node, delivery, reports } = await open(1, {}, { connect: refuse(code) });
      await delivery.deliver({ claimed: await claim(node, ['bob@remote.test']) }, signal);
      expect(await kept(node)).toMatchObject({ state: 'due', attempts: 1 });
      expect(reports).toEqual([]);
      expect(delivery.pacer.limitOf('remote.test')).toBe(5);
    }
    const { node, delivery, reports } = await open(1, { route: "'nowhere'" });
    await delivery.deliver({ claimed: await claim(node, ['bob@remote.test']) }, signal);
    expect(await kept(node)).toMatchObject({ state: 'due', recipients: [{ lastReply: { enhanced: '4.3.5' } }] });
    expect(reports).toEqual([]);
  });

  it('does not suffer from a network or a name server that is down', async () => {
    const { node, delivery, reports } = await open(1);
    node.resolver.isDown = true;
    for (let n = 0; n < 60; n++) await delivery.deliver({ claimed: await claim(node, [`bob@d${n % 30}.test`]) }, signal);
    expect(new Set(reports.map(({ domain }) => domain)).size).toBe(20);
  });

  it('has nothing to do with where an operator sends one message', async () => {
    const server = await serve();
    const { node, delivery, reports } = await open(1);
    for (const port of [server.port, 1]) {
      const claimed = await claim(node, ['bob@remote.test']);
      claimed.destination.route = { host: '127.0.0.1', port };
      await delivery.deliver({ claimed }, signal);
    }
    expect(server.handler.messages).toHaveLength(1);
    expect(reports).toEqual([]);
  });

  it('does not suffer from one message at which its host hangs up', async () => {
    await withPeer(peer([], { DATA: undefined }), async (port) => {
      const { node, delivery, reports } = await open(port);
      await delivery.deliver({ claimed: await claim(node, ['bob@remote.test']) }, signal);
      expect(await kept(node)).toMatchObject({ state: 'due', recipients: [{ status: 'pending' }] });
      expect(reports).toMatchObject([{ result: 'reached' }]);
      expect(delivery.pacer.limitOf('remote.test')).toBe(2);
    });
  });
});

describe('a relay that does not take our login', () => {
  it('keeps the mail waiting instead of sending it back', async () => {
    const login = { problem: undefined, mode: 'implicit', used: true, authorized: true } as const;
    const connect = async () => {
      throw new SmtpConnectError('auth', 'permanent', 535, '5.7.8', 'Authentication failed', login);
    };
    const routes = [{ name: 'relay', kind: 'relay' as const, hosts: [{ host: '127.0.0.1' }], user: 'u', password: 'old' }];
    const { node, delivery } = await open(1, { routes, route: "'relay'" }, { connect });
    for (const more of [{}, { requiresTls: true }]) {
      const claimed = await claim(node, ['bob@remote.test'], more);
      await delivery.deliver({ claimed }, signal);
      const { destinations } = (await node.queue.show(claimed.message.id))!;
      expect(destinations[0]).toMatchObject({
        state: 'due',
        recipients: [{ status: 'pending', lastReply: { code: 0, enhanced: '4.7.8', text: expect.stringContaining('535') } }],
      });
    }
  });
});

describe('REQUIRETLS', () => {
  const needing = { requiresTls: true, from: 'alice@example.test' };
  it.each([
    ['a certificate that nobody vouches for', {}],
    ['no STARTTLS', { startTls: false }],
  ])('comes back from a host with %s', async (_what, options) => {
    const server = await serve(options);
    const { node, delivery, reports } = await open(server.port);
    const alice = await node.account('alice@example.test');
    await delivery.deliver({ claimed: await claim(node, ['bob@remote.test'], needing) }, signal);
    expect(server.handler.messages).toHaveLength(0);
    // Mail of others needs none of it.
    expect(reports).toEqual([]);
    const [report] = (await node.queue.list()).filter(({ message }) => message.from === '');
    expect(report!.destinations[0]!.recipients[0]!.address).toBe('alice@example.test');
    node.runner.start();
    await node.settled();
    expect((await node.mailbox(alice))[0]).toContain('Status: 5.7.10\r\n');
  });

  it('waits for a host that does not answer', async () => {
    const { node, delivery } = await open(1);
    await delivery.deliver({ claimed: await claim(node, ['bob@remote.test'], needing) }, signal);
    expect(await kept(node)).toMatchObject({ state: 'due', recipients: [{ status: 'pending' }] });
  });

  it('waits for a host that has enough just now', async () => {
    const busy = '421 4.3.2 not now\r\n';
    await withPeer(
      peer([]),
      async (port) => {
        const { node, delivery } = await open(port);
        await delivery.deliver({ claimed: await claim(node, ['bob@remote.test'], needing) }, signal);
        expect(await kept(node)).toMatchObject({ state: 'due', recipients: [{ status: 'pending', lastReply: { code: 421 } }] });
      },
      busy,
    );
  });
});

describe('a rate of the cluster', () => {
  it('does not keep a message from its end', async () => {
    const server = await serve();
    const rates = { take: async () => ({ isAllowed: false as const, retryAfterSeconds: 500 }) };
    const rules = [{ name: 'slow', count: 1, periodSeconds: 60 }];
    const { node, delivery } = await open(server.port, { rates: rules }, { limits: { rates } });
    const expiresAtMs = node.clock.nowMs() + 20_000;
    await delivery.deliver({ claimed: await claim(node, ['bob@remote.test'], { expiresAtMs }) }, signal);
    expect((await kept(node))!.dueAtSeconds).toBe(Math.ceil(expiresAtMs / 1000));
    await node.queue.cancel((await node.queue.list())[0]!.message.id);
    const over = await claim(node, ['bob@remote.test'], { expiresAtMs: node.clock.nowMs() - 1 });
    await delivery.deliver({ claimed: over }, signal);
    // From '': nobody is told.
    expect(await kept(node)).toBeUndefined();
    expect(server.handler.messages).toEqual([]);
  });

  it('puts the delivery off without an attempt', async () => {
    const server = await serve();
    let allowed = 1;
    const rates = {
      take: async () => (allowed-- > 0 ? { isAllowed: true as const } : { isAllowed: false as const, retryAfterSeconds: 90 }),
    };
    const rules = [{ name: 'slow', count: 1, periodSeconds: 60 }];
    const { node, delivery, putOff } = await open(server.port, { rates: rules }, { limits: { rates } });
    for (let i = 0; i < 2; i++) await delivery.deliver({ claimed: await claim(node, ['bob@remote.test']) }, signal);
    expect(server.handler.messages).toHaveLength(1);
    const destination = (await kept(node))!;
    expect(destination).toMatchObject({ state: 'due', attempts: 0 });
    const waitsSeconds = destination.dueAtSeconds - node.clock.nowMs() / 1000;
    expect(waitsSeconds).toBeGreaterThan(80);
    expect(waitsSeconds).toBeLessThan(92);
    expect(putOff).toEqual([]);
    // Another probe of a domain that is down comes when this one's turn may have come, not when the back-off is over.
    await delivery.deliver({ claimed: { ...(await claim(node, ['bob@remote.test'])), isForced: true } }, signal);
    // The message before it has the first turn.
    expect(putOff).toEqual([['remote.test', expect.closeTo(150, -1)]]);
  });
});

describe("a host's addresses", () => {
  it('are tried in the order that an expression gives for this attempt', async () => {
    const server = await serve();
    const tried: string[] = [];
    const order = "sender_domain == 'six.test' ? 'only6' : local_part(sender) == 'four' ? 'prefer4' : 'prefer6'";
    const { node, delivery } = await open(
      server.port,
      { addressOrder: order, maxMessagesPerConnection: 1 },
      {
        async connect(options) {
          tried.push(options.address);
          if (options.address !== '::1') return SmtpClient.connect(options);
          throw new SmtpConnectError('connect', 'temporary', 0, '4.4.1', 'no connection', undefined, 'ECONNREFUSED');
        },
      },
    );
    node.resolver.aaaa = async () => ({ status: 'found', records: ['::1'], authenticated: false, ttlSeconds: 60 });
    const attempt = async (from: string) => {
      tried.length = 0;
      await delivery.deliver({ claimed: await claim(node, ['bob@remote.test'], { from }) }, signal);
      return tried;
    };
    expect(await attempt('four@example.test')).toEqual(['127.0.0.1']);
    expect(await attempt('any@example.test')).toEqual(['::1', '127.0.0.1']);
    expect(server.handler.messages).toHaveLength(2);
    expect(await attempt('any@six.test')).toEqual(['::1']);
    expect(server.handler.messages).toHaveLength(2);
    expect(await kept(node)).toMatchObject({ attempts: 1 });
  });

  it('are tried as by default when the expression fails', async () => {
    const server = await serve();
    const { node, delivery } = await open(server.port, { addressOrder: 'sender' });
    await delivery.deliver({ claimed: await claim(node, ['bob@remote.test'], { from: 'only6@example.test' }) }, signal);
    expect(server.handler.messages).toHaveLength(1);
  });
});

describe('eight bits', () => {
  it('go or come back by who is to take them', async () => {
    await withPeer(peer([]), async (port, lines) => {
      const eightBit = "mx == 'mx.remote.test' && sender_domain == 'strict.test' ? 'return' : 'send'";
      const { node, delivery } = await open(port, { eightBit });
      const send = async (from: string) =>
        delivery.deliver({ claimed: await claim(node, ['bob@remote.test'], { from, body: '8BITMIME' }) }, signal);
      await send('a@example.test');
      expect(lines.filter((line) => line.startsWith('MAIL'))).toEqual(['MAIL FROM:<a@example.test>']);
      await send('a@strict.test');
      expect(lines.filter((line) => line.startsWith('MAIL'))).toHaveLength(1);
      const [bounce] = await node.queue.list();
      const report = (await node.blobs.read(bounce!.message.blobId)).toString('latin1');
      expect(report).toMatch(/Status: 5\.6\.3\r\n/);
      delivery.close();
    });
  });

  it('go as they are to a server without 8BITMIME, or back, as is set', async () => {
    await withPeer(peer([]), async (port, lines) => {
      const eight = { body: '8BITMIME' as const };
      const { node, delivery } = await open(port);
      await delivery.deliver({ claimed: await claim(node, ['bob@remote.test'], eight) }, signal);
      expect(lines.filter((line) => line.startsWith('MAIL'))).toEqual(['MAIL FROM:<>']);
      const strict = await open(port, { eightBit: 'return' });
      await strict.delivery.deliver({ claimed: await claim(strict.node, ['bob@remote.test'], eight) }, signal);
      expect(await kept(strict.node)).toBeUndefined();
      expect(lines.filter((line) => line.startsWith('MAIL'))).toHaveLength(1);
      delivery.close();
      strict.delivery.close();
    });
  });
});
