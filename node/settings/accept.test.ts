/** Settings of the stages, as operators write them, against sessions with a real receiver, store, limits and DNS. */
import { afterEach, describe, expect, it } from 'vitest';
import { registry, silentLogger, systemRandom } from '../../ops/telemetry/index.js';
import { SystemResolver } from '../../protocols/dns/index.js';
import { MemoryDatabase, openMemoryStore } from '../../store/kv/index.js';
import { createLimits } from '../../store/limits/index.js';
import { createLookups } from '../../store/lookups/index.js';
import { createHistory } from '../../store/queue/history.js';
import { createSealer, openSettings } from '../../store/settings/index.js';
import { createExpressionHost } from '../expression-host.js';
import type { ReceiverDependencies } from '../mailflow/index.js';
import { type Dialog, type DialogOptions, startDialog } from '../mailflow/testing/dialog.js';
import { type DnsServer, startDnsServer } from '../mailflow/testing/dns-server.js';
import { ShiftedClock, startTestNode, type TestNode } from '../mailflow/testing/node.js';
import { liveAcceptStages } from './accept.js';
import { settingsRegistry } from './sections.js';

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** A node whose stages come from settings; `alice@example.test` has an account, `staff@` is a list. */
async function start(first: Record<string, unknown> = {}, more: Partial<ReceiverDependencies> = {}) {
  const kv = openMemoryStore({ database: new MemoryDatabase() });
  const clock = new ShiftedClock();
  const parts = { kv, clock, random: systemRandom, logger: silentLogger };
  const settings = await openSettings({
    ...parts,
    sealer: createSealer([Buffer.alloc(32, 1)], systemRandom),
    registry: settingsRegistry,
  });
  const change = (replace: Record<string, unknown>) => settings.change({ replace }, { who: 'tester' });
  if (Object.keys(first).length > 0) await change(first);
  const dns = await startDnsServer();
  const resolver = new SystemResolver({ servers: [dns.address], timeoutMs: 300, tries: 1 });
  const limits = createLimits({ ...parts, nodeId: () => node.node.nodeId });
  await limits.bans.start();
  const lookups = createLookups(parts);
  const history = createHistory({ kv });
  const host = createExpressionHost({
    clock,
    resolver,
    lookups,
    rates: limits.rates,
    directory: {
      isLocalDomain: (name) => node.directory.isLocalDomain(name),
      resolve: (address) => node.directory.resolve(address),
    },
  });
  const stages = liveAcceptStages(settings, { logger: silentLogger, clock, host });
  const node: TestNode = await startTestNode({
    kv,
    clock,
    isDirect: true,
    receiver: { stages, limits, bans: limits.bans, lookups, resolver, history, ...more },
  });
  closers.push(
    () => settings.close(),
    () => dns.close(),
    () => limits.stop(),
    () => node.close(),
  );
  const alice = await node.account('alice@example.test', { password: 'wonderland' });
  const talk = async (options: Partial<DialogOptions> = {}): Promise<Dialog> => {
    const dialog = await startDialog({ handler: node.receiver.handler, clock, ...options });
    closers.push(() => dialog.close());
    return dialog;
  };
  return { node, kv, clock, settings, change, dns: dns as DnsServer, limits, lookups, history, alice, talk };
}

const failuresOf = async (setting: string): Promise<number> => {
  const { values } = await registry.getSingleMetric('starling_expression_failures_total')!.get();
  return values.find(({ labels }) => labels['setting'] === setting)?.value ?? 0;
};

const plain = (login: string, password: string) => Buffer.from(`\0${login}\0${password}`).toString('base64');
const logIn = async (dialog: Dialog) => {
  await dialog.say('EHLO client.test');
  return dialog.say(`AUTH PLAIN ${plain('alice@example.test', 'wonderland')}`);
};
/** Who was told that a message is queued. */
const queueId = (answer: string) => /queued as ([a-z0-9]+)/.exec(answer)![1]!;

