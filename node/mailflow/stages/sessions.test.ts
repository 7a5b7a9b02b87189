/** Stages in sessions with a real receiver, store and limits: what is held and given back, who is banned and who is not, and that nothing set costs nothing. */
import { afterEach, describe, expect, it } from 'vitest';
import { silentLogger, systemRandom } from '../../../ops/telemetry/index.js';
import { SystemResolver } from '../../../protocols/dns/index.js';
import { type KvStore, MemoryDatabase, openMemoryStore } from '../../../store/kv/index.js';
import { createLimits } from '../../../store/limits/index.js';
import { createLookups } from '../../../store/lookups/index.js';
import type { StageExpression } from '../../expressions/contract.js';
import { type DialogOptions, startDialog } from '../testing/dialog.js';
import { type DnsServer, startDnsServer } from '../testing/dns-server.js';
import { ShiftedClock, startTestNode, type TestNode } from '../testing/node.js';
import type { AcceptStages, ConcurrencyRule, RateRule } from './contract.js';
import { constantly, defaultStages } from './defaults.js';
import { networkSet } from './networks.js';

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** Writes down what is asked of the store. */
function watched(kv: KvStore): { kv: KvStore; labels: string[] } {
  const labels: string[] = [];
  const seen = Object.create(kv) as KvStore;
  for (const method of ['transact', 'transactVersioned', 'read'] as const) {
    const real = kv[method].bind(kv) as (body: never, options?: { label?: string }) => Promise<never>;
    seen[method] = (body: never, options?: { label?: string }) => {
      labels.push(options?.label ?? 'unnamed');
      return real(body, options);
    };
  }
  return { kv: seen, labels };
}

async function start(change: Partial<AcceptStages> = {}, { hasRooms = true, isRunning = true } = {}) {
  const { kv, labels } = watched(openMemoryStore({ database: new MemoryDatabase() }));
  const clock = new ShiftedClock();
  const parts = { kv, clock, random: systemRandom, logger: silentLogger };
  const limits = createLimits({ ...parts, nodeId: () => node.node.nodeId });
  await limits.bans.start();
  const dns: DnsServer = await startDnsServer();
  const resolver = new SystemResolver({ servers: [dns.address], timeoutMs: 300, tries: 1 });
  const stages = { ...defaultStages, ...change };
  const rooms = { limits, bans: limits.bans, lookups: createLookups(parts), resolver };
  const receiver = { stages: () => stages, ...(hasRooms && rooms) };
  const node: TestNode = await startTestNode({ kv, clock, isDirect: true, isRunning, receiver });
  closers.push(
    () => dns.close(),
    () => limits.stop(),
    () => node.close(),
  );
  await node.account('alice@example.test', { password: 'wonderland' });
  const talk = async (options: Partial<DialogOptions> = {}) => {
    const dialog = await startDialog({ handler: node.receiver.handler, clock, ...options });
    closers.push(() => dialog.close());
    return dialog;
  };
  return { node, limits, dns, labels, talk };
}

const on = constantly('bool', true);
const none = constantly('string', '');
const slots = (name: string, more: Partial<ConcurrencyRule> = {}): ConcurrencyRule => ({
  ...{ name, match: on, key: constantly('string', 'all'), max: constantly('int', 2), reply: none },
  ...more,
});
const rate = (name: string, count: number): RateRule => ({
  ...{ name, match: on, key: constantly('string', 'all'), amount: constantly('int', 1), reply: none },
  ...{ count: constantly('int', count), periodSeconds: 60 },
});
const noRates = defaultStages.rates;
const user = { mode: 'submission', isSecure: true } as const;
const logIn = `AUTH PLAIN ${Buffer.from('\0alice@example.test\0wonderland').toString('base64')}`;

describe('slots', () => {
  it('are not held by logins that were refused, however often one connection tries', async () => {
    const { talk } = await start({
      concurrency: {
        connect: [],
        auth: [slots('first'), slots('second', { max: constantly('int', 0), reply: constantly('string', '454 4.7.0 Later') })],
      },
    });
    const dialog = await talk(user);
    await dialog.say('EHLO client.test');
    for (let i = 0; i < 3; i++) expect(await dialog.say(logIn)).toBe('454 4.7.0 Later');
  });

  it('are free again after a rate has refused the login', async () => {
    const { talk, limits } = await start({
      concurrency: { connect: [], auth: [slots('sessions')] },
      rates: { ...noRates, auth: [rate('logins', 0)] },
    });
    const dialog = await talk(user);
    await dialog.say('EHLO client.test');
    for (let i = 0; i < 3; i++) expect(await dialog.say(logIn)).toMatch(/^450 4\.7\.1 Too much at once/);
    const all = await Promise.all([1, 2].map(() => limits.concurrency.acquire('sessions', 'all', 2)));
    expect(all.every((release) => release !== undefined)).toBe(true);
  });
});

