/** The small parts of what leaves: pace, order of addresses, ourselves, TLS, limits, choices, routes. */
import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import { KvError } from '../../../store/kv/contract.js';
import { findRoute, type RemoteRoute } from '../remote-route.js';
import { defaultMailflowSettings } from '../settings.js';
import { TableResolver } from '../testing/node.js';
import { inOrder, leadsHome } from './addresses.js';
import { createChoices } from './choices.js';
import { defaultOutboundSettings, type OutboundSettings } from './contract.js';
import { errorClassOf } from './facts.js';
import { createHostMemory } from './host-memory.js';
import { createOwnTrouble } from './own-trouble.js';
import { createPacer } from './pacer.js';
import { admit } from './throttle.js';
import { hostTls } from './tls.js';
import { createTurns } from './turns.js';

const never = new AbortController().signal;
const choices = createChoices({ logger: silentLogger, clock: systemClock });
const settings = (more: Partial<OutboundSettings> = {}): OutboundSettings => ({ ...defaultOutboundSettings, ...more });

describe('pacer', () => {
  it('grows by one in a round of good deliveries, up to the setting', async () => {
    let max = 8;
    const pacer = createPacer(() => max);
    expect(pacer.limitOf('a.test')).toBe(5);
    for (let i = 0; i < 6; i++) (await pacer.enter('a.test', never))('good');
    expect(pacer.limitOf('a.test')).toBe(6);
    for (let i = 0; i < 100; i++) (await pacer.enter('a.test', never))('good');
    expect(pacer.limitOf('a.test')).toBe(8);
    max = 3;
    expect(pacer.limitOf('a.test')).toBe(3);
    expect(pacer.limitOf('other.test')).toBe(3);
  });

  it('halves once for all that fail together, never below one', async () => {
    const pacer = createPacer(() => 20);
    for (let i = 0; i < 400; i++) (await pacer.enter('a.test', never))('good');
    expect(pacer.limitOf('a.test')).toBe(20);
    const together = await Promise.all(Array.from({ length: 20 }, () => pacer.enter('a.test', never)));
    for (const leave of together) leave('bad');
    expect(pacer.limitOf('a.test')).toBe(10);
    for (let i = 0; i < 20; i++) (await pacer.enter('a.test', never))('bad');
    expect(pacer.limitOf('a.test')).toBe(1);
    (await pacer.enter('a.test', never))('neutral');
    expect(pacer.limitOf('a.test')).toBe(1);
  });

  it('lets the next in when one leaves, in turn, and lets go of who is called off', async () => {
    const pacer = createPacer(() => 1);
    const first = await pacer.enter('a.test', never);
    const order: string[] = [];
    const second = pacer.enter('a.test', never).then((leave) => {
      order.push('second');
      return leave;
    });
    const called = new AbortController();
    const third = pacer.enter('a.test', called.signal);
    const fourth = pacer.enter('a.test', never).then((leave) => {
      order.push('fourth');
      return leave;
    });
    called.abort(new Error('called off'));
    await expect(third).rejects.toThrow('called off');
    await expect(pacer.enter('a.test', called.signal)).rejects.toThrow('called off');
    expect(pacer.runningOf('a.test')).toBe(1);
    first('good');
    first('good');
    (await second)('good');
    (await fourth)('good');
    expect(order).toEqual(['second', 'fourth']);
    expect(pacer.runningOf('a.test')).toBe(0);
  });
});

