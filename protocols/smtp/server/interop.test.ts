/** Real clients against the session: Python's smtplib, swaks, curl, nodemailer. What a machine lacks is skipped by name. */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { startTestServer, type TestServer, type TestServerOptions } from '../testing/server.js';

const run = promisify(execFile);
const has = (command: string) => spawnSync(command, ['--version'], { stdio: 'ignore' }).error === undefined;
const password = 'wonder, land=1';

async function withServer(options: TestServerOptions, test: (server: TestServer) => Promise<void>): Promise<void> {
  const server = await startTestServer(options);
  try {
    await test(server);
  } finally {
    await server.close();
  }
}

/** SCRAM-SHA-256 is not in smtplib: the exchange here is written from RFC 5802 with Python's own primitives. */
const python = `
import sys, smtplib, ssl, base64, hashlib, hmac
port = int(sys.argv[1])
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE

def scram(client, login, password):
    b64 = lambda b: base64.b64encode(b).decode()
    bare = 'n=%s,r=pythonnonce' % login.replace('=', '=3D').replace(',', '=2C')
    code, text = client.docmd('AUTH', 'SCRAM-SHA-256 ' + b64(('n,,' + bare).encode()))
    assert code == 334, (code, text)
    first = base64.b64decode(text).decode()
    fields = dict(part.split('=', 1) for part in first.split(','))
    salted = hashlib.pbkdf2_hmac('sha256', password.encode(), base64.b64decode(fields['s']), int(fields['i']))
    mac = lambda key, text: hmac.new(key, text, 'sha256').digest()
    client_key = mac(salted, b'Client Key')
    without = 'c=biws,r=' + fields['r']
    message = ','.join([bare, first, without]).encode()
    signature = mac(hashlib.sha256(client_key).digest(), message)
    proof = bytes(a ^ b for a, b in zip(client_key, signature))
    code, text = client.docmd(b64((without + ',p=' + b64(proof)).encode()))
    if code != 334: return code
    assert base64.b64decode(text) == b'v=' + base64.b64encode(mac(mac(salted, b'Server Key'), message)), 'server proof'
    return client.docmd('')[0]

with smtplib.SMTP('127.0.0.1', port, timeout=10) as client:
    client.starttls(context=context)
    client.ehlo()
    assert scram(client, 'alice@example.test', 'wrong') == 535
    assert scram(client, 'nobody@example.test', 'wrong') == 535
    assert scram(client, 'alice@example.test', sys.argv[2]) == 235
    refused = client.sendmail('alice@example.test', ['bob@example.test', 'unknown@example.test'], 'Subject: scram\\r\\n\\r\\n.dot\\r\\n')
    assert refused == {'unknown@example.test': (550, b'5.1.1 No such mailbox')}, refused
for mechanism in ('auth_plain', 'auth_login'):
    with smtplib.SMTP('127.0.0.1', port, timeout=10) as client:
        client.starttls(context=context)
        client.ehlo()
        client.user, client.password = 'alice@example.test', sys.argv[2]
        code, text = client.auth(mechanism[5:], getattr(client, mechanism))
        assert code == 235, text
        client.sendmail('alice@example.test', ['bob@example.test'], ('Subject: %s\\r\\n\\r\\nJ\\u00f6rg\\r\\n' % mechanism).encode(), mail_options=['BODY=8BITMIME'])
print('done')
`;

describe.skipIf(!has('python3'))('smtplib', () => {
  it('logs in by SCRAM-SHA-256, PLAIN and LOGIN under STARTTLS, and sends', () =>
    withServer({ mode: 'submission' }, async (server) => {
      const { stdout } = await run('python3', ['-c', python, String(server.port), password]);
      expect(stdout).toBe('done\n');
      expect(server.handler.messages.map((message) => message.content.toString())).toEqual([
        'Subject: scram\r\n\r\n.dot\r\n',
        'Subject: auth_plain\r\n\r\nJörg\r\n',
        'Subject: auth_login\r\n\r\nJörg\r\n',
      ]);
      expect(server.handler.messages.every((message) => message.secure && message.login === 'alice@example.test')).toBe(true);
    }));

  it('speaks LMTP', () =>
    withServer({ mode: 'lmtp' }, async (server) => {
      const script = `
import smtplib, sys
with smtplib.LMTP('127.0.0.1', int(sys.argv[1]), timeout=10) as client:
    client.sendmail('a@b.test', ['bob@example.test'], 'x')
print('done')`;
      expect((await run('python3', ['-c', script, String(server.port)])).stdout).toBe('done\n');
      expect(server.handler.messages).toHaveLength(1);
    }));
});

