/** The client's mechanisms against the server's, RFC 7677's vector, and the choice between them. */
import { describe, expect, it } from 'vitest';
import type { Random } from '../../../ops/telemetry/index.js';
import { startSaslExchange } from '../index.js';
import { exchangeParts, TestAccounts, testLogin, testPassword, testToken } from '../testing/accounts.js';
import { chooseMechanism, clientMechanisms, createSaslClient, SaslClientError } from './index.js';

const channelBinding = { type: 'tls-exporter', bytes: Buffer.alloc(32, 3) } as const;
const options = { host: 'mx.example.test', service: 'smtp', channelBinding, offered: ['SCRAM-SHA-256-PLUS'] };
const password = { login: testLogin, password: testPassword };
const token = { login: testLogin, accessToken: testToken };

describe.each(clientMechanisms)('%s', (mechanism) => {
  const good = mechanism === 'XOAUTH2' || mechanism === 'OAUTHBEARER' ? token : password;
  const bad = good === token ? { login: testLogin, accessToken: 'nonsense' } : { login: testLogin, password: 'wrong' };

  async function talk(credentials: typeof password | typeof token, withInitial: boolean) {
    const exchange = startSaslExchange(mechanism, {
      ...exchangeParts(new TestAccounts()),
      channelBinding: () => channelBinding.bytes,
    })!;
    const client = createSaslClient(mechanism, credentials, options);
    let step = await exchange.step(withInitial ? client.initial : undefined);
    while (step.kind === 'challenge') step = await exchange.step(await client.step(step.bytes));
    return { step, client };
  }

  it.each([true, false])('logs in at our own server (initial response: %s)', async (withInitial) => {
    const { step, client } = await talk(good, withInitial);
    expect(step).toMatchObject({ kind: 'done', result: { ok: true } });
    expect(client.isComplete).toBe(true);
  });

  it('is refused with the wrong secret', async () => {
    expect((await talk(bad, true)).step).toMatchObject({ kind: 'done', result: { ok: false, reason: 'invalid' } });
  });
});

describe('SCRAM-SHA-256', () => {
  const nonce = 'rOprNGfwEbeRWgbNEkqO';
  const random: Random = { float: () => 0, bytes: () => ({ toString: () => nonce }) as unknown as Buffer };
  const first = `r=${nonce}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096`;
  const start = () => createSaslClient('SCRAM-SHA-256', { login: 'user', password: 'pencil' }, { host: '', service: '' }, random);

  it('gives the messages of RFC 7677 3', async () => {
    const client = start();
    expect(String(client.initial)).toBe(`n,,n=user,r=${nonce}`);
    expect(String(await client.step(Buffer.from(first)))).toBe(
      `c=biws,r=${nonce}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=`,
    );
    expect(client.isComplete).toBe(false);
    expect(await client.step(Buffer.from('v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4='))).toHaveLength(0);
    expect(client.isComplete).toBe(true);
  });

  it('believes no server that does not prove itself', async () => {
    const wrong = `v=${Buffer.alloc(32).toString('base64')}`;
    for (const [final, code] of [
      [wrong, 'server-proof'],
      ['v=', 'server-proof'],
      ['', 'server-proof'],
      ['v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=,m=x', 'server-proof'],
      ['e=invalid-proof', 'refused'],
    ]) {
      const client = start();
      await client.step(Buffer.from(first));
      expect(() => client.step(Buffer.from(final!)), final).toThrow(expect.objectContaining({ code }));
      expect(client.isComplete).toBe(false);
    }
  });

  it('is not led astray: nonces of others, too few or too many rounds', async () => {
    for (const bad of [
      first.replace(nonce, 'abc'),
      `r=${nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096`,
      first.replace('4096', '1'),
      first.replace('4096', '2000000000'),
      first.replace('W22ZaJ0SNY7soEsUEjb6gQ==', '!'),
      first.replace(/s=[^,]*/, 's='),
      `m=x,${first}`,
      `${first},m=x`,
    ]) {
      await expect((async () => start().step(Buffer.from(bad)))(), bad).rejects.toBeInstanceOf(SaslClientError);
    }
  });
});

describe('chooseMechanism', () => {
  const all = [
    'login',
    'PLAIN',
    'CRAM-MD5',
    'digest-md5',
    'SCRAM-SHA-256',
    'SCRAM-SHA-256-PLUS',
    'XOAUTH2',
    'OAUTHBEARER',
    'GSSAPI',
  ];

  it.each([
    [all, password, { isSecure: true, channelBinding }, 'SCRAM-SHA-256-PLUS'],
    [all, password, { isSecure: true }, 'SCRAM-SHA-256'],
    [all, token, { isSecure: true }, 'OAUTHBEARER'],
    [['XOAUTH2', 'PLAIN'], token, { isSecure: true }, 'XOAUTH2'],
    [['PLAIN', 'LOGIN'], token, { isSecure: true }, undefined],
    [['login', 'plain'], password, { isSecure: true }, 'PLAIN'],
    [['LOGIN'], password, { isSecure: true }, 'LOGIN'],
    [['LOGIN', 'PLAIN'], password, { isSecure: false }, undefined],
    [['LOGIN', 'CRAM-MD5'], password, { isSecure: false }, 'CRAM-MD5'],
    [all, token, { isSecure: false }, undefined],
    [['XOAUTH2'], password, { isSecure: true }, undefined],
    [['SCRAM-SHA-256-PLUS'], password, { isSecure: true }, undefined],
    [[], password, { isSecure: true }, undefined],
  ] as const)('of %j', (offered, credentials, security, wanted) => {
    expect(chooseMechanism(offered, credentials, security)).toBe(wanted);
  });

  it('and what can not be said in a mechanism is said at once', () => {
    expect(() => createSaslClient('PLAIN', token, options)).toThrow(SaslClientError);
    expect(() => createSaslClient('XOAUTH2', password, options)).toThrow(SaslClientError);
    expect(() => createSaslClient('PLAIN', { login: 'a\0b', password: 'c' }, options)).toThrow(SaslClientError);
    expect(() => createSaslClient('LOGIN', { login: 'a', password: 'c\r\nRSET' }, options)).toThrow(SaslClientError);
    expect(() => createSaslClient('OAUTHBEARER', { login: 'a', accessToken: 'x\x01auth=y' }, options)).toThrow(SaslClientError);
    expect(() => createSaslClient('SCRAM-SHA-256', { login: 'a', password: '\u2028' }, options)).toThrow(SaslClientError);
  });
});