describe('the stages of accepting', () => {
  it('are as they always were where nothing is set', async () => {
    const { talk, node, alice } = await start();
    expect(await node.receiver.handler.policy!({} as never)).toBeUndefined();
    const dialog = await talk();
    expect(dialog.greeting).toBe('220 mx.example.test ESMTP Starling');
    await dialog.say('EHLO client.test');
    expect(await dialog.send('bob@remote.test', 'alice@example.test')).toMatch(/^250 2\.0\.0 Ok: queued as/);
    expect(await dialog.send('bob@remote.test', 'carol@elsewhere.test')).toBe('550 5.7.1 Relaying denied');
    expect(await node.mailbox(alice)).toHaveLength(1);
  });

  it('greet and refuse as expressions say, from the next session on', async () => {
    const { talk, change } = await start();
    await change({
      accept: {
        connect: {
          greeting: "hostname + ' ready for ' + remote_ip",
          // biome-ignore lint/suspicious/noThenProperty: it is what settings are written with
          refuse: [{ if: "in_network(remote_ip, '203.0.113.0/24')", then: "'521 5.3.2 No mail here'" }, { else: "''" }],
        },
        ehlo: { refuse: "glob(helo, 'ylmf-*') ? 'No bots' : ''" },
      },
    });
    const dialog = await talk();
    expect(dialog.greeting).toBe('220 mx.example.test ready for 198.51.100.7');
    expect(await dialog.say('EHLO ylmf-pc')).toBe('550 5.7.1 No bots');
    expect(await dialog.say('EHLO client.test')).toMatch(/^250-/);
    expect((await talk({ remoteAddress: '203.0.113.9' })).greeting).toBe('521 5.3.2 No mail here');
  });

  it('decide extensions, TLS and limits by who the client is', async () => {
    const { talk } = await start({
      smtp: {
        maxMessageBytes: "authenticated_as == '' ? 5000 : 50000",
        maxRecipients: 2,
        requireTls: "remote_ip == '203.0.113.1'",
        withheldExtensions: "is_tls ? [] : ['CHUNKING', 'BINARYMIME']",
      },
    });
    const dialog = await talk();
    const hello = await dialog.say('EHLO client.test');
    expect(hello).toContain('SIZE 5000');
    expect(hello).not.toContain('CHUNKING');
    expect(await dialog.say('MAIL FROM:<a@b.test> SIZE=6000')).toMatch(/^552 /);
    const secure = await talk({ mode: 'submission', isSecure: true });
    expect(await secure.say('EHLO client.test')).toContain('CHUNKING');
    expect(await logIn(secure)).toMatch(/^235 /);
    expect(await secure.say('EHLO client.test')).toContain('SIZE 50000');
    const clear = await talk({ remoteAddress: '203.0.113.1' });
    await clear.say('EHLO client.test');
    expect(await clear.say('MAIL FROM:<a@b.test>')).toMatch(/^530 5\.7\.0/);
  });

  it('limit the domains of a session, and let whom they do not trust wait for the greeting', async () => {
    const { talk, node } = await start({
      smtp: {
        maxRecipientDomains: "authenticated_as == '' ? 1 : 0",
        greetingDelayMilliseconds: "in_network(remote_ip, '203.0.113.0/24') ? 20 : 0",
      },
      accept: { rcpt: { relay: true } },
    });
    const dialog = await talk();
    expect(await dialog.say('EHLO client.test')).toContain('RCPTDOMAINMAX=1');
    await dialog.say('MAIL FROM:<a@b.test>');
    expect(await dialog.say('RCPT TO:<alice@example.test>')).toMatch(/^250/);
    expect(await dialog.say('RCPT TO:<carol@elsewhere.test>')).toMatch(/^452 4\.5\.3/);
    const user = await talk({ mode: 'submission', isSecure: true });
    await logIn(user);
    expect(await user.say('EHLO client.test')).not.toContain('RCPTDOMAINMAX');
    const limitsFor = async (remoteAddress: string) =>
      (await node.receiver.handler.policy!({ mode: 'mx', remoteAddress, greetingName: '' } as never))?.limits;
    expect(await limitsFor('203.0.113.9')).toMatchObject({ greetingDelayMs: 20 });
    expect(await limitsFor('198.51.100.7')).toMatchObject({ greetingDelayMs: 0 });
    expect((await talk({ remoteAddress: '203.0.113.9' })).greeting).toMatch(/^220 /);
  });

  it('send away who names one after the other that is not there, but not users, nor whom they trust', async () => {
    const { talk } = await start({ smtp: { maxRefusedRecipients: "in_network(remote_ip, '203.0.113.0/24') ? 0 : 2" } });
    const answers = async (dialog: Dialog) => {
      const said = [await dialog.say('EHLO client.test'), await dialog.say('MAIL FROM:<alice@example.test>')];
      for (const to of ['x@example.test', 'x@elsewhere.test', 'y@example.test']) said.push(await dialog.say(`RCPT TO:<${to}>`));
      return said.map((one) => one.slice(0, 3)).join(' ');
    };
    expect(await answers(await talk())).toBe('250 250 550 550 421');
    expect(await answers(await talk({ remoteAddress: '203.0.113.9' }))).toBe('250 250 550 550 550');
    const user = await talk({ mode: 'submission', isSecure: true });
    await logIn(user);
    expect(await answers(user)).toBe('250 250 550 250 550');
  });

  it.each(['DATA', 'BDAT'])('repair bare line feeds of whom they trust, and of nobody else, in %s', async (verb) => {
    const { talk, node, alice, lookups } = await start({
      smtp: {
        // biome-ignore lint/suspicious/noThenProperty: it is what settings are written with
        bareLineEnds: [{ if: "authenticated_as != ''", then: 'normalise' }, { else: "key_get('line-ends', helo)" }],
      },
    });
    await lookups.set('line-ends', [{ key: 'old.test', value: 'normalise' }]);
    await lookups.set('line-ends', [{ key: 'odd.test', value: 'perhaps' }]);
    const content = 'Subject: x\r\n\r\none\ntwo';
    const send = async (dialog: Dialog, from: string) => {
      if (verb === 'DATA') return dialog.send(from, 'alice@example.test', content);
      await dialog.say(`MAIL FROM:<${from}>`);
      await dialog.say('RCPT TO:<alice@example.test>');
      // The line end that `say` adds is the content's last.
      return dialog.say(`BDAT ${content.length + 2} LAST\r\n${content}`);
    };
    const user = await talk({ mode: 'submission', isSecure: true });
    await logIn(user);
    expect(await send(user, 'alice@example.test')).toMatch(/^250/);
    const failed = await failuresOf('smtp.bareLineEnds');
    const dialog = await talk();
    for (const [helo, answer] of [
      ['old.test', /^250/],
      ['odd.test', /^550 5\.6\.11/],
      ['new.test', /^550 5\.6\.11/],
    ] as const) {
      await dialog.say(`EHLO ${helo}`);
      expect(await send(dialog, 'a@b.test')).toMatch(answer);
    }
    // Neither word was given: before EHLO, by `odd.test`, by `new.test`.
    expect(await failuresOf('smtp.bareLineEnds')).toBeGreaterThanOrEqual(failed + 2);
    const texts = await node.mailbox(alice);
    expect(texts).toHaveLength(2);
    for (const text of texts) expect(text).toContain('\r\none\r\ntwo\r\n');
  });

  it('refuse and rewrite senders and recipients', async () => {
    const { talk, node, alice, history, kv } = await start({
      accept: {
        mail: {
          refuse: "sender_domain == 'spam.test' ? '550 5.7.1 Not from spam.test' : ''",
          rewrite: "sender_domain == 'old.test' ? local_part(sender) + '@new.test' : sender",
        },
        rcpt: {
          refuse: "local_part(recipient) == 'nobody' ? '550 5.1.1 Nobody' : ''",
          rewrite: "domain_of(recipient) == 'alias.test' ? local_part(recipient) + '@example.test' : recipient",
        },
      },
    });
    const dialog = await talk();
    await dialog.say('EHLO client.test');
    expect(await dialog.say('MAIL FROM:<x@spam.test>')).toBe('550 5.7.1 Not from spam.test');
    expect(await dialog.send('bob@old.test', 'nobody@example.test')).toBe('550 5.1.1 Nobody');
    await dialog.say('RSET');
    const answer = await dialog.send('bob@old.test', 'alice@alias.test');
    expect(answer).toMatch(/^250/);
    const [text] = await node.mailbox(alice);
    expect(text).toMatch(/^Return-Path: <bob@new\.test>\r\n/);
    const events = (await kv.read((reads) => history.read(reads, queueId(answer)))).map(({ event }) => event);
    expect(events[0]).toMatchObject({ kind: 'accepted', from: 'bob@new.test', recipients: ['alice@example.test'] });
  });

  it('a rule that makes no address puts mail off, and one that fails does not let it through', async () => {
    const { talk, dns } = await start({
      accept: {
        mail: { refuse: "dns_query(sender_domain, 'TXT').size() > 0 ? 'listed' : ''" },
        rcpt: { rewrite: "recipient == 'alice@example.test' ? 'x@y.test> SIZE=1' : recipient" },
      },
    });
    dns.records.set('known.test TXT', []);
    dns.records.set('broken.test TXT', 'failure');
    const dialog = await talk();
    await dialog.say('EHLO client.test');
    expect(await dialog.say('MAIL FROM:<a@broken.test>')).toMatch(/^451 4\.3\.5/);
    expect(await dialog.say('MAIL FROM:<a@known.test>')).toMatch(/^250/);
    expect(await dialog.say('RCPT TO:<alice@example.test>')).toMatch(/^451 4\.3\.5/);
  });

  it('relay for whom the rule names', async () => {
    const { talk } = await start({ accept: { rcpt: { relay: "in_network(remote_ip, '198.51.100.0/24')" } } });
    const near = await talk();
    await near.say('EHLO client.test');
    expect(await near.send('a@b.test', 'carol@elsewhere.test')).toMatch(/^250/);
    const far = await talk({ remoteAddress: '203.0.113.7' });
    await far.say('EHLO client.test');
    expect(await far.send('a@b.test', 'carol@elsewhere.test')).toBe('550 5.7.1 Relaying denied');
  });

  it('judge the message when it is there, and write what they are told to write', async () => {
    const { talk, node, alice } = await start({
      accept: {
        data: {
          refuse: "size > 300 && sender == 'big@b.test' ? '554 5.7.1 Too much of it' : ''",
          maxBytes: "sender == 'small@b.test' ? 100 : 0",
          addReceived: false,
          addDate: true,
          addMessageId: true,
        },
      },
    });
    const dialog = await talk();
    await dialog.say('EHLO client.test');
    const long = `Subject: x\r\n\r\n${'y'.repeat(70).concat('\r\n').repeat(5)}`;
    expect(await dialog.send('big@b.test', 'alice@example.test', long)).toBe('554 5.7.1 Too much of it');
    expect(await dialog.send('small@b.test', 'alice@example.test', long)).toMatch(/^552 5\.3\.4/);
    expect(await dialog.say('MAIL FROM:<small@b.test> SIZE=101')).toMatch(/^250/);
    await dialog.say('RCPT TO:<alice@example.test>');
    expect(await dialog.say('DATA')).toMatch(/^552 5\.3\.4/);
    expect(await dialog.send('c@b.test', 'alice@example.test', long)).toMatch(/^250/);
    await node.settled();
    const [text] = await node.mailbox(alice);
    expect(text).toMatch(/^Return-Path: <c@b\.test>\r\nDate: .*\r\nMessage-ID: <.*@mx\.example\.test>\r\nSubject: x\r\n/);
  });

  it('put into the queue what extensions ask for, within bounds', async () => {
    const { talk, node, clock } = await start({
      accept: {
        mail: { maxPriority: "authenticated_as == '' ? 0 : 4" },
        data: { queueName: "priority < 0 ? 'bulk' : 'default'" },
      },
    });
    const dialog = await talk({ mode: 'submission', isSecure: true });
    await logIn(dialog);
    expect(await dialog.say('MAIL FROM:<alice@example.test> MT-PRIORITY=8 HOLDFOR=600 BY=3600;N')).toMatch(/^250 2\.3\.6 4/);
    await dialog.say('RCPT TO:<alice@example.test>');
    await dialog.say('DATA');
    const id = queueId(await dialog.say('Subject: later\r\n\r\nx\r\n.'));
    const queued = (await node.queue.show(id))!;
    const nowMs = clock.nowMs();
    expect(queued.message).toMatchObject({ priority: 4, deliverBy: { mode: 'notify', isTraced: false } });
    expect(Math.abs(queued.message.deliverBy!.untilMs - nowMs - 3_600_000)).toBeLessThan(60_000);
    expect(Math.abs(queued.destinations[0]!.dueAtSeconds - nowMs / 1000 - 600)).toBeLessThan(60);
    expect(queued.message.expiresAtMs - nowMs).toBeGreaterThan(5 * 86_400_000 + 500_000);
    const low = await talk();
    await low.say('EHLO client.test');
    expect(await low.say('MAIL FROM:<x@remote.test> MT-PRIORITY=9')).toMatch(/^250 2\.3\.6 0/);
    await low.say('RSET');
    await low.say('MAIL FROM:<x@remote.test> MT-PRIORITY=-3');
    await low.say('RCPT TO:<alice@example.test> NOTIFY=SUCCESS');
    await low.say('DATA');
    const answer = await low.say('Subject: bulk\r\n\r\nx\r\n.');
    expect(answer).toMatch(/^250/);
  });
});

