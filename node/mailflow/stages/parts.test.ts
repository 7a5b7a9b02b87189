/** The small parts of the stages: replies out of settings, reversed names, blocklists against a DNS server. */
import { afterEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock } from '../../../ops/telemetry/index.js';
import { SystemResolver } from '../../../protocols/dns/index.js';
import { type DnsServer, startDnsServer } from '../testing/dns-server.js';
import { Asker } from './ask.js';
import { type BlocklistLook, Blocklists } from './blocklists.js';
import type { BlocklistStage } from './contract.js';
import { constantly } from './defaults.js';
import { bannableNetwork, isPrivateAddress, networkSet, reversedLabels } from './networks.js';
import { rewrittenRecipient, rewrittenSender } from './paths.js';
import { refusalOf, refusals } from './refusal.js';

describe('refusals out of settings', () => {
  it.each([
    ['', undefined],
    ['  ', undefined],
    ['550 5.7.1 Go away', { code: 550, enhanced: '5.7.1', text: 'Go away' }],
    ['450 Later', { code: 450, enhanced: '4.7.1', text: 'Later' }],
    // A code of another class is not believed.
    ['450 5.1.1 Later', { code: 450, enhanced: '4.7.1', text: 'Later' }],
    ['Not you', { ...refusals.mail, text: 'Not you' }],
    ['250 2.0.0 Fine', { ...refusals.mail, text: '250 2.0.0 Fine' }],
  ])('%j', (text, expected) => {
    expect(refusalOf(text, refusals.mail)).toEqual(expected);
  });
});

