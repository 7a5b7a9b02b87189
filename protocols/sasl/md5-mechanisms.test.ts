/** CRAM-MD5 and DIGEST-MD5: the vectors of RFC 2195 and RFC 2831, and what a server must not be fooled by. */
import { createHash, createHmac } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Clock, type Random, systemClock } from '../../ops/telemetry/index.js';
import { digestHa1, digestRealm, finishHmacMd5, legacyKeys } from '../../store/directory/index.js';
import { createSaslClient } from './client/index.js';
import { digestResponse, parseDigest, quoteDigest } from './digest-syntax.js';
import { startSaslExchange } from './index.js';
import { challengeOf, converse, exchangeParts, TestAccounts, testLogin, testPassword } from './testing/accounts.js';

/** Randomness whose text is this, however it is written. */
const fixed = (text: string): Random => ({ float: () => 0, bytes: () => ({ toString: () => text }) as unknown as Buffer });

function start(mechanism: string, random?: Random, clock?: Clock) {
  const accounts = new TestAccounts();
  const parts = exchangeParts(accounts, random, clock);
  return { accounts, parts, exchange: startSaslExchange(mechanism, parts)! };
}

describe('HMAC-MD5 from its state', () => {
  it('is what the machine computes at once', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 150 }), fc.uint8Array({ maxLength: 300 }), (key, message) => {
        const { hmacMd5State } = legacyKeys('x', Buffer.from(key).toString('hex'));
        const wanted = createHmac('md5', Buffer.from(key).toString('hex')).update(message).digest('hex');
        expect(finishHmacMd5(hmacMd5State, Buffer.from(message)).toString('hex')).toBe(wanted);
      }),
      { numRuns: 300 },
    );
  });
});

describe('CRAM-MD5', () => {
  it('gives the values of RFC 2195 2', async () => {
    const answer = 'tim b913a602c7eda7a495b4e6e7334d3890';
    const challenge = '<1896.697170952@postoffice.reston.mci.net>';
    const { hmacMd5State } = legacyKeys('tim', 'tanstaaftanstaaf');
    expect(finishHmacMd5(hmacMd5State, Buffer.from(challenge)).toString('hex')).toBe(answer.slice(4));
    const client = createSaslClient('CRAM-MD5', { login: 'tim', password: 'tanstaaftanstaaf' }, { host: '', service: 'imap' });
    expect(String(await client.step(Buffer.from(challenge)))).toBe(answer);
    const clock = { ...systemClock, nowMs: () => 697_170_952_123 };
    const accounts = new TestAccounts();
    accounts.legacySecret = async () => ({ accountRef: 'ref', ...legacyKeys('tim', 'tanstaaftanstaaf') });
    const parts = { ...exchangeParts(accounts, fixed('1896'), clock), serverName: 'postoffice.reston.mci.net' };
    const exchange = startSaslExchange('CRAM-MD5', parts)!;
    expect(challengeOf(await converse(exchange, undefined)).toString()).toBe(challenge);
    expect(await converse(exchange, answer)).toMatchObject({ kind: 'done', result: { ok: true } });
  });

  it('takes the right answer to its own challenge, and no other', async () => {
    const answer = (challenge: Buffer, password = testPassword, login = testLogin) =>
      `${login} ${createHmac('md5', password).update(challenge).digest('hex')}`;
    const right = start('CRAM-MD5');
    const challenge = challengeOf(await converse(right.exchange, undefined));
    expect(challenge.toString()).toMatch(/^<[0-9a-f]{32}\.\d+@mx\.example\.test>$/);
    expect(await converse(right.exchange, answer(challenge).toUpperCase().replace(/^\S+/, testLogin))).toMatchObject({
      result: { ok: true },
    });
    for (const [password, login, from] of [
      ['wrong', testLogin, undefined],
      [testPassword, 'nobody', undefined],
      [testPassword, testLogin, challenge],
    ] as const) {
      const wrong = start('CRAM-MD5');
      const own = challengeOf(await converse(wrong.exchange, undefined));
      expect(await converse(wrong.exchange, answer(from ?? own, password, login))).toMatchObject({
        result: { ok: false, reason: 'invalid' },
      });
      expect(wrong.accounts.outcomes).toMatchObject([{ login, proved: false, mechanism: 'CRAM-MD5' }]);
      expect(await converse(wrong.exchange, answer(own))).toMatchObject({ kind: 'malformed' });
    }
  });

  it('has no initial response, and tells broken syntax and trouble apart', async () => {
    expect(await converse(start('CRAM-MD5').exchange, 'x')).toMatchObject({ kind: 'malformed' });
    const hex = 'a'.repeat(32);
    for (const bad of [
      '',
      hex,
      ` ${hex}`,
      `x${hex}`,
      `x ${hex}a`,
      `x ${hex.slice(1)}`,
      `x\0y ${hex}`,
      `${'x'.repeat(5_000)} ${hex}`,
    ]) {
      expect(await converse(start('CRAM-MD5').exchange, undefined, bad), bad.slice(0, 40)).toMatchObject({ kind: 'malformed' });
    }
    const broken = start('CRAM-MD5');
    expect(await converse(broken.exchange, undefined, `broken ${hex}`)).toMatchObject({ result: { reason: 'unavailable' } });
    expect(broken.parts.errors).toHaveLength(1);
    expect(await converse(start('CRAM-MD5').exchange, undefined, `tired ${hex}`)).toMatchObject({
      result: { reason: 'too-many' },
    });
    const disabled = start('CRAM-MD5');
    disabled.accounts.verdict = 'disabled';
    const challenge = challengeOf(await converse(disabled.exchange, undefined));
    const proof = createHmac('md5', testPassword).update(challenge).digest('hex');
    expect(await converse(disabled.exchange, `${testLogin} ${proof}`)).toMatchObject({ result: { reason: 'disabled' } });
  });
});