describe('limits of the cluster', () => {
  it('hold rates by key, with words of their own', async () => {
    const { talk } = await start({
      limits: {
        rates: [
          { name: 'per-sender', stage: 'mail', key: 'sender', match: "sender != ''", count: 2, periodSeconds: 3600 },
          { name: 'rcpts', stage: 'rcpt', key: 'recipient', count: 3, periodSeconds: 3600, reply: "'450 4.2.1 Slowly'" },
        ],
      },
    });
    const dialog = await talk();
    await dialog.say('EHLO client.test');
    for (let i = 0; i < 2; i++) {
      expect(await dialog.say('MAIL FROM:<a@b.test>')).toMatch(/^250/);
      await dialog.say('RSET');
    }
    expect(await dialog.say('MAIL FROM:<a@b.test>')).toMatch(/^450 4\.7\.1 Too much at once, .* \(in \d+ s\)$/);
    expect(await dialog.say('MAIL FROM:<other@b.test>')).toMatch(/^250/);
    for (let i = 0; i < 3; i++) expect(await dialog.say('RCPT TO:<alice@example.test>')).toMatch(/^250/);
    expect(await dialog.say('RCPT TO:<alice@example.test>')).toBe('450 4.2.1 Slowly');
  });

  it('hold the number of sessions by address and by account, and free them when they end', async () => {
    const { talk } = await start({
      limits: {
        concurrency: [
          { name: 'by-address', stage: 'connect', key: 'remote_ip', max: 2 },
          { name: 'by-account', stage: 'auth', key: 'authenticated_as', max: 1 },
        ],
      },
    });
    const [first] = [await talk(), await talk()];
    expect((await talk()).greeting).toMatch(/^421 4\.7\.0 Too many connections/);
    expect((await talk({ remoteAddress: '203.0.113.5' })).greeting).toMatch(/^220/);
    await first!.close();
    let again = await talk();
    for (let i = 0; i < 200 && !again.greeting.startsWith('220'); i++) again = await talk();
    expect(again.greeting).toMatch(/^220/);
    const one = await talk({ mode: 'submission', isSecure: true, remoteAddress: '203.0.113.6' });
    expect(await logIn(one)).toMatch(/^235/);
    const two = await talk({ mode: 'submission', isSecure: true, remoteAddress: '203.0.113.7' });
    expect(await logIn(two)).toMatch(/^421 4\.7\.0/);
  });

  it('hold how much may wait in the queue', async () => {
    const { talk, node } = await start({
      limits: {
        quotas: [
          { name: 'by-sender', key: 'sender', maxMessages: 2 },
          { name: 'total', maxBytes: 100_000 },
        ],
      },
      accept: { rcpt: { relay: true } },
    });
    const dialog = await talk();
    await dialog.say('EHLO client.test');
    const held = (from: string) => dialog.send(from, 'carol@down.test');
    node.resolver.isDown = true;
    expect(await held('a@b.test')).toMatch(/^250/);
    expect(await held('a@b.test')).toMatch(/^250/);
    const id = queueId(await held('c@b.test'));
    const names = (await node.queue.show(id))!.message.countedUnder!;
    expect(names).toEqual(['by-sender:c@b.test', 'total:all']);
    // What the queue has counted is known within a second or so.
    let answer = '';
    for (let i = 0; i < 60 && !answer.startsWith('452'); i++) {
      await node.clock.sleep(50);
      answer = await dialog.say('MAIL FROM:<a@b.test>').then(() => dialog.say('RCPT TO:<carol@down.test>'));
      await dialog.say('RSET');
    }
    expect(answer).toBe('452 4.3.1 Too much is waiting to be delivered, try again later');
    expect(await dialog.say('MAIL FROM:<d@b.test> SIZE=200000')).toMatch(/^250/);
    expect(await dialog.say('RCPT TO:<carol@down.test>')).toMatch(/^452 4\.3\.1/);
  });

  it('let mail through when the store can not tell', async () => {
    const failing = async () => Promise.reject(new Error('the store is away'));
    const { talk } = await start(
      {
        limits: {
          rates: [{ name: 'r', stage: 'mail', count: 1, periodSeconds: 60 }],
          concurrency: [{ name: 'c', stage: 'connect', max: 1 }],
        },
        screening: { greylist: { enabled: true } },
      },
      {
        limits: { rates: { take: failing }, concurrency: { acquire: failing }, greylist: { check: failing } },
      },
    );
    const dialog = await talk();
    await dialog.say('EHLO client.test');
    for (let i = 0; i < 3; i++) expect(await dialog.send('a@b.test', 'alice@example.test')).toMatch(/^250/);
  });
});

