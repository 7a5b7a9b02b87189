import { createHash, createHmac, pbkdf2Sync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import type { Directory } from './contract.js';
import { createDirectory } from './directory.js';
import { makeAppPassword, PasswordHasher, preparePassword, scramKeys } from './passwords.js';
import { checkCounts, openBench, openDirectory } from './test-bench.js';

const secret = 'correct horse';
const make = (directory: Directory, address: string, password?: string) =>
  directory.createPrincipal({ kind: 'account', address, password, aliases: [address.replace('@', '2@')] });

/** How many checks ended each way while `work` ran. */
async function counted(work: () => Promise<unknown>): Promise<Record<string, number>> {
  const before = await checkCounts();
  await work();
  const after = await checkCounts();
  return Object.fromEntries(
    Object.entries(after)
      .map(([result, count]) => [result, count - (before[result] ?? 0)])
      .filter(([, count]) => count),
  );
}

describe('verifyPassword', () => {
  it('takes every address of the account, and only its password', async () => {
    const { directory } = await openBench();
    const alice = await make(directory, 'alice@example.test', secret);
    await make(directory, 'bob@example.test');
    expect(await directory.verifyPassword('Alice2@EXAMPLE.test', secret)).toEqual({ ok: true, principal: alice });
    for (const [login, password] of [
      ['alice@example.test', 'Correct horse'],
      ['alice@example.test', ''],
      ['alice+x@example.test', secret],
      ['nobody@example.test', secret],
      ['bob@example.test', secret],
      ['bob@example.test', ''],
      ['alice', secret],
      ['alice@example.test', 'x'.repeat(5_000)],
      ['alice@example.test', `${secret}\u0000`],
    ]) {
      expect(await directory.verifyPassword(login!, password!), `${login} ${password}`).toEqual({ ok: false, reason: 'invalid' });
    }
  });

  it('refuses weak passwords and hashes the same text typed in different ways the same', async () => {
    const { directory } = await openBench();
    for (const weak of ['', 'short', 'long\u0007enough', 'x'.repeat(1_025)]) {
      await expect(make(directory, 'x@example.test', weak)).rejects.toMatchObject({ code: 'weak-password' });
    }
    await make(directory, 'x@example.test', 'pa\u0308sswort\u00a0eins');
    expect((await directory.verifyPassword('x@example.test', 'p\u00e4sswort eins')).ok).toBe(true);
    expect(preparePassword('\u2168\u00ad')).toBe('IX');
  });

  it('remembers a success until the password changes, here or elsewhere', async () => {
    const { directory, kv } = await openBench();
    const other = openDirectory(kv);
    await make(directory, 'alice@example.test', secret);
    const verify = (from: Directory, password: string) => from.verifyPassword('alice@example.test', password);
    expect(await counted(() => verify(directory, secret))).toEqual({ hashed: 1 });
    expect(await counted(() => verify(directory, secret))).toEqual({ remembered: 1 });
    expect(await counted(() => verify(directory, 'wrong password'))).toEqual({ refused: 1 });
    await other.setPassword('alice2@example.test', 'another one');
    expect(await verify(directory, secret)).toEqual({ ok: false, reason: 'invalid' });
    expect((await verify(directory, 'another one')).ok).toBe(true);
    await other.setPassword('alice@example.test', secret);
    expect((await verify(directory, 'another one')).ok).toBe(false);
    expect((await verify(directory, secret)).ok).toBe(true);
    await other.updatePrincipal('alice@example.test', { isEnabled: false });
    expect(await verify(directory, secret)).toEqual({ ok: false, reason: 'disabled' });
    expect(await verify(directory, 'wrong password')).toEqual({ ok: false, reason: 'invalid' });
    await other.updatePrincipal('alice@example.test', { isEnabled: true, displayName: 'A' });
    expect(await verify(directory, secret)).toMatchObject({ ok: true, principal: { displayName: 'A' } });
    await other.removePrincipal('alice@example.test');
    expect((await verify(directory, secret)).ok).toBe(false);
    await make(other, 'alice@example.test', 'a new account');
    expect((await verify(directory, secret)).ok).toBe(false);
  });

  it('needs no new hash when something else in the directory changed, and one after five minutes', async () => {
    const { kv } = await openBench();
    let nowMs = 0;
    const directory = openDirectory(kv, { ...systemClock, monotonicMs: () => nowMs });
    await make(directory, 'alice@example.test', secret);
    const verifier = new PasswordHasherCalls();
    await directory.verifyPassword('alice@example.test', secret);
    await make(directory, 'bob@example.test');
    expect(await verifier.during(() => directory.verifyPassword('alice@example.test', secret))).toBe(0);
    nowMs = 300_001;
    expect(await verifier.during(() => directory.verifyPassword('alice@example.test', secret))).toBe(1);
  });

  it('sends the ones away that would wait too long', async () => {
    const { kv } = await openBench();
    const directory = createDirectory({
      kv,
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
      maxWaitingPasswordChecks: 4,
    });
    const many = Array.from({ length: 20 }, (_, index) => directory.verifyPassword(`nobody${index}@example.test`, secret));
    const first = (await Promise.all(many.slice(6))).map((result) => (result.ok ? 'ok' : result.reason));
    expect(new Set(first)).toEqual(new Set(['unavailable']));
    const rest = (await Promise.all(many.slice(0, 6))).map((result) => (result.ok ? 'ok' : result.reason));
    expect(new Set(rest)).toEqual(new Set(['invalid']));
  });
});

/** Counts hashes by standing in front of the method that makes them. */
class PasswordHasherCalls {
  async during(work: () => Promise<unknown>): Promise<number> {
    const { prototype } = PasswordHasher;
    const original = prototype.matches;
    let calls = 0;
    prototype.matches = function (this: PasswordHasher, ...args) {
      calls++;
      return original.apply(this, args);
    };
    try {
      await work();
    } finally {
      prototype.matches = original;
    }
    return calls;
  }
}

describe('app passwords', () => {
  it('open the account until they are revoked, anywhere', async () => {
    const { directory, kv } = await openBench();
    const other = openDirectory(kv);
    await make(directory, 'alice@example.test', secret);
    const phone = await directory.createAppPassword('alice2@example.test', 'Phone');
    expect(phone).toMatch(/^[a-z2-7]{5}(-[a-z2-7]{5}){3}$/);
    await expect(directory.createAppPassword('alice@example.test', 'Phone')).rejects.toMatchObject({ code: 'exists' });
    const tablet = await directory.createAppPassword('alice@example.test', 'Tablet');
    expect((await other.appPasswords('alice@example.test')).map(({ name }) => name)).toEqual(['Phone', 'Tablet']);
    for (const typed of [phone, phone.replaceAll('-', ''), phone.toUpperCase().replaceAll('-', ' ')]) {
      expect(await other.verifyPassword('alice@example.test', typed)).toMatchObject({ ok: true, appPassword: 'Phone' });
    }
    expect(await other.verifyPassword('alice@example.test', phone)).toMatchObject({ ok: true, appPassword: 'Phone' });
    expect((await other.verifyPassword('alice@example.test', `${phone}a`)).ok).toBe(false);
    await directory.removeAppPassword('alice@example.test', 'Phone');
    expect(await other.verifyPassword('alice@example.test', phone)).toEqual({ ok: false, reason: 'invalid' });
    expect(await other.verifyPassword('alice@example.test', tablet)).toMatchObject({ ok: true, appPassword: 'Tablet' });
    await directory.setPassword('alice@example.test', 'another one');
    expect((await other.verifyPassword('alice@example.test', tablet)).ok).toBe(true);
    await expect(directory.removeAppPassword('alice@example.test', 'Phone')).rejects.toMatchObject({ code: 'not-found' });
    await directory.updatePrincipal('alice@example.test', { isEnabled: false });
    expect(await other.verifyPassword('alice@example.test', tablet)).toEqual({ ok: false, reason: 'disabled' });
  });

  it('work for accounts without a password, differ, and are limited in number', async () => {
    const { directory } = await openBench();
    await make(directory, 'bob@example.test');
    for (let index = 0; index < 49; index++) await directory.createAppPassword('bob@example.test', `device ${index}`);
    const last = await directory.createAppPassword('bob@example.test', 'last');
    await expect(directory.createAppPassword('bob@example.test', 'one more')).rejects.toMatchObject({ code: 'too-many' });
    expect(await directory.verifyPassword('bob@example.test', last)).toMatchObject({ ok: true, appPassword: 'last' });
    const made = Array.from({ length: 2_000 }, () => makeAppPassword(systemRandom));
    expect(new Set(made).size).toBe(2_000);
    for (let at = 0; at < 23; at++) {
      // Every character can be anywhere, except that hyphens stay where they are.
      if (at % 6 !== 5) expect(new Set(made.map((one) => one[at])).size).toBe(32);
    }
  });
});

describe('scramSecret', () => {
  it('lets a client prove its password and the server its knowledge (RFC 5802 section 3)', async () => {
    const { directory } = await openBench();
    const alice = await make(directory, 'alice@example.test', secret);
    const stored = (await directory.scramSecret('alice2@example.test'))!;
    expect(stored).toMatchObject({ accountId: alice.id, iterations: 10_000 });
    expect(stored.salt).toHaveLength(16);
    const authMessage = 'n=alice,r=abc,r=abcdef,s=c2FsdA==,i=10000,c=biws,r=abcdef';
    const hmac = (key: Buffer, text: string) => createHmac('sha256', key).update(text).digest();
    const salted = pbkdf2Sync(secret, stored.salt, stored.iterations, 32, 'sha256');
    const clientKey = hmac(salted, 'Client Key');
    const signature = hmac(createHash('sha256').update(clientKey).digest(), authMessage);
    const proof = clientKey.map((byte, index) => byte ^ signature[index]!);
    const recovered = hmac(stored.storedKey, authMessage).map((byte, index) => byte ^ proof[index]!);
    expect(createHash('sha256').update(recovered).digest().equals(stored.storedKey)).toBe(true);
    expect(hmac(salted, 'Server Key').equals(stored.serverKey)).toBe(true);
    await directory.setPassword('alice@example.test', 'another one');
    const renewed = (await directory.scramSecret('alice@example.test'))!;
    expect(renewed.salt.equals(stored.salt)).toBe(false);
    expect(renewed.storedKey.equals(stored.storedKey)).toBe(false);
    expect(await directory.scramSecret('nobody@example.test')).toBeUndefined();
    await make(directory, 'bob@example.test');
    expect(await directory.scramSecret('bob@example.test')).toBeUndefined();
  });

  it("agrees with the RFC's example (RFC 7677 section 3)", async () => {
    const keys = await scramKeys('pencil', Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64'), 4_096);
    const bare =
      'n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,';
    const message = `${bare}c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0`;
    const serverSignature = createHmac('sha256', keys.serverKey).update(message).digest('base64');
    expect(serverSignature).toBe('6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=');
    const proof = Buffer.from('dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=', 'base64');
    const signature = createHmac('sha256', keys.storedKey).update(message).digest();
    const clientKey = signature.map((byte, index) => byte ^ proof[index]!);
    expect(createHash('sha256').update(clientKey).digest().equals(keys.storedKey)).toBe(true);
  });
});