describe('spam traps', () => {
  const traps = { isTrap: on, lists: [], action: constantly('string', 'refuse'), banSeconds: constantly('int', 60) };

  it('do not get a server banned that sends back what somebody else has forged', async () => {
    const { talk, limits, node } = await start({ traps });
    const dialog = await talk();
    await dialog.say('EHLO client.test');
    expect(await dialog.send('', 'alice@example.test')).toMatch(/^550 5\.1\.1/);
    await dialog.say('RSET');
    await node.clock.sleep(50);
    expect(limits.bans.find('198.51.100.7')).toBeUndefined();
    expect(await dialog.send('a@b.test', 'alice@example.test')).toMatch(/^550 5\.1\.1/);
    for (let i = 0; i < 100 && !limits.bans.find('198.51.100.7'); i++) await node.clock.sleep(5);
    expect(limits.bans.find('198.51.100.7')).toMatchObject({ reason: 'spam-trap' });
  });

  it('ban each client that a proxy speaks for, and not the proxy', async () => {
    const { talk, limits, node } = await start({ traps, policy: { isTrustedPeer: on } });
    const dialog = await talk();
    for (const client of ['203.0.113.1', '203.0.113.2']) {
      await dialog.say('EHLO proxy.test');
      expect(await dialog.say(`XCLIENT ADDR=${client}`)).toMatch(/^220/);
      await dialog.say('EHLO client.test');
      expect(await dialog.send('a@b.test', 'alice@example.test')).toMatch(/^550 5\.1\.1/);
      for (let i = 0; i < 100 && !limits.bans.find(client); i++) await node.clock.sleep(5);
      expect(limits.bans.find(client)).toMatchObject({ reason: 'spam-trap' });
      await dialog.say('RSET');
    }
    expect(limits.bans.find('198.51.100.7')).toBeUndefined();
    expect(await dialog.say('XCLIENT ADDR=203.0.113.1')).toMatch(/^421 4\.7\.0/);
  });
});

describe('blocklists', () => {
  it('are left alone at RCPT for whom an expression spares once more is known of him', async () => {
    const isOn: StageExpression<'bool'> = {
      ...{ type: 'bool', constant: undefined, mayWait: false },
      evaluate: ({ helo }) => helo !== 'friend.test',
    };
    const ten = constantly('int', 10);
    const zones = [{ zone: 'bl.test', answers: networkSet(['127.0.0.2']), weight: ten, timeoutMs: 1_000 }];
    const { talk, dns } = await start({ blocklists: { isOn, zones, refuseAtWeight: ten, cacheSeconds: 60, reply: none } });
    dns.records.set('7.100.51.198.bl.test A', ['127.0.0.2']);
    const stranger = await talk();
    await stranger.say('EHLO stranger.test');
    expect(await stranger.send('a@b.test', 'alice@example.test')).toMatch(/^554 5\.7\.1/);
    const friend = await talk();
    await friend.say('EHLO friend.test');
    expect(await friend.send('a@b.test', 'alice@example.test')).toMatch(/^250/);
  });
});

describe('where nothing is set', () => {
  it('accepting asks no more of the store than without limits, bans and look-up lists: one transaction, and reads of the directory', async () => {
    for (const hasRooms of [false, true]) {
      const { talk, labels, dns } = await start({}, { hasRooms, isRunning: false });
      const accept = async () => {
        const dialog = await talk();
        await dialog.say('EHLO client.test');
        expect(await dialog.send('a@b.test', 'alice@example.test')).toMatch(/^250/);
        expect(await dialog.say('QUIT')).toMatch(/^221/);
      };
      await accept();
      // What is remembered from the first time is not asked again.
      labels.length = 0;
      await accept();
      expect(labels.filter((label) => label !== 'directory')).toEqual(['deliver-direct']);
      expect(dns.questions).toEqual([]);
    }
  });
});