describe('screening', () => {
  it('greylists who is not known, and lets through who comes again', async () => {
    const { talk, clock, history, kv } = await start({ screening: { greylist: { enabled: true, delaySeconds: 60 } } });
    const dialog = await talk();
    await dialog.say('EHLO client.test');
    expect(await dialog.send('a@b.test', 'alice@example.test')).toMatch(
      /^450 4\.7\.1 Greylisted, please try again later \(in \d+ s\)$/,
    );
    await dialog.say('RSET');
    // An address that is not there is refused for good at once.
    expect(await dialog.send('a@b.test', 'nobody@example.test')).toMatch(/^550 5\.1\.1/);
    await dialog.say('RSET');
    clock.shiftMs += 61_000;
    const answer = await dialog.send('a@b.test', 'alice@example.test');
    expect(answer).toMatch(/^250/);
    const [accepted] = await kv.read((reads) => history.read(reads, queueId(answer)));
    expect(accepted!.event).toMatchObject({ checks: { greylist: 'passed' } });
    // Another server of the same network.
    const neighbour = await talk({ remoteAddress: '198.51.100.200' });
    await neighbour.say('EHLO client.test');
    expect(await neighbour.send('new@b.test', 'alice@example.test')).toMatch(/^250/);
    // Known clients, LMTP and users are never put off.
    for (const options of [{ remoteAddress: '10.1.2.3' }, { mode: 'lmtp' as const, remoteAddress: '203.0.113.4' }]) {
      const exempt = await talk(options);
      await exempt.say(options.mode === 'lmtp' ? 'LHLO client.test' : 'EHLO client.test');
      expect(await exempt.send('x@b.test', 'alice@example.test')).toMatch(/^250/);
    }
    const user = await talk({ mode: 'submission', isSecure: true, remoteAddress: '203.0.113.5' });
    await logIn(user);
    expect(await user.send('alice@example.test', 'alice@example.test')).toMatch(/^250/);
  });

  it('greylists for as long as expressions say of a sender', async () => {
    const { talk, clock } = await start({
      screening: {
        greylist: {
          enabled: true,
          delaySeconds: "sender_domain == 'slow.test' ? 600 : 60",
          // Of `odd.test` it is no longer than the delay.
          windowSeconds: "sender_domain == 'odd.test' ? 60 : 7200",
          // biome-ignore lint/suspicious/noThenProperty: it is what settings are written with
          lifetimeSeconds: [{ if: "sender_domain == 'brief.test'", then: 60 }, { else: 86_400 }],
        },
      },
    });
    const send = async (network: number, from: string) => {
      const dialog = await talk({ remoteAddress: `203.0.${network}.1` });
      await dialog.say('EHLO client.test');
      return dialog.send(from, 'alice@example.test');
    };
    const waits = async (network: number, from: string) =>
      Number(/^450 4\.7\.1 .*\(in (\d+) s\)$/.exec(await send(network, from))?.[1]);
    expect(await waits(1, 'a@slow.test')).toBeGreaterThan(500);
    for (const [network, from] of [
      [2, 'a@b.test'],
      [3, 'a@odd.test'],
      [4, 'a@brief.test'],
    ] as const)
      expect(await waits(network, from)).toBeLessThanOrEqual(60);
    clock.shiftMs += 61_000;
    expect(await waits(1, 'a@slow.test')).toBeGreaterThan(400);
    for (const [network, from] of [
      [2, 'a@b.test'],
      [3, 'a@odd.test'],
      [4, 'a@brief.test'],
    ] as const)
      expect(await send(network, from)).toMatch(/^250/);
    clock.shiftMs += 61_000;
    expect(await send(2, 'new@b.test')).toMatch(/^250/);
    expect(await waits(4, 'new@brief.test')).toBeLessThanOrEqual(60);
  });

  it('does with mail for spam traps, and with who sends it, what expressions say', async () => {
    const { talk, limits, node } = await start({
      screening: {
        traps: {
          match: "glob(recipient, 'trap-*@example.test')",
          action: "recipient == 'trap-loud@example.test' ? 'refuse' : 'drop'",
          // biome-ignore lint/suspicious/noThenProperty: it is what settings are written with
          banSeconds: [{ if: "sender_domain == 'partner.test'", then: 0 }, { else: 3_600 }],
        },
      },
    });
    const partner = await talk({ remoteAddress: '203.0.113.1' });
    await partner.say('EHLO client.test');
    expect(await partner.send('a@partner.test', 'trap-loud@example.test')).toMatch(/^550 5\.1\.1/);
    await partner.say('RSET');
    expect(await partner.send('a@partner.test', 'trap-1@example.test')).toMatch(/^250/);
    const other = await talk({ remoteAddress: '203.0.113.9' });
    await other.say('EHLO client.test');
    expect(await other.send('a@b.test', 'trap-1@example.test')).toMatch(/^250/);
    for (let i = 0; i < 100 && !limits.bans.find('203.0.113.9'); i++) await node.clock.sleep(5);
    expect(limits.bans.find('203.0.113.9')).toMatchObject({ reason: 'spam-trap' });
    expect(limits.bans.find('203.0.113.1')).toBeUndefined();
  });

  it('weighs what blocklists say by expressions, and says who weighs most', async () => {
    const { talk, dns, history, kv } = await start({
      screening: {
        blocklists: {
          zones: [
            { zone: 'light.test', weight: 4 },
            { zone: 'heavy.test', weight: "helo == 'friend.test' ? 0 : 7" },
          ],
          refuseAtWeight: "local_part(recipient) == 'alice' ? 10 : 5",
        },
      },
    });
    for (const zone of ['light.test', 'heavy.test']) dns.records.set(`7.100.51.198.${zone} A`, ['127.0.0.2']);
    dns.records.set('7.100.51.198.heavy.test TXT', ['Much came from there']);
    const texts = () => dns.questions.filter((question) => question.endsWith('TXT'));
    const friend = await talk();
    await friend.say('EHLO friend.test');
    const answer = await friend.send('a@b.test', 'alice@example.test');
    expect(answer).toMatch(/^250/);
    const [accepted] = await kv.read((reads) => history.read(reads, queueId(answer)));
    expect(accepted!.event).toMatchObject({ checks: { blocklists: 'light.test heavy.test (weight 4)' } });
    expect(texts()).toEqual([]);
    const stranger = await talk();
    await stranger.say('EHLO stranger.test');
    for (let i = 0; i < 2; i++) {
      expect(await stranger.send('a@b.test', 'alice@example.test')).toBe(
        '554 5.7.1 198.51.100.7 is listed by heavy.test: Much came from there',
      );
      await stranger.say('RSET');
    }
    expect(texts()).toEqual(['7.100.51.198.heavy.test TXT']);
  });

  it('takes mail for spam traps, throws it away, and bans the client', async () => {
    const { talk, lookups, limits, node, alice } = await start({
      screening: { traps: { lists: ['traps'], match: "glob(recipient, 'trap-*@example.test')" } },
    });
    await lookups.set('traps', [{ key: 'old.address@example.test', value: '' }]);
    const dialog = await talk();
    await dialog.say('EHLO client.test');
    expect(await dialog.send('a@b.test', ['Old.Address@example.test', 'trap-1@example.test'])).toMatch(
      /^250 2\.0\.0 Ok: queued as/,
    );
    expect(await dialog.send('a@b.test', ['alice@example.test', 'trap-1@example.test'])).toMatch(/^250/);
    expect(await node.mailbox(alice)).toHaveLength(1);
    expect(await node.queue.list()).toEqual([]);
    for (let i = 0; i < 100 && !limits.bans.find('198.51.100.7'); i++) await node.clock.sleep(5);
    expect(limits.bans.find('198.51.100.7')).toMatchObject({ reason: 'spam-trap' });
    expect(limits.bans.find('198.51.100.8')).toBeUndefined();
    // A user who writes there is told as anybody else whose recipient is not there.
    const user = await talk({ mode: 'submission', isSecure: true, remoteAddress: '203.0.113.5' });
    await logIn(user);
    expect(await user.send('alice@example.test', 'trap-1@example.test')).toMatch(/^550 5\.1\.1/);
    expect(limits.bans.find('203.0.113.5')).toBeUndefined();
  });

  it('refuses whom blocklists list, at RCPT, but not for the postmaster, users and neighbours', async () => {
    const { talk, dns } = await start({
      screening: { blocklists: { zones: [{ zone: 'bl.test', answers: ['127.0.0.2'] }] }, knownClients: ['198.51.100.64/26'] },
    });
    for (const last of [7, 70]) dns.records.set(`${last}.100.51.198.bl.test A`, ['127.0.0.2']);
    dns.records.set('7.100.51.198.bl.test TXT', ['Spam came from there']);
    const dialog = await talk();
    expect(dialog.greeting).toMatch(/^220/);
    await dialog.say('EHLO client.test');
    expect(await dialog.send('a@b.test', 'alice@example.test')).toBe(
      '554 5.7.1 198.51.100.7 is listed by bl.test: Spam came from there',
    );
    expect(await dialog.say('RCPT TO:<postmaster>')).toMatch(/^550 5\.1\.1/);
    const neighbour = await talk({ remoteAddress: '198.51.100.70' });
    await neighbour.say('EHLO client.test');
    expect(await neighbour.send('a@b.test', 'alice@example.test')).toMatch(/^250/);
    const loopback = await talk({ remoteAddress: '127.0.0.1' });
    await loopback.say('EHLO client.test');
    expect(await loopback.send('a@b.test', 'alice@example.test')).toMatch(/^250/);
    const user = await talk({ mode: 'submission', isSecure: true });
    await logIn(user);
    expect(await user.send('alice@example.test', 'alice@example.test')).toMatch(/^250/);
    expect(dns.questions.filter((question) => question.includes('bl.test'))).toEqual([
      '7.100.51.198.bl.test A',
      '7.100.51.198.bl.test TXT',
    ]);
  });
});

