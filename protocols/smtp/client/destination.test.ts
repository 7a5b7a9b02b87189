/** Which hosts take mail: every outcome of the DNS, on a resolver of tables. */
import { describe, expect, it } from 'vitest';
import type { DnsOutcome, MxRecord, Resolver } from '../../dns/index.js';
import { type DestinationOptions, resolveDestination } from './destination.js';

const found = <T>(...records: T[]): DnsOutcome<T> => ({ status: 'found', records, authenticated: true, ttlSeconds: 60 });
const nodata = { status: 'nodata', authenticated: false } as const;
const nxdomain = { status: 'nxdomain', authenticated: false } as const;
const temporary = { status: 'temporary', reason: 'ETIMEOUT' } as const;

interface Tables {
  mx?: DnsOutcome<MxRecord>;
  a?: Record<string, DnsOutcome<string>>;
  aaaa?: Record<string, DnsOutcome<string>>;
}

function ask(domain: string, tables: Tables, options: DestinationOptions = {}) {
  const asked: string[] = [];
  const resolver = {
    mx: async (name: string) => {
      asked.push(name);
      return tables.mx ?? nodata;
    },
    a: async (name: string) => tables.a?.[name] ?? nodata,
    aaaa: async (name: string) => tables.aaaa?.[name] ?? nodata,
  } as unknown as Resolver;
  return resolveDestination(domain, resolver, options).then((destination) => ({ destination, asked }));
}

const mx = (preference: number, exchange: string): MxRecord => ({ preference, exchange });

describe('resolveDestination', () => {
  it('sorts by preference, equals at random', async () => {
    const orders = new Set<string>();
    for (let i = 0; i < 60; i++) {
      const { destination } = await ask('Example.TEST', {
        mx: found(mx(20, 'c.test'), mx(10, 'a.test'), mx(10, 'b.test'), mx(5, 'z.test'), mx(30, 'z.test')),
      });
      if (destination.status !== 'found') throw new Error('not found');
      orders.add(destination.hosts.map((host) => host.hostname).join(' '));
      expect(destination).toMatchObject({ source: 'mx', authenticated: true });
    }
    expect([...orders].sort()).toEqual(['z.test a.test b.test c.test', 'z.test b.test a.test c.test']);
  });

  it('gives addresses, IPv6 first; one family is enough', async () => {
    const tables: Tables = {
      mx: found(mx(10, 'm.test')),
      a: { 'm.test': found('192.0.2.1') },
      aaaa: { 'm.test': found('2001:db8::1') },
    };
    const hosts = async (more: Tables, options?: DestinationOptions) => {
      const { destination } = await ask('x.test', { ...tables, ...more }, options);
      return destination.status === 'found' ? destination.hosts[0]!.resolve() : destination;
    };
    expect(await hosts({})).toEqual({ status: 'found', addresses: ['2001:db8::1', '192.0.2.1'], authenticated: true });
    expect(await hosts({}, { families: [4] })).toMatchObject({ addresses: ['192.0.2.1'] });
    expect(await hosts({ aaaa: { 'm.test': temporary } })).toMatchObject({ addresses: ['192.0.2.1'] });
    expect(await hosts({ a: {}, aaaa: { 'm.test': temporary } })).toMatchObject({ outcome: 'temporary', enhanced: '4.4.3' });
    expect(await hosts({ a: {}, aaaa: {} })).toMatchObject({ outcome: 'permanent', enhanced: '5.4.4' });
  });

  it('falls back to the domain itself only when there is no MX', async () => {
    const a = { 'x.test': found('192.0.2.1') };
    const plain = (await ask('x.test.', { a })).destination;
    expect(plain).toMatchObject({ status: 'found', source: 'address', hosts: [{ hostname: 'x.test', preference: 0 }] });
    expect((await ask('x.test', {})).destination).toMatchObject({ outcome: 'permanent', enhanced: '5.1.2' });
    expect((await ask('x.test', { a: { 'x.test': temporary } })).destination).toMatchObject({
      outcome: 'temporary',
      enhanced: '4.4.3',
    });
    expect((await ask('x.test', { mx: temporary, a })).destination).toMatchObject({ outcome: 'temporary', enhanced: '4.4.3' });
    expect((await ask('x.test', { mx: nxdomain, a })).destination).toMatchObject({ outcome: 'permanent', enhanced: '5.1.2' });
  });

  it('obeys the null MX', async () => {
    const a = { 'x.test': found('192.0.2.1') };
    expect((await ask('x.test', { mx: found(mx(0, '')), a })).destination).toMatchObject({
      outcome: 'permanent',
      enhanced: '5.1.10',
    });
    expect((await ask('x.test', { mx: found(mx(0, ''), mx(10, 'm.test')) })).destination).toMatchObject({
      hosts: [{ hostname: 'm.test' }],
    });
    expect((await ask('x.test', { mx: found(mx(0, 'bad name')) })).destination).toMatchObject({
      outcome: 'permanent',
      enhanced: '5.4.4',
    });
  });

  it('takes literals and names in any script', async () => {
    const literal = (await ask('[IPv6:2001:db8::1]', {})).destination;
    expect(literal).toMatchObject({ source: 'literal', hosts: [{ hostname: '2001:db8::1' }] });
    if (literal.status === 'found') expect(await literal.hosts[0]!.resolve()).toMatchObject({ addresses: ['2001:db8::1'] });
    expect((await ask('例え.test', { mx: found(mx(1, 'm.test')) })).asked).toEqual(['xn--r8jz45g.test']);
    for (const bad of ['[x]', '', 'a..b', '192.0.2.1', 'a b']) {
      expect((await ask(bad, {})).destination, bad).toMatchObject({ status: 'failed', outcome: 'permanent', enhanced: '5.1.2' });
    }
  });

  it('limits the hosts', async () => {
    const many = Array.from({ length: 100 }, (_, index) => mx(index, `m${index}.test`));
    const { destination } = await ask('x.test', { mx: found(...many) }, { maxHosts: 3 });
    expect(destination.status === 'found' && destination.hosts.map((host) => host.hostname)).toEqual([
      'm0.test',
      'm1.test',
      'm2.test',
    ]);
  });
});