describe.skipIf(!has('swaks'))('swaks', () => {
  const swaks = (server: TestServer, ...more: string[]) =>
    run('swaks', [
      '--server',
      '127.0.0.1',
      '--port',
      String(server.port),
      '--from',
      'a@b.test',
      '--to',
      'bob@example.test',
      ...more,
    ]);

  it('sends plain, pipelined and under TLS', async () => {
    await withServer({}, async (server) => {
      await swaks(server);
      await swaks(server, '--pipeline', '--to', 'bob@example.test,carl@example.test');
      await swaks(server, '--tls');
      expect(server.handler.messages.map((message) => [message.secure, message.recipients.length])).toEqual([
        [false, 1],
        [false, 2],
        [true, 1],
      ]);
    });
  });

  it('speaks for a client with XCLIENT', () =>
    withServer({ policy: { isTrustedPeer: true } }, async (server) => {
      await swaks(server, '--xclient-addr', '192.0.2.9', '--xclient-name', 'spike.test', '--xclient-login', 'alice@example.test');
      await swaks(
        server,
        '--tls',
        '--xclient-addr',
        'IPV6:2001:db8::9',
        '--xclient-helo',
        'spike.test',
        '--xclient-proto',
        'ESMTP',
      );
      expect(server.handler.messages.map(({ remoteAddress }) => remoteAddress)).toEqual(['192.0.2.9', '2001:db8::9']);
    }));

  it('logs in on the TLS port, not without TLS, and is refused with a wrong password', async () => {
    const login = ['--auth-user', 'alice@example.test', '--auth-password'];
    await withServer({ mode: 'submission', implicitTls: true }, async (server) => {
      await swaks(server, '--tls-on-connect', '--auth', 'LOGIN', ...login, password);
      await swaks(server, '--tls-on-connect', '--auth', 'PLAIN', ...login, password);
      // Exit code 28: authentication failed.
      await expect(swaks(server, '--tls-on-connect', '--auth', 'PLAIN', ...login, 'wrong')).rejects.toMatchObject({ code: 28 });
      expect(server.handler.messages).toHaveLength(2);
    });
    await withServer({ mode: 'submission' }, async (server) => {
      await expect(swaks(server, '--auth', 'PLAIN', ...login, password)).rejects.toMatchObject({ code: 28 });
      expect(server.handler.messages).toHaveLength(0);
    });
  });
});

describe.skipIf(!has('curl'))('curl', () => {
  it('uploads a message under STARTTLS with a login', () =>
    withServer({ mode: 'submission' }, async (server) => {
      const folder = mkdtempSync(join(tmpdir(), 'starling-curl-'));
      const content = `Subject: curl\r\n\r\n${'.dots\r\n'.repeat(50_000)}`;
      writeFileSync(join(folder, 'message'), content);
      try {
        await run('curl', [
          '--silent',
          '--show-error',
          '--ssl-reqd',
          '--insecure',
          '--user',
          `alice@example.test:${password}`,
          '--mail-from',
          'alice@example.test',
          '--mail-rcpt',
          'bob@example.test',
          '--upload-file',
          join(folder, 'message'),
          `smtp://127.0.0.1:${server.port}`,
        ]);
      } finally {
        rmSync(folder, { recursive: true });
      }
      expect(server.handler.messages[0]!.content.toString()).toBe(content);
      expect(server.handler.messages[0]!.login).toBe('alice@example.test');
    }));
});

interface Mailer {
  sendMail(message: object): Promise<{ accepted: string[]; rejected: string[] }>;
  close(): void;
}

describe('nodemailer', () => {
  const { createTransport } = createRequire(import.meta.url)('nodemailer') as { createTransport(options: object): Mailer };

  it('sends pooled messages with attachments, UTF-8 addresses and DSN', () =>
    withServer({ mode: 'submission' }, async (server) => {
      const mailer = createTransport({
        host: '127.0.0.1',
        port: server.port,
        pool: true,
        maxConnections: 2,
        requireTLS: true,
        tls: { rejectUnauthorized: false },
        auth: { user: 'alice@example.test', pass: password },
      });
      const attachment = Buffer.alloc(200_000, 7);
      const sent = await Promise.all(
        Array.from({ length: 10 }, (_, index) =>
          mailer.sendMail({
            from: 'alice@example.test',
            to: index === 0 ? ['bob@example.test', 'unknown@example.test'] : 'jörg@example.test',
            subject: `Grüße ${index}`,
            text: '.\n..\nend',
            attachments: [{ filename: 'a.bin', content: attachment }],
            dsn: { id: 'my id', return: 'headers', notify: ['failure'], recipient: 'alice@example.test' },
          }),
        ),
      );
      mailer.close();
      expect(sent[0]).toMatchObject({ accepted: ['bob@example.test'], rejected: ['unknown@example.test'] });
      expect(server.handler.messages).toHaveLength(10);
      const { envelope } = server.handler.messages.find((message) => message.recipients[0] === 'jörg@example.test')!;
      expect(envelope.mail.parameters).toMatchObject({ smtpUtf8: true, ret: 'HDRS', envelopeId: 'my id' });
      expect(envelope.recipients[0]!.parameters.notify).toEqual(['FAILURE']);
    }));
});
