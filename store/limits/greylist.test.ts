import { describe, expect, it } from 'vitest';
import { purgeExpired } from './expiring.js';
import { createGreylist, greylistTable } from './greylist.js';
import { networkOf } from './networks.js';
import { bench, counting, tables } from './test-bench.js';

const rule = { delaySeconds: 300, windowSeconds: 4 * 3_600, lifetimeSeconds: 30 * 86_400 };
const triplet = { network: '203.0.113.0/24', sender: 'a@example.org', recipient: 'b@example.net' };

function node(room: ReturnType<typeof bench>, offsetMs = 0) {
  const kv = counting(room.store());
  return { kv, greylist: createGreylist({ kv, clock: room.time.clock(offsetMs) }) };
}

describe('greylist', () => {
  it('puts off the first attempt, and lets the network pass after the second, on every node', async () => {
    const room = bench();
    const [a, b] = [node(room), node(room)];
    expect(await a.greylist.check(triplet, rule)).toEqual({ isAllowed: false, retryAfterSeconds: 300 });
    await room.time.advance(100_000);
    expect(await b.greylist.check(triplet, rule)).toEqual({ isAllowed: false, retryAfterSeconds: 200 });
    await room.time.advance(200_000);
    expect(await b.greylist.check(triplet, rule)).toEqual({ isAllowed: true });
    expect(await a.greylist.check({ ...triplet, sender: 'somebody@else.test' }, rule)).toEqual({ isAllowed: true });
    expect(await a.greylist.check({ ...triplet, network: '198.51.100.0/24' }, rule)).toMatchObject({ isAllowed: false });
    expect(await tables(a.kv)).toEqual({ greylist: 2, 'greylist-expiry': 3 });
  });

  it('begins anew for who comes too late, and for another recipient', async () => {
    const room = bench();
    const { greylist } = node(room);
    await greylist.check(triplet, rule);
    await room.time.advance(rule.windowSeconds * 1000 + 1_000);
    expect(await greylist.check(triplet, rule)).toMatchObject({ isAllowed: false });
    expect(await greylist.check({ ...triplet, recipient: 'c@example.net' }, rule)).toMatchObject({ isAllowed: false });
  });

  it('renews a pass by use, and answers from memory in between', async () => {
    const room = bench();
    const { greylist, kv } = node(room);
    await greylist.check(triplet, rule);
    await room.time.advance(301_000);
    await greylist.check(triplet, rule);
    const before = kv.transactions;
    for (let i = 0; i < 1_000; i++) await greylist.check(triplet, rule);
    expect(kv.transactions).toBe(before);
    for (let day = 0; day < 90; day += 10) {
      await room.time.advance(10 * 86_400_000);
      expect(await greylist.check(triplet, rule)).toEqual({ isAllowed: true });
    }
    await room.time.advance(31 * 86_400_000);
    expect(await greylist.check(triplet, rule)).toMatchObject({ isAllowed: false });
  });

  it('does not let who hammers at it ask the store each time', async () => {
    const room = bench();
    const { greylist, kv } = node(room);
    for (let i = 0; i < 1_000; i++) {
      expect(await greylist.check(triplet, rule)).toMatchObject({ isAllowed: false });
      room.time.elapsedMs += 100;
    }
    expect(kv.transactions).toBeLessThan(6);
  });

  it('lets nobody wait for the difference of two clocks', async () => {
    const room = bench();
    const [ahead, right] = [node(room, 5 * 3_600_000), node(room)];
    await ahead.greylist.check(triplet, rule);
    expect(await right.greylist.check(triplet, rule)).toEqual({ isAllowed: false, retryAfterSeconds: 300 });
    await room.time.advance(301_000);
    expect(await right.greylist.check(triplet, rule)).toEqual({ isAllowed: true });
  });

  it('forgets what is over', async () => {
    const room = bench();
    const { greylist, kv } = node(room);
    await greylist.check(triplet, rule);
    await room.time.advance(301_000);
    await greylist.check(triplet, rule);
    await greylist.check({ ...triplet, network: 'x' }, rule);
    await room.time.advance(24 * 3_600_000);
    expect(await purgeExpired(kv, greylistTable, room.clock.nowMs())).toBe(1);
    expect(await tables(kv)).toEqual({ greylist: 1, 'greylist-expiry': 1 });
    await room.time.advance(31 * 86_400_000);
    await purgeExpired(kv, greylistTable, room.clock.nowMs());
    expect(await tables(kv)).toEqual({});
  });
});

describe('networkOf', () => {
  it('is the /24 or /64', () => {
    expect(networkOf('203.0.113.77')).toBe('203.0.113.0/24');
    expect(networkOf('::ffff:203.0.113.77')).toBe('203.0.113.0/24');
    expect(networkOf('2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1:2::/64');
    expect(networkOf('203.0.113.77', { ipv4: 32 })).toBe('203.0.113.77');
    expect(networkOf('nonsense')).toBe('nonsense');
  });
});
