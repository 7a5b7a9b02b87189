/** Logins against a real directory and a real issuer: who is let in, what the guard hears, and what is not a guess. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../ops/telemetry/index.js';
import { createSaslClient } from '../protocols/sasl/client/index.js';
import { type AuthResult, offeredMechanisms, type SaslBackend, startSaslExchange } from '../protocols/sasl/index.js';
import { createDirectory, type OpenDirectory } from '../store/directory/index.js';
import { KvError, openMemoryStore } from '../store/kv/index.js';
import type { LoginGuard } from '../store/limits/contract.js';
import { createSealer } from '../store/settings/index.js';
import { createSaslBackend, type SaslBackendOptions } from './authentication.js';
import { createTokenVerifier } from './oauth-tokens/index.js';
import { TestIssuer } from './oauth-tokens/testing.js';
import { login as loginSchema } from './settings/schemas/login.js';

const alice = 'alice@example.test';
const password = 'correct horse';
const context = { remoteAddress: '192.0.2.7', protocol: 'imap' };
const scram = { fakeSaltKey: Buffer.alloc(32, 1), iterations: 10_000, saltBytes: 16 };

let issuer: TestIssuer;
let key: string;
let directory: OpenDirectory;

beforeAll(async () => {
  issuer = await TestIssuer.start();
  key = await issuer.addKey('ES256');
  directory = createDirectory({
    kv: openMemoryStore(),
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
    sealer: createSealer([Buffer.alloc(32, 9)], systemRandom),
  });
  await directory.createDomain('example.test');
  await directory.createPrincipal({
    kind: 'account',
    address: alice,
    password,
    keepsLegacySecret: true,
    aliases: ['al@example.test'],
  });
  await directory.createPrincipal({ kind: 'account', address: 'bob@example.test', password });
  await directory.createPrincipal({ kind: 'account', address: 'gone@example.test', password, keepsLegacySecret: true });
  await directory.updatePrincipal('gone@example.test', { isEnabled: false });
  await directory.createPrincipal({ kind: 'group', address: 'team@example.test', members: [alice] });
});
afterAll(() => issuer.close());

/** Remembers what it was told; `answer` is what it says. */
class WatchedGuard implements LoginGuard {
  answer: Awaited<ReturnType<LoginGuard['admit']>> | Error = { isAdmitted: true, delayMs: 0 };
  asked: string[] = [];
  records: [login: string, isGood: boolean][] = [];

  async admit({ login }: { login: string }) {
    this.asked.push(login);
    if (this.answer instanceof Error) throw this.answer;
    return this.answer;
  }

  async record({ login }: { login: string }, isGood: boolean) {
    if (this.answer instanceof Error) throw this.answer;
    this.records.push([login, isGood]);
  }
}

let guard: WatchedGuard;
beforeEach(() => {
  guard = new WatchedGuard();
});

function open(section: Record<string, unknown> = {}, options: SaslBackendOptions = {}): SaslBackend {
  const issuers = { test: { issuer: issuer.url, audiences: ['mail'] } };
  const settings = loginSchema.parse({ mechanisms: { cramMd5: true, digestMd5: true }, issuers, ...section });
  const tokens = createTokenVerifier({ settings: () => settings, clock: systemClock, logger: silentLogger });
  return createSaslBackend(directory, silentLogger, { settings: () => settings, tokens, guard, ...options });
}

/** A whole exchange with the client of `protocols/sasl/client`. */
async function logIn(
  backend: SaslBackend,
  mechanism: Parameters<typeof createSaslClient>[0],
  login: string,
  secret: string,
): Promise<AuthResult> {
  const credentials =
    mechanism === 'XOAUTH2' || mechanism === 'OAUTHBEARER' ? { login, accessToken: secret } : { login, password: secret };
  const client = createSaslClient(mechanism, credentials, { host: 'mx.example.test', service: 'imap' });
  const exchange = startSaslExchange(mechanism, {
    backend,
    context,
    scram,
    onBackendError: (error) => expect.unreachable(String(error)),
  })!;
  let step = await exchange.step(client.initial);
  while (step.kind === 'challenge') step = await exchange.step(await client.step(step.bytes));
  if (step.kind === 'malformed') throw new Error(step.text);
  return step.result;
}

