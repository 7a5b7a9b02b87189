/** Access tokens against a real issuer: what holds, what does not, and what happens while it can't be reached. */
import { exportSPKI, SignJWT } from 'jose';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Clock, silentLogger, systemClock } from '../../ops/telemetry/index.js';
import { login } from '../settings/schemas/login.js';
import { createTokenVerifier } from './index.js';
import { TestIssuer } from './testing.js';

const address = 'alice@example.test';
let issuer: TestIssuer;
let key: string;
/** Added to the machine's clocks. */
let aheadMs: number;
const clock: Clock = {
  ...systemClock,
  nowMs: () => systemClock.nowMs() + aheadMs,
  monotonicMs: () => systemClock.monotonicMs() + aheadMs,
};

beforeEach(async () => {
  aheadMs = 0;
  issuer = await TestIssuer.start();
  key = await issuer.addKey('ES256');
});
afterEach(() => issuer.close());

function verifier(changes: Record<string, unknown> = {}, general: Record<string, unknown> = {}) {
  const settings = login.parse({ issuers: { test: { issuer: issuer.url, audiences: ['mail'], ...changes } }, ...general });
  return createTokenVerifier({ settings: () => settings, clock, logger: silentLogger });
}
const introspection = (changes: Record<string, unknown> = {}) => ({
  introspection: { url: `${issuer.url}/introspect`, clientId: 'star ling', clientSecret: 's:e&c', ...changes },
});
const claims = { aud: 'mail', email: address };

describe('a signed token', () => {
  it('holds when signature, issuer, audience, time and scope are right', async () => {
    const tokens = verifier({ requiredScopes: ['imap', 'smtp'] });
    expect(tokens.isUsable).toBe(true);
    for (const scope of [{ scope: 'smtp openid imap' }, { scope: ['imap', 'smtp'] }, { scp: ['smtp', 'imap'] }]) {
      expect(await tokens.verify(await issuer.sign(key, { ...claims, ...scope }))).toEqual({ isGood: true, address });
    }
    expect(await tokens.verify(await issuer.sign(key, { ...claims, aud: ['x', 'mail'], scope: 'imap smtp' }))).toMatchObject({
      isGood: true,
    });
    expect(issuer.requests).toEqual(['/.well-known/openid-configuration', '/keys']);
    expect(await tokens.verify(await issuer.sign(key, { ...claims, scope: 'imap' }))).toMatchObject({
      reason: 'scope',
      scope: 'imap smtp',
      openidConfiguration: `${issuer.url}/.well-known/openid-configuration`,
    });
  });

  it.each([
    ['for another audience', { ...claims, aud: 'web' }],
    ['for nobody', { email: address }],
    ['that has expired', { ...claims, exp: 1_000_000_000 }],
    ['that does not hold yet', { ...claims, nbf: 4_000_000_000 }],
    ['that never expires', { ...claims, exp: undefined }],
    ['without an address', { aud: 'mail' }],
    ['with an address that is no text', { aud: 'mail', email: 7 }],
    ['with an address that the issuer did not verify', { ...claims, email_verified: false }],
    ['with an address that the issuer did not verify, in a text', { ...claims, email_verified: 'false' }],
  ])('is stale %s', async (_what, wrong) => {
    expect(await verifier().verify(await issuer.sign(key, wrong as Record<string, unknown>))).toMatchObject({
      isGood: false,
      reason: 'stale',
    });
  });

  it('is forgiven a clock that is a little wrong, and no more', async () => {
    const token = await issuer.sign(key, { ...claims, exp: Math.floor(Date.now() / 1000) + 5 });
    aheadMs = 20_000;
    expect(await verifier({ clockToleranceSeconds: 30 }).verify(token)).toMatchObject({ isGood: true });
    expect(await verifier({ clockToleranceSeconds: 5 }).verify(token)).toMatchObject({ reason: 'stale' });
  });

  it('is forged with another key, another issuer, none, or the public key as a secret', async () => {
    const tokens = verifier({ algorithms: ['ES256', 'RS256'] });
    expect(await tokens.verify(await issuer.sign(key, claims))).toMatchObject({ isGood: true });
    const stranger = await TestIssuer.start();
    await stranger.addKey('ES256', key);
    const forged = [
      await stranger.sign(key, { ...claims, iss: issuer.url }),
      await stranger.sign(key, claims),
      `${Buffer.from('{"alg":"none"}').toString('base64url')}.${Buffer.from(JSON.stringify({ ...claims, iss: issuer.url, exp: 4e9 })).toString('base64url')}.`,
      await new SignJWT({ ...claims, iss: issuer.url, exp: 4e9 })
        .setProtectedHeader({ alg: 'HS256', kid: key })
        .sign(Buffer.from(await exportSPKI(issuer.pair(key).publicKey))),
      `${(await issuer.sign(key, claims)).slice(0, -8)}AAAAAAAA`,
      'a.b.c',
      'opaque',
      '',
      'x'.repeat(10_000),
    ];
    for (const token of forged)
      expect(await tokens.verify(token), token.slice(0, 60)).toMatchObject({ isGood: false, reason: 'forged' });
    await stranger.close();
  });

  it('is taken only in the algorithms that are set', async () => {
    const rsa = await issuer.addKey('RS256');
    const token = await issuer.sign(rsa, claims);
    expect(await verifier().verify(token)).toMatchObject({ isGood: true });
    expect(await verifier({ algorithms: ['ES256'] }).verify(token)).toMatchObject({ reason: 'forged' });
    for (const algorithm of ['none', 'HS256']) expect(() => verifier({ algorithms: [algorithm] })).toThrow();
  });

  it('is found among keys without an id', async () => {
    await issuer.addKey('ES256');
    await issuer.addKey('ES256');
    expect(await verifier().verify(await issuer.sign(key, claims, { kid: undefined }))).toMatchObject({ isGood: true });
    const unpublished = await issuer.sign(key, claims, { kid: undefined });
    issuer.removeKey(key);
    expect(await verifier().verify(unpublished)).toMatchObject({ reason: 'forged' });
  });

  it('speaks for the domains that its issuer may speak for', async () => {
    const tokens = verifier({ domains: ['Example.test'] });
    expect(await tokens.verify(await issuer.sign(key, claims))).toMatchObject({ isGood: true });
    expect(await tokens.verify(await issuer.sign(key, { ...claims, email: 'root@other.test' }))).toMatchObject({
      reason: 'stale',
    });
    expect(await tokens.verify(await issuer.sign(key, { ...claims, email: 'example.test@other.test' }))).toMatchObject({
      reason: 'stale',
    });
  });
});