describe('addresses', () => {
  const [a, b, c, d] = ['2001:db8::1', '2001:db8::2', '192.0.2.1', '192.0.2.2'] as const;
  it('take turns by family, the preferred one first; what does not work from here comes last', () => {
    const up = () => false;
    expect(inOrder([a, b, c, d], 'prefer6', up)).toEqual([a, c, b, d]);
    expect(inOrder([a, b, c], 'prefer4', up)).toEqual([c, a, b]);
    expect(inOrder([a, c], 'only4', up)).toEqual([c]);
    expect(inOrder([a, c], 'only6', up)).toEqual([a]);
    expect(inOrder([a, b, c, d], 'prefer6', (family) => family === 6)).toEqual([c, d, a, b]);
    expect(inOrder([a, b], 'prefer6', () => true)).toEqual([a, b]);
  });

  it('that are nowhere, loopback on the public port, or a place where we listen lead home', () => {
    const own = [
      { address: '192.0.2.9', port: 25 },
      { address: '0.0.0.0', port: 2525 },
      { address: '2001:DB8:0::9', port: 25 },
    ];
    const leads = (address: string, port: number) => leadsHome(address, port, own, ['198.51.100.7', 'fe80::1%eth0']);
    const home: [string, number][] = [
      ['0.0.0.0', 26],
      ['::', 25],
      ['127.0.0.2', 25],
      ['::1', 25],
      ['::ffff:127.0.0.1', 25],
      ['192.0.2.9', 25],
      ['2001:db8::9', 25],
      ['198.51.100.7', 2525],
      ['127.0.0.1', 2525],
    ];
    for (const [address, port] of home) expect(leads(address, port), address).toBe(true);
    const away: [string, number][] = [
      ['192.0.2.9', 26],
      ['192.0.2.10', 25],
      ['127.0.0.1', 10_025],
      ['198.51.100.7', 25],
      ['203.0.113.1', 2525],
    ];
    for (const [address, port] of away) expect(leads(address, port), address).toBe(false);
  });
});

describe('TLS of a host', () => {
  it('is never less than a policy or the message demands', () => {
    const verify = () => ({ ok: true }) as const;
    const policy = { mode: 'verified', verify, reason: 'dane' } as const;
    expect(hostTls('opportunistic', undefined, false, undefined)).toMatchObject({ tls: { mode: 'opportunistic' } });
    expect(hostTls('none', policy, false, 'broken')).toMatchObject({
      demand: 'verified',
      reason: 'dane',
      tls: { mode: 'required', verify },
    });
    const weak = { mode: 'opportunistic', reason: 'testing' } as const;
    expect(hostTls('required', weak, false, 'broken')).toMatchObject({
      demand: 'required',
      reason: 'settings',
      tls: { mode: 'required' },
    });
    const sender = hostTls('opportunistic', undefined, true, 'broken');
    expect(sender).toEqual({ demand: 'verified', reason: 'requiretls', tls: { mode: 'required' } });
    expect(hostTls('opportunistic', undefined, false, 'broken').tls).toEqual({ mode: 'none', plainBecause: 'broken' });
    expect(hostTls('implicit', weak, true, undefined).tls).toEqual({ mode: 'implicit' });
  });

  it('is not judged by a policy that only watches where settings or the message demand a good certificate', () => {
    const watching = { mode: 'opportunistic', verify: () => ({ ok: true }) as const, reason: 'testing' } as const;
    expect(hostTls('verified', watching, false, undefined).tls).toEqual({ mode: 'required' });
    expect(hostTls('opportunistic', watching, true, undefined).tls).toEqual({ mode: 'required' });
  });
});

describe('memory of hosts', () => {
  it('forgets in time, and tells news once', () => {
    let nowMs = 0;
    const memory = createHostMemory({ ...systemClock, monotonicMs: () => nowMs });
    memory.remember('tls mx:25', 'it broke', 10);
    expect(memory.recall('tls mx:25')).toBe('it broke');
    expect(memory.isNews('x', 5)).toBe(true);
    expect(memory.isNews('x', 5)).toBe(false);
    nowMs = 10_000;
    expect(memory.recall('tls mx:25')).toBeUndefined();
    expect(memory.isNews('x', 5)).toBe(true);
    for (let i = 0; i < 12_000; i++) memory.remember(`h${i}`, '', 100);
    expect(memory.recall('h0')).toBeUndefined();
    expect(memory.recall('h11999')).toBe('');
  });
});