const byPassword = ['PLAIN', 'LOGIN', 'SCRAM-SHA-256', 'CRAM-MD5', 'DIGEST-MD5'] as const;
const byToken = ['XOAUTH2', 'OAUTHBEARER'] as const;

describe.each(byPassword)('%s', (mechanism) => {
  it('lets in who knows the password, and tells the guard of everybody', async () => {
    const backend = open();
    expect(await logIn(backend, mechanism, alice, password)).toMatchObject({ ok: true, principal: { login: alice } });
    expect(await logIn(backend, mechanism, alice, 'wrong')).toEqual({ ok: false, reason: 'invalid' });
    expect(await logIn(backend, mechanism, 'nobody@example.test', password)).toEqual({ ok: false, reason: 'invalid' });
    expect(await logIn(backend, mechanism, 'gone@example.test', password)).toEqual({ ok: false, reason: 'disabled' });
    const logins = [alice, alice, 'nobody@example.test', 'gone@example.test'];
    expect(guard.asked).toEqual(logins);
    expect(guard.records).toEqual([
      [alice, true],
      [alice, false],
      ['nobody@example.test', false],
    ]);
  });

  it('goes no further when the guard says so', async () => {
    guard.answer = { isAdmitted: false, delayMs: 0 };
    expect(await logIn(open(), mechanism, alice, password)).toEqual({ ok: false, reason: 'too-many' });
    expect(guard.records).toEqual([]);
  });
});

describe('CRAM-MD5 and DIGEST-MD5', () => {
  it('are for accounts that keep a secret for them, and say the same of others', async () => {
    for (const mechanism of ['CRAM-MD5', 'DIGEST-MD5'] as const) {
      expect(await logIn(open(), mechanism, 'bob@example.test', password)).toEqual({ ok: false, reason: 'invalid' });
    }
    expect(await logIn(open(), 'CRAM-MD5', 'AL@example.test', password)).toMatchObject({ ok: true, principal: { login: alice } });
  });

  it('keep a secret that belongs to the password of the moment', async () => {
    await directory.setPassword(alice, 'battery staple');
    expect(await logIn(open(), 'CRAM-MD5', alice, password)).toEqual({ ok: false, reason: 'invalid' });
    expect(await logIn(open(), 'CRAM-MD5', alice, 'battery staple')).toMatchObject({ ok: true });
    await directory.setPassword(alice, password);
  });
});

describe.each(byToken)('%s', (mechanism) => {
  const sign = (email: string, claims: Record<string, unknown> = {}) => issuer.sign(key, { aud: 'mail', email, ...claims });

  it('lets in whom the token names, by any address of the account', async () => {
    const backend = open();
    expect(await logIn(backend, mechanism, alice, await sign(alice))).toMatchObject({ ok: true, principal: { login: alice } });
    expect(await logIn(backend, mechanism, 'al@example.test', await sign(alice))).toMatchObject({
      ok: true,
      principal: { login: alice },
    });
    expect(await logIn(backend, mechanism, alice, await sign('AL@example.test'))).toMatchObject({ ok: true });
    expect(guard.records).toEqual([
      [alice, true],
      ['al@example.test', true],
      [alice, true],
    ]);
  });

  it('refuses a token of somebody else, of no account, of a disabled one', async () => {
    const backend = open();
    for (const [login, email] of [
      [alice, 'bob@example.test'],
      ['bob@example.test', alice],
      ['nobody@example.test', 'nobody@example.test'],
      ['team@example.test', 'team@example.test'],
      ['alice+x@example.test', 'alice+x@example.test'],
      [alice, 'no address'],
    ]) {
      expect(await logIn(backend, mechanism, login!, await sign(email!)), `${login} ${email}`).toEqual({
        ok: false,
        reason: 'invalid',
      });
    }
    expect(guard.records.every(([, isGood]) => !isGood)).toBe(true);
    expect(await logIn(backend, mechanism, 'gone@example.test', await sign('gone@example.test'))).toEqual({
      ok: false,
      reason: 'disabled',
    });
  });

  it('takes a made-up token for a guess, and one that has run out for none', async () => {
    const backend = open();
    expect(await logIn(backend, mechanism, alice, 'made-up')).toEqual({ ok: false, reason: 'invalid' });
    expect(await logIn(backend, mechanism, alice, await sign(alice, { exp: 1_000_000_000 }))).toEqual({
      ok: false,
      reason: 'invalid',
    });
    expect(await logIn(backend, mechanism, alice, await sign(alice, { aud: 'web' }))).toEqual({ ok: false, reason: 'invalid' });
    expect(guard.records).toEqual([[alice, false]]);
  });

  it('is unavailable while the issuer is', async () => {
    const token = await sign(alice);
    issuer.trouble = 'status-500';
    expect(await logIn(open(), mechanism, alice, token)).toEqual({ ok: false, reason: 'unavailable' });
    issuer.trouble = 'none';
    expect(guard.records).toEqual([]);
  });
});