describe("an issuer's keys", () => {
  const place = () => ({ jwksUrl: `${issuer.url}/keys` });

  it('are looked for again when one is not known, but not for everybody who makes one up', async () => {
    const tokens = verifier(place());
    await tokens.verify(await issuer.sign(key, claims));
    const next = await issuer.addKey('ES256');
    const token = await issuer.sign(next, claims);
    expect(await tokens.verify(token)).toMatchObject({ reason: 'forged' });
    aheadMs += 31_000;
    expect(await tokens.verify(token)).toMatchObject({ isGood: true });
    const before = issuer.requests.length;
    for (let round = 0; round < 20; round++) {
      expect(await tokens.verify(await issuer.sign(key, claims, { kid: `made-up-${round}` }))).toMatchObject({
        reason: 'forged',
      });
    }
    expect(issuer.requests.length).toBe(before);
  });

  it('are forgotten when the issuer has withdrawn them', async () => {
    const tokens = verifier(place(), { keysSeconds: 60 });
    const token = await issuer.sign(key, claims);
    expect(await tokens.verify(token)).toMatchObject({ isGood: true });
    await issuer.addKey('ES256');
    issuer.removeKey(key);
    aheadMs += 61_000;
    expect(await tokens.verify(token)).toMatchObject({ reason: 'forged' });
  });

  it('serve on for a day while the issuer is away; without any it is unavailable', async () => {
    const tokens = verifier(place());
    const token = await issuer.sign(key, { ...claims, exp: Math.floor(Date.now() / 1000) + 200_000 });
    expect(await tokens.verify(token)).toMatchObject({ isGood: true });
    issuer.trouble = 'status-500';
    aheadMs += 3_600_000;
    expect(await tokens.verify(token)).toMatchObject({ isGood: true });
    expect(await verifier(place()).verify(token)).toMatchObject({ isGood: false, reason: 'unavailable' });
    aheadMs += 24 * 3_600_000;
    expect(await tokens.verify(token)).toMatchObject({ reason: 'unavailable' });
    issuer.trouble = 'none';
    aheadMs += 10_000;
    expect(await tokens.verify(token)).toMatchObject({ isGood: true });
  });

  it.each(['status-500', 'redirect', 'no-json', 'endless', 'silent', 'other-issuer'] as const)(
    'can not be had: %s',
    async (trouble) => {
      const token = await issuer.sign(key, claims);
      issuer.trouble = trouble;
      expect(await verifier({}, { timeoutSeconds: 0.3 }).verify(token)).toMatchObject({ isGood: false, reason: 'unavailable' });
      expect(issuer.requests).not.toContain('/elsewhere');
    },
  );

  it('are asked for once by many at a time', async () => {
    const tokens = verifier(place());
    const token = await issuer.sign(key, claims);
    const verdicts = await Promise.all(Array.from({ length: 20 }, () => tokens.verify(token)));
    expect(verdicts.every(({ isGood }) => isGood)).toBe(true);
    expect(issuer.requests).toEqual(['/keys']);
  });
});