describe('choices', () => {
  it('come from expressions over the queue and the host; nonsense gives way to the default', async () => {
    const chosen = settings({
      // biome-ignore lint/suspicious/noThenProperty: that is how alternatives are written
      tls: [{ if: "mx.endsWith('.strict.test')", then: "'verified'" }, { else: "'none'" }],
      sourceAddress4: "sender_domain == 'a.test' ? '192.0.2.4' : 'nonsense'",
      sourceAddress6: "'2001:db8::4'",
      heloName: "retry_num > 0 ? 'two words' : 'out.' + hostname",
      route: "size > 10 ? 'big' : ''",
    });
    expect(await choices.tls(chosen, () => ({ mx: 'mx.strict.test' }))).toBe('verified');
    expect(await choices.tls(chosen, () => ({ mx: 'mx.test' }))).toBe('none');
    expect(await choices.sourceAddress(chosen, '192.0.2.1', () => ({ sender_domain: 'a.test' }))).toBe('192.0.2.4');
    expect(await choices.sourceAddress(chosen, '192.0.2.1', () => ({ sender_domain: 'b.test' }))).toBeUndefined();
    expect(await choices.sourceAddress(chosen, '2001:db8::1', () => ({}))).toBe('2001:db8::4');
    expect(await choices.heloName(chosen, () => ({ hostname: 'mx.test' }))).toBe('out.mx.test');
    expect(await choices.heloName(chosen, () => ({ hostname: 'mx.test', retry_num: 1 }))).toBeUndefined();
    expect(await choices.routeName(chosen, () => ({ size: 11 }))).toBe('big');
    expect(await choices.routeName(settings(), () => ({ size: 11 }))).toBe('');
    // Whoever wrote an expression about TLS that fails wanted TLS.
    const broken = settings({ tls: "sender_domain.substring(5) == 'x' ? 'none' : 'none'" });
    expect(await choices.tls(broken, () => ({ sender_domain: 'a' }))).toBe('required');
  });
});

describe('limits of the cluster', () => {
  const facts = () => ({ rcpt_domain: 'a.test', sender: 'x@b.test' });
  it('hold what matches by its key, and give concurrency back', async () => {
    const taken: string[] = [];
    let held = 0;
    const d = {
      logger: silentLogger,
      rates: {
        take: async (name: string, key: string) => {
          taken.push(`${name} ${key}`);
          return name === 'outbound.slow' ? { isAllowed: false as const, retryAfterSeconds: 7 } : { isAllowed: true as const };
        },
      },
      concurrency: {
        acquire: async (_name: string, _key: string, max: number) => {
          if (held >= max) return undefined;
          held++;
          return () => {
            held--;
          };
        },
      },
    };
    const rules = settings({
      rates: [
        { name: 'all', count: 10, periodSeconds: 60 },
        { name: 'other', match: "rcpt_domain == 'other.test'", count: 10, periodSeconds: 60 },
        { name: 'slow', key: 'sender', count: 10, periodSeconds: 60 },
      ],
      concurrency: [{ name: 'few', max: 1 }],
    });
    expect(await admit(d, rules, choices, facts)).toMatchObject({ isAllowed: false, retryAfterSeconds: 7, name: 'slow' });
    expect(taken).toEqual(['outbound.all a.test', 'outbound.slow x@b.test']);
    expect(held).toBe(0);
    const only = settings({ concurrency: [{ name: 'few', max: 1 }] });
    const first = await admit(d, only, choices, facts);
    expect(await admit(d, only, choices, facts)).toMatchObject({ isAllowed: false, name: 'few' });
    if (first.isAllowed) first.release();
    expect(await admit(d, only, choices, facts)).toMatchObject({ isAllowed: true });
  });

  it('let mail pass when the store can not tell, but not when something else is wrong', async () => {
    const failing = (error: Error) => ({ logger: silentLogger, rates: { take: () => Promise.reject(error) } });
    const rules = settings({ rates: [{ name: 'all', count: 1, periodSeconds: 1 }] });
    const away = new KvError('unavailable', 'away', 'outage');
    expect(await admit(failing(away), rules, choices, facts)).toMatchObject({ isAllowed: true });
    await expect(admit(failing(new TypeError('a defect')), rules, choices, facts)).rejects.toThrow('a defect');
  });
});