describe('VRFY and EXPN', () => {
  it('answer users, and nobody else', async () => {
    const { talk, node } = await start();
    await node.directory.createPrincipal({
      kind: 'list',
      address: 'staff@example.test',
      members: ['alice@example.test', 'x@far.test'],
    });
    const stranger = await talk();
    await stranger.say('EHLO client.test');
    expect(await stranger.say('VRFY alice@example.test')).toMatch(/^252/);
    const user = await talk({ mode: 'submission', isSecure: true });
    await logIn(user);
    expect(await user.say('VRFY alice@example.test')).toBe('250 2.1.5 alice <alice@example.test>');
    expect(await user.say('VRFY <nobody@example.test>')).toMatch(/^550 5\.1\.1/);
    expect(await user.say('VRFY x@far.test')).toMatch(/^252/);
    expect(await user.say('EXPN staff@example.test')).toBe('250-2.1.5 <alice@example.test>\n250 2.1.5 <x@far.test>');
    expect(await user.say('EXPN alice@example.test')).toMatch(/^550 5\.1\.1/);
  });
});

describe('the history', () => {
  it('begins with the acceptance, on the way through the queue and on the short way', async () => {
    const { talk, history, kv, node } = await start({ accept: { rcpt: { relay: true } } });
    const dialog = await talk({ listener: 'mx' });
    await dialog.say('EHLO client.test');
    const direct = queueId(await dialog.send('a@b.test', 'alice@example.test', 'Message-ID: <m@b.test>\r\n\r\nx'));
    const records = await kv.read((reads) => history.read(reads, direct));
    expect(records.map(({ event }) => event.kind)).toEqual(['accepted', 'attempt', 'done']);
    expect(records[0]).toMatchObject({
      nodeId: node.node.nodeId,
      event: {
        from: 'a@b.test',
        recipients: ['alice@example.test'],
        recipientCount: 1,
        protocol: 'smtp',
        remoteAddress: '198.51.100.7',
        helo: 'client.test',
        messageId: '<m@b.test>',
        checks: {},
      },
    });
    node.resolver.isDown = true;
    const queued = queueId(await dialog.send('a@b.test', ['alice@example.test', 'carol@down.test']));
    const [accepted] = await kv.read((reads) => history.read(reads, queued));
    expect(accepted!.event).toMatchObject({ kind: 'accepted', recipientCount: 2 });
  });
});

