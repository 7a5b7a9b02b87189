import { describe, expect, it } from 'vitest';
import { silentLogger } from '../../ops/telemetry/index.js';
import { createBans, createKnownLogins, createRateLimiter } from '../../store/limits/index.js';
import { bench } from '../../store/limits/test-bench.js';
import { type AbuseSettings, abuse } from '../settings/schemas/abuse.js';
import { createLoginGuard } from './index.js';

const attacker = '203.0.113.66';
const home = '198.51.100.5';

async function node(
  room: ReturnType<typeof bench>,
  settings: Partial<AbuseSettings> = {},
  isExempt?: (address: string) => boolean,
) {
  const kv = room.store();
  const deps = { kv, clock: room.clock, logger: silentLogger };
  const bans = createBans(deps);
  await bans.start();
  const rates = createRateLimiter(deps);
  const guard = createLoginGuard({
    ...{ rates, bans, knownLogins: createKnownLogins(deps), clock: room.clock, logger: silentLogger },
    settings: () => abuse.parse(settings),
    isLogin: async (login) => !login.startsWith('nobody'),
    ...(isExempt && { isExempt }),
  });
  const attempt = (remoteAddress: string, login: string) => ({ remoteAddress, login, protocol: 'imap' });
  return {
    kv,
    bans,
    guard,
    /** One attempt as a session makes it. */
    async try(remoteAddress: string, login: string, isGood: boolean) {
      const verdict = await guard.admit(attempt(remoteAddress, login));
      if (verdict.isAdmitted) await guard.record(attempt(remoteAddress, login), isGood);
      await room.time.advance(verdict.delayMs);
      return verdict;
    },
  };
}

