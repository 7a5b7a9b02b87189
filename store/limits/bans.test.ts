import fc from 'fast-check';
import ipaddr from 'ipaddr.js';
import { afterEach, describe, expect, it } from 'vitest';
import { banLimits, createBans, type OpenBans } from './bans.js';
import type { Ban } from './contract.js';
import { banKey } from './keys.js';
import { NetworkMap, networkText, parseIpv4, parseIpv6, parseNetwork } from './networks.js';
import { bench, counting, tables } from './test-bench.js';

const hourMs = 3_600_000;
const started: OpenBans[] = [];

afterEach(async () => {
  for (const bans of started.splice(0)) await bans.stop();
});

async function node(room: ReturnType<typeof bench>, options: { offsetMs?: number; isExempt?(address: string): boolean } = {}) {
  const store = room.store();
  const kv = counting(store);
  const clock = room.time.clock(options.offsetMs);
  const bans = createBans({ kv, clock, logger: room.logger, ...(options.isExempt && { isExempt: options.isExempt }) });
  await bans.start();
  started.push(bans);
  return { store, kv, bans, clock };
}

const ban = (network: string, more: Partial<Ban> = {}) => ({ network, reason: 'abuse', note: 'because', ...more });

describe('bans', () => {
  it('hold here at once and elsewhere after a reload or a look, until they are lifted', async () => {
    const room = bench();
    const [a, b] = [await node(room), await node(room)];
    let told = 0;
    a.bans.onChanged(() => told++);
    const generation = await a.kv.read((reads) => a.bans.readGeneration(reads));
    await a.bans.add(ban('203.0.113.7'));
    expect(told).toBe(1);
    expect(await a.kv.read((reads) => a.bans.readGeneration(reads))).not.toBe(generation);
    expect(a.bans.find('203.0.113.7')).toMatchObject({ network: '203.0.113.7', reason: 'abuse', note: 'because' });
    expect(a.bans.find('::ffff:203.0.113.7')).toBeDefined();
    expect(a.bans.find('203.0.113.8')).toBeUndefined();
    expect(b.bans.find('203.0.113.7')).toBeUndefined();
    await b.bans.reload();
    expect(b.bans.find('203.0.113.7')).toBeDefined();
    expect(await b.bans.lift('203.0.113.7')).toBe(true);
    expect(await b.bans.lift('203.0.113.7')).toBe(false);
    expect(a.bans.find('203.0.113.7')).toBeDefined();
    await room.time.advance(banLimits.lookEveryMs + 10);
    expect(a.bans.find('203.0.113.7')).toBeUndefined();
    expect(await a.bans.list()).toEqual([]);
  });

  it('are of networks too, and end by themselves', async () => {
    const room = bench();
    const { bans, clock } = await node(room);
    await bans.add(ban('2001:DB8:0:1::5/64', { untilMs: clock.nowMs() + hourMs }));
    await bans.add(ban('198.51.100.77/24'));
    await bans.add(ban('198.51.100.1', { reason: 'operator', untilMs: clock.nowMs() + hourMs }));
    expect(bans.find('2001:db8:0:1:9:9:9:9%eth0')?.network).toBe('2001:db8:0:1::/64');
    expect(bans.find('2001:db8:0:2::1')).toBeUndefined();
    expect(bans.find('198.51.100.200')?.network).toBe('198.51.100.0/24');
    expect(bans.find('198.51.100.1')?.reason).toBe('operator');
    for (const nonsense of ['', 'x', '198.51.100', '198.51.100.1.1', '198.51.100.999'])
      expect(bans.find(nonsense)).toBeUndefined();
    await room.time.advance(hourMs);
    expect(bans.find('2001:db8:0:1::1')).toBeUndefined();
    expect(bans.find('198.51.100.1')?.network).toBe('198.51.100.0/24');
    expect((await bans.list()).map(({ network }) => network)).toEqual(['198.51.100.0/24']);
  });

  it('spare members, proxies and loopback unless an operator means them', async () => {
    const room = bench();
    const { bans } = await node(room, { isExempt: (address) => address === '10.0.0.5' });
    for (const network of ['127.0.0.1', '::1', '0.0.0.0', '::', '10.0.0.5']) {
      await bans.add(ban(network, { reason: 'login' }));
      expect(bans.find(network)).toBeUndefined();
    }
    await bans.add(ban('10.0.0.0/24', { reason: 'login' }));
    expect(bans.find('10.0.0.4')).toBeDefined();
    expect(bans.find('10.0.0.5')).toBeUndefined();
    await bans.add(ban('10.0.0.5', { reason: 'operator' }));
    expect(bans.find('10.0.0.5')?.reason).toBe('operator');
  });

  it('are not weakened by machines, and refused with a reason', async () => {
    const room = bench();
    const { bans, clock } = await node(room);
    const untilMs = clock.nowMs() + hourMs;
    await bans.add(ban('192.0.2.1', { untilMs }));
    await bans.add(ban('192.0.2.1', { untilMs: untilMs - 1_000, reason: 'login' }));
    expect(bans.find('192.0.2.1')?.untilMs).toBe(untilMs);
    await bans.add(ban('192.0.2.1', { untilMs: untilMs + 1_000, reason: 'login' }));
    expect(bans.find('192.0.2.1')?.reason).toBe('login');
    await bans.add(ban('192.0.2.1', { untilMs: untilMs - 2_000, reason: 'operator' }));
    expect(bans.find('192.0.2.1')?.untilMs).toBe(untilMs - 2_000);
    await bans.add(ban('192.0.2.1', { reason: 'login' }));
    expect(bans.find('192.0.2.1')?.reason).toBe('operator');
    for (const network of ['example.net', '0.0.0.0/0', '::/8', '192.0.2.0/33', '192.0.2.1/-1', '192.0.2.1/1e1']) {
      await expect(bans.add(ban(network, { reason: 'operator' }))).rejects.toThrow(RangeError);
    }
    await expect(bans.add(ban('192.0.2.9', { note: 'x'.repeat(1_001) }))).rejects.toThrow(RangeError);
    await expect(bans.lift('nonsense')).rejects.toThrow(RangeError);
  });

  it('tell who listens of each that begins to hold, whoever made it', async () => {
    const room = bench();
    const [a, b] = [await node(room), await node(room)];
    const seen: string[] = [];
    b.bans.onBanned((bans) => seen.push(...bans.map(({ network }) => network)));
    await b.bans.add(ban('192.0.2.1'));
    await a.bans.add(ban('192.0.2.2'));
    await a.bans.add(ban('192.0.2.3', { untilMs: a.clock.nowMs() - 1 }));
    await b.bans.reload();
    await b.bans.reload();
    expect(seen).toEqual(['192.0.2.1', '192.0.2.2']);
  });

  it('tell once of many that were learnt together', async () => {
    const room = bench();
    const [a, b] = [await node(room), await node(room)];
    const seen: number[] = [];
    b.bans.onBanned((bans) => seen.push(bans.length));
    for (let i = 1; i <= 20; i++) await a.bans.add(ban(`192.0.2.${i}`));
    await b.bans.reload();
    expect(seen).toEqual([20]);
    // Further behind than the log reaches back.
    await b.bans.stop();
    for (let i = 1; i <= 30; i++) await a.bans.add(ban(`198.51.100.${i}`));
    await room.time.advance(2 * hourMs);
    await a.bans.forgetExpired();
    await b.bans.start();
    expect(seen).toEqual([20, 30]);
  });

  it('are learnt where a newer release has written some that can not be read', async () => {
    const room = bench();
    const [a, b] = [await node(room), await node(room)];
    await a.bans.add(ban('192.0.2.1'));
    await a.kv.transact(async (tx) => tx.set(banKey('192.0.2.1'), Buffer.from([0x92, 99, 1])));
    await a.bans.add(ban('192.0.2.2'));
    await b.bans.reload();
    const late = await node(room);
    for (const { bans } of [b, late]) {
      expect(bans.find('192.0.2.1')).toBeUndefined();
      expect(bans.find('192.0.2.2')).toBeDefined();
    }
    expect((await late.bans.list()).map(({ network }) => network)).toEqual(['192.0.2.2']);
  });

  it('are read anew only as far as they have changed, and whole when the log is cut off', async () => {
    const room = bench();
    const [a, b] = [await node(room), await node(room)];
    for (let i = 0; i < 50; i++) await a.bans.add(ban(`192.0.2.${i}`));
    await b.bans.reload();
    b.kv.reads = 0;
    await a.bans.add(ban('198.51.100.1'));
    await b.bans.reload();
    expect(b.kv.reads).toBe(1);
    expect(b.bans.find('198.51.100.1')).toBeDefined();
    await b.bans.stop();
    await a.bans.lift('192.0.2.3');
    await a.bans.add(ban('198.51.100.2'));
    await room.time.advance(2 * hourMs);
    await a.bans.forgetExpired();
    expect((await tables(a.kv))['ban-log']).toBeUndefined();
    await b.bans.start();
    expect(b.bans.find('198.51.100.2')).toBeDefined();
    expect(b.bans.find('192.0.2.3')).toBeUndefined();
    expect(b.bans.find('192.0.2.4')).toBeDefined();
  });

  it('survive commits that nobody heard of, and an outage', async () => {
    const room = bench();
    const { bans, store } = await node(room);
    for (const outcome of ['applied', 'lost'] as const) {
      store.faults.nextCommit = outcome;
      await room.time.until(bans.add(ban('192.0.2.1')));
      expect(bans.find('192.0.2.1')).toBeDefined();
      store.faults.nextCommit = outcome;
      expect(await room.time.until(bans.lift('192.0.2.1'))).toBe(true);
    }
    await bans.add(ban('192.0.2.2'));
    store.faults.outage = true;
    await expect(bans.add(ban('192.0.2.3'))).rejects.toMatchObject({ code: 'unavailable' });
    await room.time.advance(3 * banLimits.lookEveryMs);
    expect(bans.find('192.0.2.2')).toBeDefined();
    store.faults.clear();
    const other = await node(room);
    await other.bans.add(ban('192.0.2.4'));
    await room.time.advance(banLimits.lookEveryMs + 10);
    expect(bans.find('192.0.2.4')).toBeDefined();
  });

  it('are forgotten hours after their end, by a node that holds them and by one that does not', async () => {
    for (const isStarted of [true, false]) {
      const room = bench();
      const { bans, kv, clock } = await node(room);
      await bans.add(ban('192.0.2.1', { untilMs: clock.nowMs() + hourMs }));
      await bans.add(ban('192.0.2.2'));
      await room.time.advance(2 * hourMs);
      await bans.forgetExpired();
      expect((await tables(kv))['ban']).toBe(2);
      await room.time.advance(6 * hourMs);
      if (!isStarted) await bans.stop();
      await bans.forgetExpired();
      expect((await tables(kv))['ban']).toBe(1);
      expect(bans.find('192.0.2.2')).toBeDefined();
    }
  });
});