describe('DIGEST-MD5', () => {
  it.each([
    ['imap', 'OA6MG9tEQGm2hh', 'OA6MHXh6VqTrRk', 'd388dad90d4bbd760a152321f2143af7', 'ea40f60335c427b5527b84dbabcdfffd'],
    ['acap', 'OA9BSXrbuRhWay', 'OA9BSuZWMSpW8m', '6084c6db3fede7352c551284490fd0fc', '2f0b3d7c3c2e486600ef710726aa2eae'],
  ])('gives the values of RFC 2831 4 (%s)', async (service, nonce, cnonce, response, rspauth) => {
    const host = 'elwood.innosoft.com';
    const ha1 = digestHa1('chris', host, 'secret');
    const said = `charset=utf-8,username="chris",realm="${host}",nonce="${nonce}",nc=00000001,cnonce="${cnonce}",digest-uri="${service}/${host}",response=${response},qop=auth`;
    const directives = parseDigest(Buffer.from(said))!;
    expect(digestResponse(ha1, directives, 'AUTHENTICATE')).toBe(response);
    expect(digestResponse(ha1, directives, '')).toBe(rspauth);
    const client = createSaslClient('DIGEST-MD5', { login: 'chris', password: 'secret' }, { host, service }, fixed(cnonce));
    const challenge = `realm="${host}",nonce="${nonce}",qop="auth",algorithm=md5-sess,charset=utf-8`;
    const answer = parseDigest(await client.step(Buffer.from(challenge)))!;
    expect(Object.fromEntries(answer)).toEqual(Object.fromEntries(directives));
    expect(client.isComplete).toBe(false);
    expect(await client.step(Buffer.from(`rspauth=${rspauth}`))).toHaveLength(0);
    expect(client.isComplete).toBe(true);
  });

  interface Changes {
    password?: string;
    login?: string;
    directives?: Record<string, string | undefined>;
    omits?: string[];
  }

  /** A response made here from RFC 2831, without the room's own arithmetic. */
  async function attempt({ password = testPassword, login = testLogin, directives = {}, omits = [] }: Changes = {}) {
    const started = start('DIGEST-MD5');
    const challenge = challengeOf(await converse(started.exchange, undefined)).toString();
    expect(challenge).toMatch(/^realm="starling",nonce="[^"]{32}",qop="auth",charset=utf-8,algorithm=md5-sess$/);
    const said: Record<string, string> = {
      username: login,
      realm: digestRealm,
      nonce: /nonce="([^"]*)"/.exec(challenge)![1]!,
      cnonce: 'abc',
      nc: '00000001',
      qop: 'auth',
      'digest-uri': 'smtp/mx.example.test',
      ...(directives as Record<string, string>),
    };
    const md5 = (...parts: (string | Buffer)[]) => {
      const hash = createHash('md5');
      for (const part of parts) hash.update(part);
      return hash.digest();
    };
    const latin1 = (text: string) => Buffer.from(text, /^[\x00-\xff]*$/.test(text) ? 'latin1' : 'utf8');
    const secret = md5(latin1(said.username!), ':', said.realm!, ':', latin1(password));
    const a1 = md5(secret, `:${said.nonce}:${said.cnonce}${said.authzid ? `:${said.authzid}` : ''}`).toString('hex');
    const of = (method: string) =>
      md5(
        `${a1}:${said.nonce}:${said.nc}:${said.cnonce}:${said.qop}:${md5(`${method}:${said['digest-uri']}`).toString('hex')}`,
      ).toString('hex');
    said.response ??= of('AUTHENTICATE');
    const parts = Object.entries(said).filter(([name]) => !omits.includes(name));
    const text = [
      'charset=utf-8',
      ...parts.map(([name, value]) => (/^(nc|qop|response)$/.test(name) ? `${name}=${value}` : `${name}=${quoteDigest(value)}`)),
    ].join(',');
    return { ...started, step: await converse(started.exchange, text), rspauth: of('') };
  }

  it('proves both sides', async () => {
    const { step, rspauth, exchange, accounts } = await attempt();
    expect(challengeOf(step).toString()).toBe(`rspauth=${rspauth}`);
    expect(await converse(exchange, '')).toMatchObject({ kind: 'done', result: { ok: true } });
    expect(accounts.outcomes).toMatchObject([{ login: testLogin, proved: true, mechanism: 'DIGEST-MD5' }]);
    expect(challengeOf((await attempt({ directives: { authzid: testLogin } })).step)).toBeDefined();
    expect(challengeOf((await attempt({ omits: ['qop'] })).step)).toBeDefined();
    const late = await attempt();
    expect(await converse(late.exchange, 'x')).toMatchObject({ kind: 'malformed' });
  });

  it('refuses who does not know the password', async () => {
    for (const wrong of [
      { password: 'wrong' },
      { login: 'nobody' },
      { login: testLogin.toUpperCase() },
      { directives: { response: 'a'.repeat(32) } },
    ]) {
      const { step } = await attempt(wrong);
      expect(step, JSON.stringify(wrong)).toMatchObject({ kind: 'done', result: { ok: false, reason: 'invalid' } });
    }
    expect((await attempt({ login: 'broken' })).step).toMatchObject({ result: { reason: 'unavailable' } });
    expect((await attempt({ login: 'tired' })).step).toMatchObject({ result: { reason: 'too-many' } });
  });

  it('refuses what does not belong to its challenge', async () => {
    for (const directives of [
      { nonce: 'other' },
      { nc: '00000002' },
      { realm: 'elsewhere' },
      { qop: 'auth-int' },
      { 'digest-uri': 'imap/mx.example.test' },
      { cnonce: '' },
      { response: 'A'.repeat(32) },
      { authzid: 'bob@example.test' },
    ]) {
      const { step, accounts } = await attempt({ directives });
      expect(step, JSON.stringify(directives)).toMatchObject({ kind: 'malformed' });
      expect(accounts.outcomes).toEqual([]);
    }
    for (const omitted of ['username', 'nonce', 'nc', 'cnonce', 'digest-uri', 'response', 'realm']) {
      expect((await attempt({ omits: [omitted] })).step, omitted).toMatchObject({ kind: 'malformed' });
    }
    expect(await converse(start('DIGEST-MD5').exchange, 'username="x"')).toMatchObject({ kind: 'malformed' });
  });

  it('reads lists as RFC 2831 7.1 writes them', () => {
    const read = (text: string) => parseDigest(Buffer.from(text, 'latin1'));
    expect(Object.fromEntries(read('a="b\\"\\\\c", ,\t d=e ,,')!)).toEqual({ a: 'b"\\c', d: 'e' });
    expect(Object.fromEntries(read('realm="a",realm="b",Username="\xe9"')!)).toEqual({ realm: 'a', username: '\u00e9' });
    expect(Object.fromEntries(read('charset=utf-8,username="\xc3\xa9"')!)).toEqual({ charset: 'utf-8', username: '\u00e9' });
    for (const bad of [
      '',
      ',',
      'a',
      'a=',
      '="b"',
      'a="b',
      'a="b"c',
      'a=b c=d',
      'a=b,a=c',
      'a="\0"',
      'charset=utf-8,username="\xe9"',
    ]) {
      expect(read(bad), bad).toBeUndefined();
    }
  });
});
