/** OAUTHBEARER and XOAUTH2: RFC 7628's examples, refusals, and both ends of this room against one another. */
import { describe, expect, it } from 'vitest';
import { createSaslClient, SaslClientError } from './client/index.js';
import { startSaslExchange } from './index.js';
import { parseOAuthBearer, parseXOAuth2 } from './oauth.js';
import { challengeOf, converse, exchangeParts, TestAccounts, testLogin, testToken } from './testing/accounts.js';

// RFC 7628 4.1.
const example =
  'bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB';

function start(mechanism: 'OAUTHBEARER' | 'XOAUTH2') {
  const accounts = new TestAccounts();
  const parts = exchangeParts(accounts);
  return { accounts, parts, exchange: startSaslExchange(mechanism, parts)! };
}

describe('the messages', () => {
  it('are those of RFC 7628 4.1', () => {
    expect(parseOAuthBearer(Buffer.from(example, 'base64').toString())).toEqual({ login: 'user@example.com', token: testToken });
    const credentials = { login: 'user@example.com', accessToken: testToken };
    const client = createSaslClient('OAUTHBEARER', credentials, { host: 'server.example.com', port: 143, service: 'imap' });
    expect(client.initial!.toString('base64')).toBe(example);
  });

  it('are read strictly', () => {
    expect(parseOAuthBearer('n,,\x01auth=BEARER  abc\x01\x01')).toEqual({ login: undefined, token: 'abc' });
    expect(parseOAuthBearer('y,a=a=2Cb,\x01auth=Bearer x.y\x01host=h\x01\x01')).toEqual({ login: 'a,b', token: 'x.y' });
    expect(parseOAuthBearer('n,,\x01auth=\x01\x01')).toEqual({ login: undefined, token: '' });
    expect(parseXOAuth2('user=a@b\x01auth=Bearer t\x01\x01')).toEqual({ login: 'a@b', token: 't' });
    for (const bad of [
      '',
      'n,,',
      'n,,\x01',
      'n,,\x01\x01',
      'p=tls-exporter,,\x01auth=Bearer t\x01\x01',
      'n,a=,\x01auth=Bearer t\x01\x01',
      'n,a=x=y,\x01auth=Bearer t\x01\x01',
      'n,,\x01auth=Bearer t\x01',
      'n,,\x01auth=Bearer t\x01\x01\x01',
      'n,,\x01auth=Bearer\x01\x01',
      'n,,\x01auth=Basic eDp5\x01\x01',
      'n,,\x01auth=Bearer t t\x01\x01',
      'n,,\x01auth=Bearer t\0\x01\x01',
      'n,,\x01auth=Bearer t\x01auth=Bearer u\x01\x01',
      'n,,\x01auth=Bearer t\x01AUTH=Bearer t\x01\x01',
      'user=a\x01auth=Bearer t\x01\x01',
    ]) {
      expect(typeof parseOAuthBearer(bad), JSON.stringify(bad)).toBe('string');
    }
    for (const bad of [
      '',
      'auth=Bearer t\x01\x01',
      'user=\x01auth=Bearer t\x01\x01',
      'user=a\x01user=b\x01auth=Bearer t\x01\x01',
      'user=a\x01\x01',
      'n,,\x01auth=Bearer t\x01\x01',
    ]) {
      expect(typeof parseXOAuth2(bad), JSON.stringify(bad)).toBe('string');
    }
  });
});

describe.each(['OAUTHBEARER', 'XOAUTH2'] as const)('%s', (mechanism) => {
  const options = { host: 'mx.example.test', port: 465, service: 'smtp' };

  it('takes a token', async () => {
    const { exchange, accounts } = start(mechanism);
    const client = createSaslClient(mechanism, { login: testLogin, accessToken: testToken }, options);
    expect(challengeOf(await converse(exchange, undefined))).toHaveLength(0);
    expect(await exchange.step(await client.step(Buffer.alloc(0)))).toMatchObject({ kind: 'done', result: { ok: true } });
    expect(accounts.tokens).toEqual([[testToken, testLogin]]);
    expect(client.isComplete).toBe(true);
  });

  it('says in JSON why a token is refused, and fails after the answer', async () => {
    const { exchange } = start(mechanism);
    const client = createSaslClient(mechanism, { login: testLogin, accessToken: 'expired' }, options);
    const challenge = challengeOf(await exchange.step(client.initial));
    expect(JSON.parse(challenge.toString())).toEqual(
      mechanism === 'XOAUTH2'
        ? { status: '401', schemes: 'bearer', scope: 'mail' }
        : { status: 'invalid_token', scope: 'mail', 'openid-configuration': 'https://id.test/x' },
    );
    const answer = await client.step(challenge);
    expect(answer).toEqual(mechanism === 'XOAUTH2' ? Buffer.alloc(0) : Buffer.of(1));
    expect(client.isComplete).toBe(false);
    expect(await exchange.step(answer)).toEqual({ kind: 'done', result: { ok: false, reason: 'invalid' } });
    expect(() => client.step(challenge)).toThrow(SaslClientError);
    expect(await converse(exchange, 'again')).toMatchObject({ kind: 'malformed' });
  });

  it('ends at once where the token is not to blame', async () => {
    const { exchange, parts } = start(mechanism);
    const client = createSaslClient(mechanism, { login: 'broken', accessToken: testToken }, options);
    expect(await exchange.step(client.initial)).toEqual({ kind: 'done', result: { ok: false, reason: 'unavailable' } });
    expect(parts.errors).toHaveLength(1);
    const silent = start(mechanism);
    silent.accounts.refusal = undefined;
    const other = createSaslClient(mechanism, { login: 'bob', accessToken: testToken }, options);
    expect(await silent.exchange.step(other.initial)).toEqual({ kind: 'done', result: { ok: false, reason: 'invalid' } });
    expect(await converse(start(mechanism).exchange, 'nonsense')).toMatchObject({ kind: 'malformed' });
  });
});