describe('introspection', () => {
  const about = (changes: Record<string, unknown> = {}) => ({ active: true, username: address, aud: 'mail', ...changes });

  it('tells of opaque tokens, with the credentials of RFC 6749 2.3.1', async () => {
    issuer.active.set('opaque', about({ scope: 'imap', aud: 'mail' }));
    const tokens = verifier({ ...introspection(), requiredScopes: ['imap'] });
    expect(await tokens.verify('opaque')).toEqual({ isGood: true, address });
    expect(Buffer.from(issuer.asked!.authorization.replace('Basic ', ''), 'base64').toString()).toBe('star+ling:s%3Ae%26c');
    expect(Object.fromEntries(issuer.asked!.form)).toEqual({ token: 'opaque', token_type_hint: 'access_token' });
    expect(await tokens.verify('made-up')).toMatchObject({ reason: 'forged' });
  });

  it.each([
    ['for another audience', { aud: 'web' }, 'stale'],
    ['for nobody in particular', { aud: undefined }, 'stale'],
    ['of another client', { aud: undefined, client_id: 'web' }, 'stale'],
    ['of another issuer', { iss: 'https://other.test' }, 'stale'],
    ['expired', { exp: 1_000_000_000 }, 'stale'],
    ['not yet', { nbf: 4_000_000_000 }, 'stale'],
    ['of nobody', { username: '' }, 'stale'],
    ['without the scope', { scope: 'web' }, 'scope'],
    ['that only looks active', { active: 'true' }, 'forged'],
  ])('refuses one %s', async (_what, changes, reason) => {
    issuer.active.set('opaque', about({ scope: 'imap', ...changes }));
    const tokens = verifier({ ...introspection(), requiredScopes: ['imap'] });
    expect(await tokens.verify('opaque')).toMatchObject({ isGood: false, reason });
  });

  it('holds for the client that had it made, when it names no audience', async () => {
    issuer.active.set('opaque', about({ aud: undefined, client_id: 'mail' }));
    expect(await verifier(introspection()).verify('opaque')).toMatchObject({ isGood: true });
  });

  it('is believed for a while, and asked once at a time', async () => {
    issuer.active.set('opaque', about());
    const tokens = verifier(introspection(), { answerSeconds: 30 });
    await Promise.all([tokens.verify('opaque'), tokens.verify('opaque')]);
    expect(issuer.requests).toHaveLength(1);
    issuer.active.clear();
    aheadMs += 15_000;
    expect(await tokens.verify('opaque')).toMatchObject({ isGood: true });
    aheadMs += 16_000;
    expect(await tokens.verify('opaque')).toMatchObject({ reason: 'forged' });
    // Not longer than the token itself.
    issuer.active.set('short', about({ exp: Math.floor((Date.now() + aheadMs) / 1000) + 20 }));
    expect(await tokens.verify('short')).toMatchObject({ isGood: true });
    issuer.active.clear();
    aheadMs += 21_000;
    expect(await tokens.verify('short')).toMatchObject({ reason: 'forged' });
  });

  it('refuses revoked signed tokens where it is asked about all', async () => {
    const token = await issuer.sign(key, claims);
    expect(await verifier(introspection()).verify(token)).toMatchObject({ isGood: true });
    const tokens = verifier(introspection({ asksAbout: 'all' }));
    expect(await tokens.verify(token)).toMatchObject({ reason: 'stale' });
    issuer.active.set(token, about());
    expect(await tokens.verify(token)).toMatchObject({ isGood: true });
  });

  it('is unavailable while the issuer is', async () => {
    issuer.trouble = 'status-500';
    expect(await verifier(introspection()).verify('opaque')).toMatchObject({ reason: 'unavailable' });
    issuer.trouble = 'silent';
    expect(await verifier(introspection(), { timeoutSeconds: 0.2 }).verify('opaque')).toMatchObject({ reason: 'unavailable' });
  });
});

describe('settings', () => {
  it('are refused where keys or answers would come in the clear', () => {
    for (const url of ['http://id.example.org', 'ftp://x', 'id.example.org', 'http://127.0.0.1.example.org']) {
      expect(() => verifier({ issuer: url }), url).toThrow();
      expect(() => verifier({ jwksUrl: url }), url).toThrow();
    }
    expect(() => verifier({ audiences: [] })).toThrow();
    const none = createTokenVerifier({ settings: () => login.parse({}), clock, logger: silentLogger });
    expect(none.isUsable).toBe(false);
  });
});