describe('login guard', () => {
  it('lets a few slips pass, then delays more and more, and forgets them with the right password', async () => {
    const room = bench();
    const { try: attempt } = await node(room);
    const delays: number[] = [];
    for (let i = 0; i < 8; i++) delays.push((await attempt(home, 'alice@example.test', false)).delayMs);
    expect(delays).toEqual([0, 0, 0, 0, 500, 1_000, 2_000, 4_000]);
    expect(await attempt(home, 'Alice@Example.test', true)).toEqual({ isAdmitted: true, delayMs: 8_000 });
    await room.time.advance(1_000);
    expect(await attempt(home, 'alice@example.test', true)).toEqual({ isAdmitted: true, delayMs: 0 });
  });

  it('refuses a login to an address that guesses it, on all nodes, and to no other address', async () => {
    const room = bench();
    const [a, b] = [await node(room), await node(room)];
    let tries = 0;
    while ((await a.try(attacker, 'alice@example.test', false)).isAdmitted) tries++;
    expect(tries).toBe(10);
    await room.time.advance(1_000);
    expect(await b.try(attacker, 'alice@example.test', true)).toEqual({ isAdmitted: false, delayMs: 0 });
    expect(await b.try(home, 'alice@example.test', true)).toEqual({ isAdmitted: true, delayMs: 0 });
    // And lets it try again when the window is over.
    await room.time.advance(1_100_000);
    expect((await b.try(attacker, 'alice@example.test', false)).isAdmitted).toBe(true);
  });

  it('bans who tries one password on many logins, soonest for logins that do not exist', async () => {
    const guesses = async (login: (i: number) => string) => {
      const room = bench();
      const { try: attempt, bans } = await node(room);
      let tries = 0;
      while (!bans.find(attacker)) {
        await attempt(attacker, login(tries), false);
        tries++;
      }
      expect(bans.find(attacker)).toMatchObject({ network: attacker, reason: 'login', untilMs: expect.any(Number) });
      expect(await attempt(attacker, 'anybody', true)).toEqual({ isAdmitted: false, delayMs: 0 });
      return tries;
    };
    expect(await guesses((i) => `user${i}@example.test`)).toBe(15);
    expect(await guesses((i) => `nobody${i}@example.test`)).toBe(10);
  });

  it('bans longer each time, and IPv6 by /64', async () => {
    const room = bench();
    const { try: attempt, bans } = await node(room);
    const lengths: number[] = [];
    for (let round = 0; round < 3; round++) {
      for (let i = 0; !bans.find('2001:db8:1:2::1'); i++) await attempt(`2001:db8:1:2::${i + 1}`, `nobody${i}`, false);
      const ban = bans.find('2001:db8:1:2:ffff::9')!;
      expect(ban.network).toBe('2001:db8:1:2::/64');
      lengths.push(Math.round((ban.untilMs! - ban.bannedAtMs) / 1_000));
      await room.time.advance(lengths[round]! * 1_000 + 4_000_000);
    }
    expect(lengths).toEqual([3_600, 7_200, 14_400]);
    expect(bans.find('2001:db8:1:3::1')).toBeUndefined();
  });

  it('bans an address once for failures that come in at once', async () => {
    const room = bench();
    const { guard, bans } = await node(room);
    const attempts = Array.from({ length: 30 }, (_, i) => ({ remoteAddress: attacker, login: `nobody${i}`, protocol: 'imap' }));
    await Promise.all(attempts.map((attempt) => guard.record(attempt, false)));
    const { untilMs, bannedAtMs } = bans.find(attacker)!;
    expect(untilMs! - bannedAtMs).toBe(3_600_000);
  });

  it('keeps a victim working from his own networks, whatever strangers and neighbours do', async () => {
    const room = bench();
    const [a, b] = [await node(room), await node(room)];
    await a.try(home, 'victim@example.test', true);
    // A stranger elsewhere, until he is banned; one behind the same NAT, who is refused and never has the address banned.
    for (let i = 0; i < 60; i++) await a.try(attacker, `nobody${i}`, false);
    for (let i = 0; i < 60; i++) await a.try(home, `nobody${i}`, false);
    for (let i = 0; i < 60; i++) await a.try('198.51.100.6', 'victim@example.test', false);
    await b.bans.reload();
    expect(b.bans.find(attacker)).toBeDefined();
    expect(b.bans.find(home)).toBeUndefined();
    expect((await b.try(home, 'other@example.test', true)).isAdmitted).toBe(false);
    expect(await b.try(home, 'victim@example.test', true)).toEqual({ isAdmitted: true, delayMs: 0 });
    expect((await b.try('198.51.100.77', 'victim@example.test', true)).isAdmitted).toBe(true);
  });

  it('does not ban a network for a telephone that has not heard of the new password', async () => {
    const room = bench();
    const { try: attempt, bans } = await node(room);
    await attempt(home, 'alice@example.test', true);
    for (let i = 0; i < 100; i++) {
      expect((await attempt(home, 'alice@example.test', false)).isAdmitted).toBe(true);
      await room.time.advance(120_000);
    }
    expect(bans.find(home)).toBeUndefined();
    expect(await attempt(home, 'bob@example.test', true)).toEqual({ isAdmitted: true, delayMs: 0 });
  });

  it('does not let an attacker wash his address clean with an account of his own', async () => {
    const room = bench();
    const { try: attempt, bans } = await node(room);
    let admitted = 0;
    for (let i = 0; i < 100; i++) {
      await attempt(attacker, 'own@example.test', true);
      if ((await attempt(attacker, `user${i}@example.test`, false)).isAdmitted) admitted++;
    }
    expect(admitted).toBeLessThanOrEqual(15);
    expect(bans.find(attacker)).toBeUndefined();
  });

  it('judges attempts at once one after the other', async () => {
    const room = bench();
    const { guard } = await node(room);
    const attempt = { remoteAddress: attacker, login: 'alice@example.test', protocol: 'imap' };
    for (let i = 0; i < 4; i++) await guard.record(attempt, false);
    const verdicts = await Promise.all(Array.from({ length: 50 }, () => guard.admit(attempt)));
    expect(verdicts.filter(({ isAdmitted }) => isAdmitted).map(({ delayMs }) => delayMs)).toEqual([
      500, 1_000, 1_500, 2_000, 2_500, 3_000,
    ]);
    // Of attempts whose session has gone nothing is heard: they do not count for ever.
    await room.time.advance(61_000);
    expect(await guard.admit(attempt)).toEqual({ isAdmitted: true, delayMs: 500 });
  });

  it('judges proxies by login only, and nobody when it is switched off', async () => {
    const room = bench();
    const webmail = await node(room, {}, (address) => address === '10.0.0.9');
    for (let i = 0; i < 100; i++) expect((await webmail.try('10.0.0.9', `nobody${i}`, false)).isAdmitted).toBe(true);
    const off = await node(bench(), { guardsLogins: false });
    for (let i = 0; i < 100; i++) expect(await off.try(attacker, `nobody${i}`, false)).toEqual({ isAdmitted: true, delayMs: 0 });
  });

  it('is lenient and slow while the store can not be used', async () => {
    const room = bench();
    const { guard, kv } = await node(room);
    kv.faults.outage = true;
    const attempt = { remoteAddress: attacker, login: 'alice@example.test', protocol: 'imap' };
    expect(await guard.admit(attempt)).toEqual({ isAdmitted: true, delayMs: 500 });
    await guard.record(attempt, false);
  });
});