describe('what operators write', () => {
  it('is refused with its place when it is no expression of that stage, and kept as it was written', async () => {
    const { change, settings } = await start();
    await expect(change({ accept: { rcpt: { relay: 'recipient' } } })).rejects.toThrow(/accept\.rcpt\.relay/);
    // Nobody has named a recipient yet.
    await expect(change({ accept: { connect: { refuse: 'recipient' } } })).rejects.toThrow(/accept\.connect\.refuse/);
    await expect(change({ smtp: { maxMessageBytes: 10 } })).rejects.toThrow(/smtp\.maxMessageBytes/);
    const twice = { name: 'x', stage: 'mail', count: 1, periodSeconds: 1 };
    await expect(change({ limits: { rates: [twice, twice] } })).rejects.toThrow(/same name/);
    await expect(change({ screening: { knownClients: ['10.0.0.0/33'] } })).rejects.toThrow(/knownClients/);
    for (const [section, value, message] of [
      ['smtp', { bareLineEnds: 'repair' }, /smtp\.bareLineEnds: line 1, column 1: 'repair' is none of refuse, normalise/],
      ['smtp', { bareLineEnds: 'maxErrors > 1' }, /smtp\.bareLineEnds: line 1, column 1: there is no variable 'maxErrors'/],
      // Nobody has named a sender yet when it is settled for the session.
      ['smtp', { bareLineEnds: "is_tls && sender == '' ? 'refuse' : 'normalise'" }, /smtp\.bareLineEnds: line 1, column 11: /],
      ['screening', { greylist: { delaySeconds: "'60'" } }, /greylist\.delaySeconds: line 1, column 1: /],
      ['screening', { greylist: { delaySeconds: 0 } }, /greylist\.delaySeconds: line 1, column 1: 0 is below 1/],
      ['screening', { greylist: { delaySeconds: 600, windowSeconds: 600 } }, /greylist\.windowSeconds: it must be longer/],
      ['screening', { greylist: { delaySeconds: '10 *', windowSeconds: 60 } }, /greylist\.delaySeconds: line 1, column \d+: /],
      [
        'screening',
        // biome-ignore lint/suspicious/noThenProperty: it is what settings are written with
        { greylist: { lifetimeSeconds: [{ if: '1', then: 60 }] } },
        /lifetimeSeconds\.0\.if: \[0\]\.if, line 1, column 1: /,
      ],
      ['screening', { traps: { action: "is_tls ? 'drop' : 1" } }, /traps\.action: line 1, column \d+: /],
      ['screening', { traps: { banSeconds: true } }, /traps\.banSeconds: line 1, column 1: /],
      [
        'screening',
        { blocklists: { zones: [{ zone: 'bl.test', weight: 'size > 1' }] } },
        /zones\.0\.weight: line 1, column 1: it gives bool, but int is wanted/,
      ],
      ['screening', { blocklists: { refuseAtWeight: 'helo' } }, /blocklists\.refuseAtWeight: line 1, column 1: /],
    ] as const)
      await expect(change({ [section]: value }), JSON.stringify(value)).rejects.toThrow(message);
    // As the release before reads them.
    const constants = {
      smtp: { bareLineEnds: 'normalise' },
      screening: {
        greylist: { delaySeconds: 60, windowSeconds: 600, lifetimeSeconds: 6_000 },
        traps: { action: 'refuse', banSeconds: 0 },
        blocklists: { zones: [{ zone: 'bl.test', weight: 5 }], refuseAtWeight: 6 },
      },
    };
    await change(constants);
    expect(settings.explicit()).toEqual(constants);
    const relay = "authenticated_as != '' || in_network(remote_ip, '10.20.0.0/16')";
    await change({ accept: { rcpt: { relay } } });
    expect(settings.current.accept.rcpt.relay).toBe(relay);
  });
});
