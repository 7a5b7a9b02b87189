import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
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
