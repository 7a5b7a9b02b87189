/** AUTH over real TLS: every mechanism, what EHLO says of them, and the replies to whoever is not let in. */
import { createInterface } from 'node:readline';
import { connect, type TLSSocket } from 'node:tls';
import { afterEach, describe, expect, it } from 'vitest';
import { clientMechanisms, createSaslClient, type SaslCredentials, tlsClientChannelBinding } from '../../../sasl/client/index.js';
import { TestAccounts, testLogin, testPassword, testToken } from '../../../sasl/testing/accounts.js';
import { startTestServer, TestHandler, type TestServer, type TestServerOptions } from '../../testing/server.js';

let server: TestServer;
const open: TLSSocket[] = [];

afterEach(async () => {
  for (const socket of open.splice(0)) socket.destroy();
  await server.close();
});

const base64 = (bytes: Buffer | string) => Buffer.from(bytes).toString('base64');

/** A client that has greeted: says lines, hears replies (their last lines; EHLO's joined). */
async function session(options: TestServerOptions = {}, accounts: TestAccounts = new TestAccounts()) {
  const handler = Object.assign(new TestHandler(), { authBackend: accounts });
  server = await startTestServer({ mode: 'submission', implicitTls: true, handler, ...options });
  return greet();
}

async function greet() {
  const socket = connect({ port: server.port, host: '127.0.0.1', rejectUnauthorized: false });
  open.push(socket);
  await new Promise<void>((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  const reply = async () => {
    let text = '';
    for (;;) {
      const { value, done } = await lines.next();
      if (done) return text;
      text += `${value as string}\n`;
      if ((value as string)[3] !== '-') return text.trim();
    }
  };
  const say = (line: string) => {
    socket.write(`${line}\r\n`);
    return reply();
  };
  await reply();
  return { socket, say, reply, ehlo: await say('EHLO client.test') };
}

async function authenticate(
  { socket, say }: Awaited<ReturnType<typeof greet>>,
  mechanism: (typeof clientMechanisms)[number],
  credentials: SaslCredentials,
) {
  const channelBinding = tlsClientChannelBinding(socket);
  const options = {
    host: 'mx.example.test',
    service: 'smtp',
    offered: clientMechanisms,
    ...(channelBinding && { channelBinding }),
  };
  const sasl = createSaslClient(mechanism, credentials, options);
  let answer = await say(`AUTH ${mechanism}${sasl.initial ? ` ${base64(sasl.initial)}` : ''}`);
  while (answer.startsWith('334')) answer = await say(base64(await sasl.step(Buffer.from(answer.slice(4), 'base64'))));
  return { answer, isComplete: sasl.isComplete };
}

describe('AUTH', () => {
  it.each(clientMechanisms)('%s lets in who has the secret', async (mechanism) => {
    const isToken = mechanism === 'XOAUTH2' || mechanism === 'OAUTHBEARER';
    const right = isToken ? { login: testLogin, accessToken: testToken } : { login: testLogin, password: testPassword };
    const wrong = isToken ? { login: testLogin, accessToken: 'x' } : { login: testLogin, password: 'x' };
    const client = await session();
    expect((await authenticate(client, mechanism, wrong)).answer).toMatch(/^535 5\.7\.8 /);
    expect(await authenticate(client, mechanism, right)).toEqual({ answer: '235 2.7.0 Authenticated', isComplete: true });
    expect(await client.say('AUTH PLAIN AHgAeA==')).toMatch(/^503 /);
  });

  it('tells why it did not work: not now, too often, disabled', async () => {
    const accounts = new TestAccounts();
    const client = await session({}, accounts);
    for (const mechanism of ['CRAM-MD5', 'DIGEST-MD5', 'SCRAM-SHA-256'] as const) {
      expect((await authenticate(client, mechanism, { login: 'broken', password: 'x' })).answer, mechanism).toMatch(
        /^454 4\.7\.0 /,
      );
    }
    accounts.verdict = 'disabled';
    expect((await authenticate(client, 'CRAM-MD5', { login: testLogin, password: testPassword })).answer).toMatch(
      /^525 5\.7\.13 /,
    );
    expect((await authenticate(client, 'CRAM-MD5', { login: 'tired', password: 'x' })).answer).toMatch(/^421 4\.7\.0 /);
    expect(await client.reply()).toBe('');
  });

  it('takes no initial response where the server speaks first, and none of somebody else’s exchange', async () => {
    const client = await session();
    expect(await client.say('AUTH CRAM-MD5 eA==')).toMatch(/^501 5\.5\.2 /);
    expect(await client.say('AUTH DIGEST-MD5 =')).toMatch(/^501 5\.5\.2 /);
    expect(await client.say('AUTH CRAM-MD5')).toMatch(/^334 /);
    expect(await client.say('*')).toMatch(/^501 5\.7\.0 /);
    expect(await client.say(`AUTH SCRAM-SHA-256 ${base64('y,,n=x,r=abcdef')}`)).toMatch(/^501 5\.5\.2 .*changed on the way/);
    expect(await client.say('AUTH EXTERNAL =')).toMatch(/^504 5\.5\.4 /);
  });
});

describe('what EHLO offers', () => {
  const all = 'AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 OAUTHBEARER XOAUTH2 PLAIN LOGIN DIGEST-MD5 CRAM-MD5';

  it('is what can be done', async () => {
    expect((await session()).ehlo).toMatch(new RegExp(`250[- ]${all}$`, 'm'));
  });

  it('is what the session policy says, in its order', async () => {
    const client = await session({ policy: { authMechanisms: ['LOGIN', 'cram-md5', 'EXTERNAL'] } });
    expect(client.ehlo).toMatch(/250[- ]AUTH LOGIN CRAM-MD5$/m);
    expect(await client.say('AUTH PLAIN AHgAeA==')).toMatch(/^504 /);
    expect(await client.say('AUTH LOGIN')).toBe(`334 ${base64('Username:')}`);
  });

  it('is nothing where policy does not want logins, or no mechanism is left', async () => {
    const client = await session({ policy: { offersAuth: false } });
    expect(client.ehlo).not.toContain('AUTH');
    expect(await client.say('AUTH PLAIN AHgAeA==')).toMatch(/^502 /);
    await server.close();
    expect((await session({ policy: { authMechanisms: ['EXTERNAL'] } })).ehlo).not.toContain('AUTH');
  });

  it('may be offered to mail exchangers too', async () => {
    expect((await session({ mode: 'mx' })).ehlo).not.toContain('AUTH');
    await server.close();
    expect((await session({ mode: 'mx', policy: { offersAuth: true } })).ehlo).toMatch(/250[- ]AUTH /m);
  });
});