describe('addresses', () => {
  it('are reversed by octets and by nibbles (RFC 5782 2.1, 2.4)', () => {
    expect(reversedLabels('192.0.2.99')).toBe('99.2.0.192');
    expect(reversedLabels('2001:db8:1:2:3:4:567:89ab')).toBe('b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2');
    expect(reversedLabels('2001:db8::1')).toBe('1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2');
    expect(reversedLabels('somewhere')).toBeUndefined();
  });

  it('are banned alone, or with the network within which they are free', () => {
    expect(bannableNetwork('192.0.2.99')).toBe('192.0.2.99');
    expect(bannableNetwork('2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1:2::/64');
  });

  it('lie in networks', () => {
    const isIn = networkSet(['192.0.2.0/24', '2001:db8::1', '203.0.113.9']);
    expect(['192.0.2.7', '2001:db8::1', '203.0.113.9'].map(isIn)).toEqual([true, true, true]);
    expect(['192.0.3.7', '2001:db8::2', '203.0.113.8', 'x', ''].map(isIn)).toEqual([false, false, false, false, false]);
  });

  it('that no public list knows are told from the others', () => {
    for (const own of ['127.0.0.1', '::1', '10.1.2.3', '::ffff:10.1.2.3', 'fe80::1', '0.0.0.0', '::'])
      expect(isPrivateAddress(own)).toBe(true);
    for (const other of ['192.0.2.1', '::ffff:192.0.2.1', '2001:db8::1', 'nobody']) expect(isPrivateAddress(other)).toBe(false);
  });

  it('that rules make are held to the grammar', () => {
    expect(rewrittenSender('')).toBe('');
    expect(rewrittenSender('a@b.test')).toBe('a@b.test');
    expect(rewrittenRecipient('a@b.test')).toBe('a@b.test');
    for (const bad of ['a', 'a b@c.test', 'a@b.test> SIZE=1', 'a@b.test\r\nRCPT TO:<x@y.test>', '<a@b.test>', '<undecided>'])
      expect(rewrittenRecipient(bad)).toBeUndefined();
    expect(rewrittenRecipient('')).toBeUndefined();
  });
});

describe('checks that can not be made', () => {
  it('are left out: when they fail, and when they take too long', async () => {
    const sleeps: number[] = [];
    const clock = {
      ...systemClock,
      sleep: async (ms: number) => {
        sleeps.push(ms);
        await new Promise((resolve) => setImmediate(resolve));
      },
    };
    const asker = new Asker({ clock, logger: silentLogger });
    expect(await asker.lenient('test', async () => 'answer', 'none')).toBe('answer');
    expect(await asker.lenient('test', () => Promise.reject(new Error('store')), 'none')).toBe('none');
    let answer!: (value: string) => void;
    const slow = new Promise<string>((resolve) => {
      answer = resolve;
    });
    const late: string[] = [];
    expect(
      await asker.lenient(
        'test',
        () => slow,
        'none',
        (value) => late.push(value),
      ),
    ).toBe('none');
    expect(sleeps.at(-1)).toBe(3_000);
    answer('too late');
    await slow;
    await new Promise((resolve) => setImmediate(resolve));
    expect(late).toEqual(['too late']);
  });
});

describe('blocklists', () => {
  let dns: DnsServer;
  afterEach(() => dns.close());

  const stageOf = (more: Partial<BlocklistStage> = {}): BlocklistStage => ({
    isOn: constantly('bool', true),
    zones: [
      { zone: 'one.test', answers: networkSet(['127.0.0.0/8']), weight: constantly('int', 5), timeoutMs: 2_000 },
      { zone: 'two.test', answers: networkSet(['127.0.0.2', '127.0.0.4/30']), weight: constantly('int', 7), timeoutMs: 2_000 },
    ],
    refuseAtWeight: constantly('int', 10),
    cacheSeconds: 60,
    reply: constantly('string', ''),
    ...more,
  });

  async function start() {
    dns = await startDnsServer();
    const clock = { ...systemClock, nowMs: systemClock.nowMs, monotonicMs: () => systemClock.monotonicMs() + shiftMs };
    const resolver = new SystemResolver({ servers: [dns.address], timeoutMs: 300, tries: 1, maxCacheEntries: 0 });
    return new Blocklists({ resolver, clock, logger: silentLogger });
  }
  let shiftMs = 0;

  const zonesOf = async ({ listedBy }: BlocklistLook) => (await listedBy).map(({ zone }) => zone);

  it('tell which list a client, in their order, and what one of them says of it, asked once', async () => {
    const lists = await start();
    dns.records.set('1.2.0.192.one.test A', ['127.0.0.2']);
    dns.records.set('1.2.0.192.two.test A', ['127.0.0.6']);
    dns.records.set('1.2.0.192.two.test TXT', ['Listed, see https://two.test/?ip=192.0.2.1']);
    const stage = stageOf();
    const look = lists.look('192.0.2.1', stage);
    expect(await zonesOf(look)).toEqual(['one.test', 'two.test']);
    // Nobody is refused yet: no text is wanted.
    expect(dns.questions.filter((question) => question.endsWith('TXT'))).toEqual([]);
    for (let i = 0; i < 2; i++) expect(await look.textOf(stage.zones[1]!)).toBe('Listed, see https://two.test/?ip=192.0.2.1');
    expect(dns.questions.filter((question) => question.endsWith('TXT'))).toHaveLength(1);
    expect(await look.textOf(stage.zones[0]!)).toBeUndefined();
    // Answers that the operator does not name, and names that do not exist, are no listing.
    dns.records.set('2.2.0.192.two.test A', ['127.0.0.3']);
    expect(await zonesOf(lists.look('192.0.2.2', stage))).toEqual([]);
    const nibbles = '1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2';
    dns.records.set(`${nibbles}.one.test A`, ['127.0.0.2']);
    expect(await zonesOf(lists.look('2001:db8::1', stage))).toEqual(['one.test']);
  });

  it('that refuse to answer, fail, are silent, or answer with something else say nothing', async () => {
    const lists = await start();
    dns.records.set('1.2.0.192.one.test A', ['127.255.255.254']);
    dns.records.set('1.2.0.192.two.test A', 'failure');
    expect(await zonesOf(lists.look('192.0.2.1', stageOf()))).toEqual([]);
    dns.records.set('2.2.0.192.one.test A', ['203.0.113.80']);
    dns.records.set('2.2.0.192.two.test A', 'silence');
    expect(await zonesOf(lists.look('192.0.2.2', stageOf()))).toEqual([]);
  });

  it('that are away are complained of now and then, not for each client', async () => {
    dns = await startDnsServer();
    const warnings: unknown[] = [];
    const logger = Object.assign(Object.create(silentLogger), {
      warn: (facts: unknown) => warnings.push(facts),
    }) as typeof silentLogger;
    const resolver = new SystemResolver({ servers: [dns.address], timeoutMs: 300, tries: 1, maxCacheEntries: 0 });
    const lists = new Blocklists({
      resolver,
      clock: { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + shiftMs },
      logger,
    });
    const askAbout = async (last: number) => {
      dns.records.set(`${last}.2.0.192.one.test A`, 'failure');
      return lists.look(`192.0.2.${last}`, stageOf()).listedBy;
    };
    for (let last = 1; last <= 5; last++) await askAbout(last);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatchObject({ zone: 'one.test' });
    shiftMs += 61_000;
    await askAbout(6);
    expect(warnings).toHaveLength(2);
  });

  it('are asked once for many connections of a client, again when the answer is old, and soon when one was missing', async () => {
    const lists = await start();
    const stage = stageOf();
    const asked = () => dns.questions.filter((question) => question.endsWith('one.test A')).length;
    const looks = [lists.look('192.0.2.1', stage), lists.look('192.0.2.1', stage)];
    expect(looks[0]).toBe(looks[1]);
    await looks[0]!.listedBy;
    await lists.look('192.0.2.1', stage).listedBy;
    expect(asked()).toBe(1);
    shiftMs += 61_000;
    await lists.look('192.0.2.1', stage).listedBy;
    expect(asked()).toBe(2);
    dns.records.set('9.2.0.192.two.test A', 'failure');
    await lists.look('192.0.2.9', stage).listedBy;
    shiftMs += 11_000;
    await lists.look('192.0.2.9', stage).listedBy;
    expect(asked()).toBe(4);
  });
});