describe('turns', () => {
  let nowMs = 0;
  const turns = () => createTurns({ clock: { monotonicMs: () => nowMs }, random: systemRandom });
  const refusal = { name: 'slow', key: 'a.test', retryAfterSeconds: 36, gapSeconds: 36 };

  it('are one behind the other, for each key, and never before the limit said', () => {
    const turn = turns();
    expect([turn(refusal), turn(refusal), turn(refusal)]).toEqual([36, 72, 108]);
    expect(turn({ ...refusal, key: 'b.test' })).toBe(36);
    nowMs += 100_000;
    expect(turn(refusal)).toBe(44);
    expect(turn({ ...refusal, retryAfterSeconds: 80 })).toBe(80);
  });

  it('are within an hour, whatever is before them, unless the limit says more', () => {
    const turn = turns();
    const waits = Array.from({ length: 10_000 }, () => turn(refusal));
    expect(Math.max(...waits)).toBeLessThanOrEqual(3600);
    expect(Math.min(...waits.slice(100))).toBeGreaterThan(1700);
    const daily = { ...refusal, key: 'c.test', retryAfterSeconds: 86_400, gapSeconds: 86_400 };
    expect([turn(daily), turn(daily)]).toEqual([86_400, 86_400]);
  });
});

describe('trouble of our own', () => {
  it('is when one domain after the other can not be reached and nobody can', () => {
    let nowMs = 0;
    const trouble = createOwnTrouble({ monotonicMs: () => nowMs });
    const blamed = (from: number, to: number) => {
      let count = 0;
      for (let n = from; n < to; n++) if (trouble.isTheirs(`d${n}.test`)) count++;
      return count;
    };
    // One domain may fail as often as it likes.
    for (let n = 0; n < 1000; n++) expect(trouble.isTheirs('dead.test')).toBe(true);
    expect(blamed(0, 50_000)).toBe(19);
    expect(trouble.isTheirs('d49999.test')).toBe(false);
    trouble.reached();
    expect(blamed(0, 100)).toBe(20);
    nowMs += 300_000;
    expect(blamed(0, 10)).toBe(10);
  });
});

describe('last_error', () => {
  it.each([
    [undefined, ''],
    [{ code: 250, enhanced: '2.0.0', text: '' }, ''],
    [{ code: 451, enhanced: '4.7.1', text: '' }, 'temporary'],
    [{ code: 550, enhanced: '5.1.1', text: '' }, 'permanent'],
    [{ code: 0, enhanced: '4.4.3', text: '' }, 'dns'],
    [{ code: 0, enhanced: '5.1.2', text: '' }, 'dns'],
    [{ code: 0, enhanced: '4.4.1', text: 'connect ECONNREFUSED' }, 'connection'],
    [{ code: 0, enhanced: '4.4.2', text: 'Timeout: no reply within 3 s' }, 'timeout'],
    [{ code: 0, enhanced: '4.7.5', text: '' }, 'tls'],
    [{ code: 0, enhanced: '5.7.30', text: '' }, 'tls'],
    [{ code: 0, enhanced: '4.7.1', text: 'Held back by a limit on outgoing mail' }, 'rate'],
    [{ code: 0, enhanced: '4.7.8', text: 'The host does not take our login' }, 'unknown'],
    [{ code: 0, enhanced: '4.3.0', text: '' }, 'unknown'],
  ])('of %o is %s', (reply, expected) => {
    expect(errorClassOf(reply)).toBe(expected);
  });
});