describe('a purge of bans', () => {
  it('does not forget one that is made anew meanwhile', async () => {
    const room = bench();
    const [a, b] = [await node(room), await node(room)];
    await a.bans.add(ban('192.0.2.1', { untilMs: a.clock.nowMs() + hourMs }));
    await room.time.advance(8 * hourMs);
    let isFirst = true;
    await a.bans.forgetExpired(async () => {
      if (!isFirst) return;
      isFirst = false;
      await b.bans.add(ban('192.0.2.1'));
      await a.bans.reload();
    });
    expect(isFirst).toBe(false);
    expect(a.bans.find('192.0.2.1')).toBeDefined();
    expect(await b.bans.list()).toHaveLength(1);
  });
});

describe('networks', () => {
  const network = fc.oneof(
    fc.tuple(fc.ipV4(), fc.integer({ min: 0, max: 32 })),
    fc.tuple(
      fc.ipV6().filter((text) => ipaddr.IPv6.isValid(text) && !ipaddr.IPv6.parse(text).isIPv4MappedAddress()),
      fc.integer({ min: 0, max: 128 }),
    ),
  );

  it('are parsed as the library does it', () => {
    fc.assert(
      fc.property(network, ([address, prefix]) => {
        const parsed = parseNetwork(`${address}/${prefix}`)!;
        const kind = ipaddr.parse(address).kind();
        const base = (kind === 'ipv4' ? ipaddr.IPv4 : ipaddr.IPv6).networkAddressFromCIDR(`${address}/${prefix}`);
        const text = kind === 'ipv4' ? base.toString() : (base as ipaddr.IPv6).toRFC5952String();
        expect(networkText(parsed)).toBe(prefix === (kind === 'ipv4' ? 32 : 128) ? text : `${text}/${prefix}`);
        expect(networkText(parseNetwork(networkText(parsed))!)).toBe(networkText(parsed));
      }),
    );
    expect(networkText(parseNetwork('::ffff:192.0.2.77/120')!)).toBe('192.0.2.0/24');
    for (const text of ['1.2.3', '1.2.3.4.', '.1.2.3', '1..2.3', '01.2.3.4', '1.2.3.256', '1.2.3.4 ', '', '1.2.3.0x1']) {
      expect(parseIpv4(text)).toBeUndefined();
    }
    for (const text of [
      '',
      ':',
      ':::',
      '1',
      '1:',
      ':1',
      '1::2::3',
      '1:2:3:4:5:6:7',
      '1:2:3:4:5:6:7:8:9',
      '1:2:3:4:5:6:7:8::',
      '12345::',
      'g::',
    ]) {
      expect(parseIpv6(text), text).toBeUndefined();
    }
    for (const text of ['::1.2.3', '::1.2.3.4:5', '1:2:3:4:5:6:7:1.2.3.4', '1.2.3.4::', '::1.2.3.4.5']) {
      expect(parseIpv6(text), text).toBeUndefined();
    }
    expect(parseIpv6('::')).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    expect(parseIpv6('1::')).toEqual([1, 0, 0, 0, 0, 0, 0, 0]);
    expect(parseIpv6('1:2:3:4::6:7:8')).toEqual([1, 2, 3, 4, 0, 6, 7, 8]);
    expect(parseIpv6('64:FF9B::192.0.2.33')).toEqual([0x64, 0xff9b, 0, 0, 0, 0, 0xc000, 0x221]);
    expect([parseIpv4('0.0.0.0'), parseIpv4('255.255.255.255')]).toEqual([0, 2 ** 32 - 1]);
  });

  it('find the smallest one around an address, as a search of all of them does', () => {
    const near = fc.tuple(fc.constantFrom('10.0.0.', '10.0.1.', '2001:db8::', '2001:db8:0:1::'), fc.integer({ min: 0, max: 3 }));
    const some = fc.array(fc.tuple(near, fc.integer({ min: 20, max: 128 })), { maxLength: 20 });
    fc.assert(
      fc.property(some, near, (entries, [stem, last]) => {
        const map = new NetworkMap<string>();
        const all = new Map<string, { text: string; prefix: number }>();
        for (const [[start, end], wanted] of entries) {
          const prefix = start.includes(':') ? wanted : Math.min(32, wanted);
          const parsed = parseNetwork(`${start}${end}/${prefix}`)!;
          map.set(parsed, networkText(parsed));
          all.set(networkText(parsed), { text: networkText(parsed), prefix });
        }
        expect(map.size).toBe(all.size);
        const address = ipaddr.parse(`${stem}${last}`);
        const around = [...all.values()].filter(({ text }) => {
          const cidr = ipaddr.parseCIDR(text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`);
          return cidr[0].kind() === address.kind() && (address as ipaddr.IPv4).match(cidr as [ipaddr.IPv4, number]);
        });
        const best = around.sort((a, b) => b.prefix - a.prefix)[0]?.text;
        expect(map.find(`${stem}${last}`, () => true)).toBe(best);
        for (const { text } of all.values()) expect(map.delete(parseNetwork(text)!)).toBe(true);
        expect(map.size).toBe(0);
      }),
    );
  });
});
