import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { clientMechanisms, createSaslClient, type SaslCredentials, tlsClientChannelBinding } from '../sasl/client/index.js';
import { TestAccounts, testLogin, testPassword, testToken } from '../sasl/testing/accounts.js';
import { TestClient } from './testing/client.js';
import { startTestServer, type TestServer } from './testing/server.js';

let server: TestServer;

beforeEach(async () => {
  server = await startTestServer();
});

afterEach(() => server.close());

const base64 = (text: string | Buffer): string => Buffer.from(text).toString('base64');
const hmac = (key: Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest();

/** A SCRAM-SHA-256 client (RFC 5802, RFC 7677) with the first message as initial response or not; answers the lines from the server's proof on. */
async function scram(client: TestClient, password: string, withInitial: boolean): Promise<string[]> {
  const bare = `n=alice,r=${randomBytes(12).toString('hex')}`;
  if (withInitial) client.send(`a AUTHENTICATE SCRAM-SHA-256 ${base64(`n,,${bare}`)}\r\n`);
  else {
    client.send('a AUTHENTICATE SCRAM-SHA-256\r\n');
    expect(await client.line()).toBe('+ ');
    client.send(`${base64(`n,,${bare}`)}\r\n`);
  }
  const first = Buffer.from((await client.line())!.slice(2), 'base64').toString();
  const [, nonce, salt, iterations] = /^r=(.*),s=(.*),i=(\d+)$/.exec(first)!;
  const salted = pbkdf2Sync(password, Buffer.from(salt!, 'base64'), Number(iterations), 32, 'sha256');
  const clientKey = hmac(salted, 'Client Key');
  const withoutProof = `c=${base64('n,,')},r=${nonce}`;
  const signed = `${bare},${first},${withoutProof}`;
  const signature = hmac(createHash('sha256').update(clientKey).digest(), signed);
  const proof = Buffer.from(clientKey.map((byte, i) => byte ^ signature[i]!));
  client.send(`${base64(`${withoutProof},p=${proof.toString('base64')}`)}\r\n`);
  const answer = (await client.line())!;
  if (!answer.startsWith('+ ')) return [answer];
  const serverProof = Buffer.from(answer.slice(2), 'base64').toString();
  expect(serverProof).toBe(`v=${hmac(hmac(salted, 'Server Key'), signed).toString('base64')}`);
  client.send('\r\n');
  return client.until('a');
}

describe('SCRAM-SHA-256', () => {
  it.each([true, false])('logs in who knows the password (initial response: %s)', async (withInitial) => {
    const client = await TestClient.open(server.port);
    await client.line();
    expect((await scram(client, 'secret', withInitial)).at(-1)).toMatch(/^a OK \[CAPABILITY .*\] Logged in$/);
    await client.ok('SELECT INBOX');
  });

  it('refuses who does not', async () => {
    const client = await TestClient.open(server.port);
    await client.line();
    expect((await scram(client, 'wrong', true)).at(-1)).toBe('a NO [AUTHENTICATIONFAILED] Invalid credentials');
    expect((await client.command('SELECT INBOX')).at(-1)).toBe('t1 BAD Not allowed now');
  });
});

describe('every mechanism', () => {
  const accounts = new TestAccounts();
  const allMechanisms =
    'AUTH=SCRAM-SHA-256-PLUS AUTH=SCRAM-SHA-256 AUTH=OAUTHBEARER AUTH=XOAUTH2 AUTH=PLAIN AUTH=LOGIN AUTH=DIGEST-MD5 AUTH=CRAM-MD5';

  beforeEach(async () => {
    await server.close();
    server = await startTestServer({ sasl: accounts, allowPlainAuth: false });
  });

  async function authenticate(mechanism: (typeof clientMechanisms)[number], credentials: SaslCredentials) {
    const client = await TestClient.open(server.tlsPort, true);
    await client.line();
    const channelBinding = tlsClientChannelBinding(client.socket as TLSSocket);
    const sasl = createSaslClient(mechanism, credentials, {
      host: 'mail.example.test',
      service: 'imap',
      offered: clientMechanisms,
      ...(channelBinding && { channelBinding }),
    });
    client.send(`a AUTHENTICATE ${mechanism}${sasl.initial ? ` ${base64(sasl.initial)}` : ''}\r\n`);
    for (;;) {
      const line = (await client.line())!;
      if (!line.startsWith('+')) return { line, sasl };
      client.send(`${base64(await sasl.step(Buffer.from(line.slice(2), 'base64')))}\r\n`);
    }
  }

  it.each(clientMechanisms)('%s lets in over TLS who has the secret', async (mechanism) => {
    const isToken = mechanism === 'XOAUTH2' || mechanism === 'OAUTHBEARER';
    const right = isToken ? { login: testLogin, accessToken: testToken } : { login: testLogin, password: testPassword };
    const wrong = isToken ? { login: testLogin, accessToken: 'x' } : { login: testLogin, password: 'x' };
    const good = await authenticate(mechanism, right);
    expect(good.line).toMatch(/^a OK /);
    expect(good.sasl.isComplete).toBe(true);
    expect((await authenticate(mechanism, wrong)).line).toBe('a NO [AUTHENTICATIONFAILED] Invalid credentials');
  });

  it('says the same of trouble and of too many failures in every mechanism', async () => {
    for (const mechanism of ['CRAM-MD5', 'DIGEST-MD5', 'SCRAM-SHA-256'] as const) {
      expect((await authenticate(mechanism, { login: 'broken', password: 'x' })).line, mechanism).toMatch(
        /^a NO \[UNAVAILABLE\]/,
      );
      expect((await authenticate(mechanism, { login: 'tired', password: 'x' })).line, mechanism).toMatch(
        /^(\* BYE|a NO \[LIMIT\])/,
      );
    }
  });

  it('is announced under TLS, and none without', async () => {
    const plain = await TestClient.open(server.port);
    expect(await plain.line()).toMatch(/ STARTTLS LOGINDISABLED\]/);
    expect((await plain.command('AUTHENTICATE CRAM-MD5')).at(-1)).toMatch(/ NO \[PRIVACYREQUIRED\]/);
    expect((await plain.command('LOGIN a b')).at(-1)).toMatch(/ NO \[PRIVACYREQUIRED\]/);
    const secure = await TestClient.open(server.tlsPort, true);
    expect(await secure.line()).toContain(allMechanisms);
  });

  it('follows the settings, and LOGIN goes with PLAIN', async () => {
    await server.close();
    const sasl = Object.assign(new TestAccounts(), { allowedMechanisms: () => ['SCRAM-SHA-256', 'CRAM-MD5'] as const });
    server = await startTestServer({ sasl, allowPlainAuth: false });
    const client = await TestClient.open(server.tlsPort, true);
    expect(await client.line()).toMatch(/ LOGINDISABLED AUTH=SCRAM-SHA-256 AUTH=CRAM-MD5\]/);
    expect((await client.command(`LOGIN ${testLogin} x`)).at(-1)).toMatch(/ NO \[CANNOT\]/);
    expect((await client.command('AUTHENTICATE PLAIN')).at(-1)).toMatch(/ NO \[CANNOT\]/);
  });

  it('ends when -PLUS was taken out of the list on the way', async () => {
    const client = await TestClient.open(server.tlsPort, true);
    await client.line();
    client.send(`a AUTHENTICATE SCRAM-SHA-256 ${base64(`y,,n=${testLogin},r=abcdef`)}\r\n`);
    expect(await client.line()).toMatch(/^a BAD .*changed on the way/);
  });
});