describe('routes', () => {
  const resolver = new TableResolver();
  resolver.mailHosts.set('a.test', ['mx1.a.test', 'mx2.a.test']);
  for (const host of ['mx1.a.test', 'mx2.a.test', 'r1.test', 'r2.test']) resolver.addresses.set(host, '192.0.2.1');

  const lookUp = { resolver, random: systemRandom, addressOrder: 'prefer6' as const };

  async function find(routeName: string, more: Partial<OutboundSettings> & { relay?: boolean } = {}, domain = 'a.test') {
    const { relay, ...outbound } = more;
    const base = defaultMailflowSettings('mx.example.test');
    const relayHost = relay ? { host: 'relay.test', port: 587, tls: 'required' as const, user: 'u', password: 'p' } : undefined;
    return findRoute({ ...lookUp, routeName, settings: { ...base, relayHost, outbound: settings(outbound) } }, domain);
  }
  const stops = (route: RemoteRoute) =>
    route.kind === 'hosts' ? route.hosts.map((stop) => `${stop.hostname}:${stop.port}`) : route;

  it('are the usual one, mx, relay, or one of the settings', async () => {
    expect(stops(await find(''))).toEqual(['mx1.a.test:25', 'mx2.a.test:25']);
    const relayed = await find('', { relay: true });
    expect(relayed).toMatchObject({
      hosts: [
        { hostname: 'relay.test', port: 587, transport: { name: 'relay', tls: 'verified', auth: { login: 'u', password: 'p' } } },
      ],
    });
    expect(stops(await find('mx', { relay: true }))).toEqual(['mx1.a.test:25', 'mx2.a.test:25']);
    const routes: OutboundSettings['routes'] = [
      { name: 'boxes', kind: 'lmtp', hosts: [{ host: 'r1.test' }, { host: '192.0.2.7', port: 2424, order: 1 }] },
      { name: 'strict', kind: 'mx', hosts: [], tls: 'verified', port: 2525 },
      { name: 'cloud', kind: 'relay', hosts: [{ host: 'r2.test' }], port: 465, tls: 'implicit', user: 'u', token: 't' },
    ];
    const boxes = await find('boxes', { routes, relay: true });
    expect(stops(boxes)).toEqual(['r1.test:24', '192.0.2.7:2424']);
    expect(boxes).toMatchObject({ hosts: [{ transport: { protocol: 'lmtp', isConfigured: true } }, {}], fallback: [] });
    expect(await find('strict', { routes })).toMatchObject({ hosts: [{ port: 2525, transport: { tls: 'verified' } }, {}] });
    expect(await find('cloud', { routes })).toMatchObject({ hosts: [{ transport: { auth: { login: 'u', accessToken: 't' } } }] });
    expect(await find('gone', { routes })).toMatchObject({ kind: 'deferred', reply: { enhanced: '4.3.5' } });
    expect(await find('relay')).toMatchObject({ kind: 'deferred', reply: { enhanced: '4.3.5' } });
  });

  it('know this machine by its name, whatever the name service says', async () => {
    const routes: OutboundSettings['routes'] = [{ name: 'filter', kind: 'relay', hosts: [{ host: 'localhost' }], port: 10_025 }];
    const route = await find('filter', { routes });
    expect(route.kind === 'hosts' && (await route.hosts[0]!.resolve())).toMatchObject({ addresses: ['127.0.0.1', '::1'] });
  });

  it('try hosts by order, and equals by weight', async () => {
    const hosts = [
      { host: 'r1.test', weight: 3 },
      { host: 'r2.test', weight: 1 },
      { host: 'mx1.a.test', order: 5 },
    ];
    const firsts: Record<string, number> = {};
    for (let i = 0; i < 400; i++) {
      const route = await find('x', { routes: [{ name: 'x', kind: 'relay', hosts }] });
      if (route.kind !== 'hosts') throw new Error('no hosts');
      expect(route.hosts[2]!.hostname).toBe('mx1.a.test');
      firsts[route.hosts[0]!.hostname] = (firsts[route.hosts[0]!.hostname] ?? 0) + 1;
    }
    // 300 expected; nine standard deviations to either side.
    expect(firsts['r1.test']).toBeGreaterThan(222);
    expect(firsts['r1.test']).toBeLessThan(378);
  });

  it('have fallback hosts for domains whose hosts fail or can not be looked up now, but not for those that take no mail', async () => {
    const fallbackHosts = [{ host: 'r1.test', port: 26 }];
    expect(await find('', { fallbackHosts })).toMatchObject({ fallback: [{ hostname: 'r1.test', port: 26 }] });
    expect(await find('', { fallbackHosts }, 'missing.test')).toMatchObject({ kind: 'failed', reply: { enhanced: '5.1.2' } });
    resolver.isDown = true;
    expect(await find('', { fallbackHosts })).toMatchObject({ kind: 'hosts', hosts: [], fallback: [{ hostname: 'r1.test' }] });
    expect(await find('')).toMatchObject({ kind: 'deferred', reply: { enhanced: '4.4.3' } });
    resolver.isDown = false;
  });

  it('of an operator win over everything', async () => {
    const base = defaultMailflowSettings('mx.example.test');
    const lookup = { ...lookUp, routeName: 'gone', settings: base };
    const host = await findRoute({ ...lookup, override: { host: 'r2.test', port: 2500 } }, 'a.test');
    expect(stops(host)).toEqual(['r2.test:2500']);
    const domain = await findRoute({ ...lookup, override: { host: 'a.test', isDomain: true } }, 'elsewhere.test');
    expect(stops(domain)).toEqual(['mx1.a.test:25', 'mx2.a.test:25']);
  });
});