describe('the guard', () => {
  it('makes one login wait, and no other', async () => {
    const backend = open();
    guard.answer = { isAdmitted: true, delayMs: 60_000 };
    let isOver = false;
    void backend.verifyPassword(alice, password, context).then(() => {
      isOver = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    guard.answer = { isAdmitted: true, delayMs: 5 };
    expect(await backend.verifyPassword(alice, password, context)).toMatchObject({ ok: true });
    expect(isOver).toBe(false);
  });

  it('hears one name, however an address is spelled', async () => {
    const backend = open();
    for (const login of ['Alice@Example.TEST', '"alice"@example.test', '"al\\ice"@example.test.']) {
      expect(await backend.verifyPassword(login, 'wrong', context)).toEqual({ ok: false, reason: 'invalid' });
      expect(await logIn(backend, 'SCRAM-SHA-256', login, 'wrong')).toEqual({ ok: false, reason: 'invalid' });
    }
    expect(new Set(guard.asked)).toEqual(new Set([alice]));
    expect(guard.records).toEqual(Array(6).fill([alice, false]));
    await backend.verifyPassword('no address', 'wrong', context);
    expect(guard.asked.at(-1)).toBe('no address');
  });

  it('that can not be asked stands in nobody’s way', async () => {
    guard.answer = new KvError('unavailable', 'away');
    expect(await logIn(open(), 'PLAIN', alice, password)).toMatchObject({ ok: true });
    expect(await logIn(open(), 'SCRAM-SHA-256', alice, 'wrong')).toEqual({ ok: false, reason: 'invalid' });
  });
});

describe('what is offered', () => {
  const offered = (backend: SaslBackend) => offeredMechanisms({ backend, scram, channelBinding: () => Buffer.alloc(32) });

  it('is what settings say: tokens where there are issuers, the old ones only when they are wished for', () => {
    const usual = ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256', 'PLAIN', 'LOGIN'];
    expect(offered(open({ mechanisms: {}, issuers: {} }))).toEqual(usual);
    expect(offered(createSaslBackend(directory, silentLogger))).toEqual(usual);
    expect(offered(open({ mechanisms: {} }))).toEqual([...usual.slice(0, 2), 'OAUTHBEARER', 'XOAUTH2', 'PLAIN', 'LOGIN']);
    expect(offered(open({ mechanisms: {} }, { tokens: undefined }))).toEqual(usual);
    const few = { plain: false, login: false, scramSha256Plus: false, xoauth2: false, cramMd5: true };
    expect(offered(open({ mechanisms: few }))).toEqual(['SCRAM-SHA-256', 'OAUTHBEARER', 'CRAM-MD5']);
  });
});

describe('a directory that is away', () => {
  it('is no wrong password', async () => {
    const away = { ...directory, verifyPassword: () => Promise.reject(new KvError('unavailable', 'away')) };
    const backend = createSaslBackend(away, silentLogger, { guard });
    expect(await backend.verifyPassword(alice, password, context)).toEqual({ ok: false, reason: 'unavailable' });
    expect(guard.records).toEqual([]);
  });
});
