/** Every way to log in, tried with the programs that people have: swaks, GNU SASL, Python's imaplib, curl. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { machineHas, perlHas } from '../harness/needs.js';
import { NodeProcess } from '../harness/node-process.js';
import { runCommand } from '../harness/processes.js';

const able = machineHas('swaks', 'gsasl', 'python3', 'curl') && perlHas('Authen::SASL', 'Digest::HMAC_MD5');
const legacy = 'legacy@example.test';
const alice = 'alice@example.test';
const legacyPassword = 'an older password';
const token = 'opaque-token-of-alice';

/** Answers for one opaque token as an issuer does (RFC 7662). */
function startIssuer(): Promise<Server> {
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += String(chunk);
    const isKnown = request.url === '/introspect' && new URLSearchParams(body).get('token') === token;
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(isKnown ? { active: true, username: alice, scope: 'mail', aud: 'mail' } : { active: false }));
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
}

describe.skipIf(!able)('logging in', () => {
  let issuer: Server;
  let node: NodeProcess;

  beforeAll(async () => {
    issuer = await startIssuer();
    const url = `http://127.0.0.1:${(issuer.address() as AddressInfo).port}`;
    node = await NodeProcess.start({
      clusterSettings: [
        '[login.mechanisms]',
        'cramMd5 = true',
        'digestMd5 = true',
        '[login.issuers.corp]',
        `issuer = "${url}"`,
        'audiences = ["mail"]',
        'requiredScopes = ["mail"]',
        '[login.issuers.corp.introspection]',
        `url = "${url}/introspect"`,
        'clientId = "starling"',
        'clientSecret = "for the issuer alone"',
        '',
      ].join('\n'),
    });
    const made = await node.cli('account', 'create', legacy, '--password', legacyPassword, '--legacy-logins', 'on', '--json');
    expect(made.code, made.stderr).toBe(0);
    expect(JSON.parse(made.stdout)).toMatchObject({ keepsLegacySecret: true });
  });
  afterAll(async () => {
    await node?.remove();
    issuer?.close();
  });

  const swaksAuth = async (mechanism: string, user: string, password: string) => {
    const server = ['--server', '127.0.0.1', '--port', String(node.port('submission')), '--tls', '--helo', 'client.test'];
    const login = ['--auth', mechanism, '--auth-user', user, '--auth-password', password, '--auth-hide-password'];
    const { code, stdout } = await runCommand('swaks', [
      ...server,
      ...login,
      '--from',
      user,
      '--to',
      user,
      '--quit-after',
      'AUTH',
    ]);
    return { code, last: stdout.split('\n').findLast((line) => /^\s?<[~*-]+\s+(?:235|5\d\d|4\d\d) /.test(line)) ?? stdout };
  };

  describe('swaks on submission', () => {
    it.each(['CRAM-MD5', 'DIGEST-MD5', 'LOGIN', 'PLAIN'])('%s', async (mechanism) => {
      expect(await swaksAuth(mechanism, legacy, legacyPassword)).toMatchObject({
        code: 0,
        last: expect.stringContaining('235 2.7.0'),
      });
      const wrong = await swaksAuth(mechanism, legacy, 'wrong password');
      expect(wrong.code).not.toBe(0);
      expect(wrong.last).toContain('535 5.7.8');
    });

    it.each(['CRAM-MD5', 'DIGEST-MD5'])('%s is nothing for an account that was not switched to it', async (mechanism) => {
      expect((await swaksAuth(mechanism, alice, node.password)).last).toContain('535 5.7.8');
    });
  });

  const gsasl = async (protocol: 'imap' | 'smtp', mechanism: string, user: string, password: string, ...more: string[]) => {
    const port = node.port(protocol === 'imap' ? 'imap' : 'submission');
    const connection = [`--${protocol}`, '--starttls', '--x509-ca-file=', `--connect=127.0.0.1:${port}`];
    const login = [
      `--mechanism=${mechanism}`,
      `--authentication-id=${user}`,
      '--authorization-id=',
      `--password=${password}`,
      '--verbose',
    ];
    const options = ['--realm=starling', '--quality-of-protection=qop-auth', ...more];
    const args = [...connection, ...login, ...options];
    const { code, stdout, stderr } = await runCommand('gsasl', args, { input: '', timeoutMs: 120_000 });
    return { code, text: stdout + stderr };
  };

  describe.each(['imap', 'smtp'] as const)('GNU SASL over %s', (protocol) => {
    const success = protocol === 'imap' ? /^\. OK .*Logged in/m : /^235 2\.7\.0/m;
    const refusal = protocol === 'imap' ? /^\. NO \[AUTHENTICATIONFAILED\]/m : /^535 5\.7\.8/m;

    it('binds SCRAM-SHA-256-PLUS to its TLS connection', async () => {
      const { text, code } = await gsasl(protocol, 'SCRAM-SHA-256-PLUS', alice, node.password);
      expect(text).toMatch(success);
      expect(code).toBe(0);
      expect((await gsasl(protocol, 'SCRAM-SHA-256-PLUS', alice, 'wrong')).text).toMatch(refusal);
    });

    it.each(['SCRAM-SHA-256', 'PLAIN', 'LOGIN'])('%s', async (mechanism) => {
      // Without binding a SCRAM client says so, or the server takes it for the victim of a downgrade.
      expect((await gsasl(protocol, mechanism, alice, node.password, '--no-cb')).text).toMatch(success);
      expect((await gsasl(protocol, mechanism, alice, 'wrong', '--no-cb')).text).toMatch(refusal);
    });

    it.each(['CRAM-MD5', 'DIGEST-MD5'])('%s', async (mechanism) => {
      expect((await gsasl(protocol, mechanism, legacy, legacyPassword)).text).toMatch(success);
      expect((await gsasl(protocol, mechanism, legacy, 'wrong')).text).toMatch(refusal);
    });
  });

  it("Python's imaplib: CRAM-MD5, PLAIN, LOGIN, XOAUTH2", async () => {
    const script = `
import imaplib, json, ssl, sys
port, legacy, legacy_password, token, alice = json.load(sys.stdin)
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
def session():
    return imaplib.IMAP4_SSL('127.0.0.1', port, ssl_context=context)
def attempt(work):
    client = session()
    try:
        return work(client)[0]
    except imaplib.IMAP4.error as error:
        return str(error)
    finally:
        client.shutdown()
plain = lambda user, password: lambda _: ('\\0' + user + '\\0' + password).encode()
xoauth2 = lambda value: lambda challenge: b'' if challenge else ('user=' + alice + '\\x01auth=Bearer ' + value + '\\x01\\x01').encode()
print(json.dumps({
    'capability': session().capabilities,
    'cram': attempt(lambda client: client.login_cram_md5(legacy, legacy_password)),
    'wrong-cram': attempt(lambda client: client.login_cram_md5(legacy, 'wrong')),
    'plain': attempt(lambda client: client.authenticate('PLAIN', plain(legacy, legacy_password))),
    'login': attempt(lambda client: client.login(legacy, legacy_password)),
    'token': attempt(lambda client: client.authenticate('XOAUTH2', xoauth2(token))),
    'wrong-token': attempt(lambda client: client.authenticate('XOAUTH2', xoauth2('made-up'))),
}))
`;
    const input = JSON.stringify([node.port('imaps'), legacy, legacyPassword, token, alice]);
    const { code, stdout, stderr } = await runCommand('python3', ['-c', script], { input });
    expect(code, stderr).toBe(0);
    const found = JSON.parse(stdout) as Record<string, unknown>;
    expect(found).toMatchObject({ cram: 'OK', plain: 'OK', login: 'OK', token: 'OK' });
    expect(found['wrong-cram']).toContain('AUTHENTICATIONFAILED');
    expect(found['wrong-token']).toContain('AUTHENTICATIONFAILED');
    const names = ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256', 'OAUTHBEARER', 'XOAUTH2', 'PLAIN', 'LOGIN', 'DIGEST-MD5', 'CRAM-MD5'];
    expect(found['capability']).toEqual(expect.arrayContaining(names.map((name) => `AUTH=${name}`)));
  });

  it.each(['OAUTHBEARER', 'XOAUTH2'])('curl: %s on IMAP and submission', async (mechanism) => {
    const login = (value: string) => ['--silent', '--insecure', '--user', `${alice}:`, '--oauth2-bearer', value];
    const method = ['--login-options', `AUTH=${mechanism}`];
    const imap = `imaps://127.0.0.1:${node.port('imaps')}/INBOX`;
    const listed = await runCommand('curl', [...login(token), ...method, imap, '--request', 'STATUS INBOX (MESSAGES)']);
    expect([listed.code, listed.stdout]).toEqual([0, expect.stringContaining('* STATUS INBOX')]);
    // 67: the login is refused.
    expect((await runCommand('curl', [...login('made-up'), ...method, imap])).code).toBe(67);
    const mail = [
      '--mail-from',
      alice,
      '--mail-rcpt',
      alice,
      '--upload-file',
      '-',
      `smtps://127.0.0.1:${node.port('submissions')}`,
    ];
    const input = `From: ${alice}\r\nTo: ${alice}\r\nSubject: by token\r\n\r\nHello\r\n`;
    expect((await runCommand('curl', [...login(token), ...method, ...mail], { input })).code).toBe(0);
    expect((await runCommand('curl', [...login('made-up'), ...method, ...mail], { input })).code).toBe(67);
  });

  it('follows the settings at once, and an account can be taken back', async () => {
    expect((await node.cli('account', 'update', legacy, '--legacy-logins', 'on')).code).toBe(1);
    expect((await node.cli('account', 'update', legacy, '--legacy-logins', 'off')).code).toBe(0);
    expect((await swaksAuth('CRAM-MD5', legacy, legacyPassword)).last).toContain('535 5.7.8');
    expect((await swaksAuth('PLAIN', legacy, legacyPassword)).last).toContain('235 2.7.0');
    expect((await node.cli('settings', 'set', 'login.mechanisms.cramMd5=false')).code).toBe(0);
    // swaks: no such mechanism is offered.
    expect((await swaksAuth('CRAM-MD5', legacy, legacyPassword)).code).not.toBe(0);
    const shown = await node.cli('settings', 'show', 'login');
    expect(shown.stdout).not.toContain('for the issuer alone');
  });
});
