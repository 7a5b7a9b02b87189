/**
 * What `swaks-extensions` leaves: every other option of swaks for TLS, AUTH, PIPELINING, LMTP, XCLIENT and PROXY, each of its protocols, and ends of a session at
 * every point.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { messagesByImapflow, servedCertificate } from '../harness/clients.js';
import { makeCertificate } from '../harness/mail-server.js';
import { machineHas, perlHas } from '../harness/needs.js';
import { basePorts, NodeProcess, type PortName } from '../harness/node-process.js';
import { freePortOffset } from '../harness/ports.js';
import { runCommand, waitFor } from '../harness/processes.js';

const able = machineHas('swaks', 'openssl') && perlHas('Authen::SASL', 'Digest::HMAC_MD5');

/** Loopback has a whole network of addresses: a proxy of ours, a filter of ours, a stranger. */
const [proxyAddress, filterAddress, strangerAddress] = ['127.0.0.9', '127.0.0.8', '127.0.0.7'];
const claimedAddress = '192.0.2.55';
const legacy = 'legacy@example.test';

/** Mail exchangers with TLS from the first byte, and LMTP with STARTTLS and logins, stand where POP3 would. */
const listeners: [port: PortName, name: string, protocol: string, tls: string][] = [
  ['smtp', 'smtp', 'smtp', 'starttls'],
  ['pop3s', 'smtps', 'smtp', 'implicit'],
  ['submission', 'submission', 'submission', 'starttls'],
  ['submissions', 'submissions', 'submission', 'implicit'],
  ['lmtp', 'lmtp', 'lmtp', 'none'],
  ['pop3', 'lmtps', 'lmtp', 'starttls'],
  ['imaps', 'imaps', 'imap', 'implicit'],
  ['http', 'http', 'http', 'none'],
];

describe.skipIf(!able)('options of swaks', () => {
  let node: NodeProcess;
  let folder: string;
  let count = 0;

  beforeAll(async () => {
    const portOffset = await freePortOffset(Object.values(basePorts));
    folder = mkdtempSync(join(tmpdir(), 'starling-swaks-'));
    const settings = listeners.map(
      ([port, name, protocol, tls]) =>
        `[[listeners]]\nname = "${name}"\nprotocol = "${protocol}"\nport = ${basePorts[port] + portOffset}\ntls = "${tls}"\n` +
        (name === 'smtp' ? `proxyProtocol = { from = ["${proxyAddress}"] }\n` : ''),
    );
    node = await NodeProcess.start({
      portOffset,
      settings: settings.join(''),
      clusterSettings: [
        '[smtp]',
        `isTrustedPeer = "remote_ip == '${filterAddress}'"`,
        `offerAuth = "protocol == 'submission' || listener == 'lmtps'"`,
        '[login.mechanisms]',
        'digestMd5 = true',
        'cramMd5 = true',
        '',
      ].join('\n'),
    });
    const made = await node.cli('account', 'create', legacy, '--password', node.password, '--legacy-logins', 'on');
    expect(made.code, made.stderr).toBe(0);
  });
  afterAll(async () => {
    await node?.remove();
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  });

  /** What swaks printed and how it ended, with a subject of its own. */
  async function swaks(port: PortName, ...args: string[]) {
    const subject = `option ${++count}`;
    const message = `From: <a@client.test>\\nTo: <bob@example.test>\\nSubject: ${subject}\\n\\nHello\\n`;
    const where = ['--server', '127.0.0.1', '--port', String(node.port(port)), '--helo', 'client.test', '--timeout', '20'];
    const to = args.includes('--to') ? [] : ['--to', 'bob@example.test'];
    const from = args.includes('--from') ? [] : ['--from', 'a@client.test'];
    const { code, stdout, stderr } = await runCommand('swaks', [...where, ...from, ...to, '--data', message, ...args]);
    return { subject, code, output: stdout + stderr };
  }

  const received = (subject: string) =>
    waitFor(`"${subject}"`, 15_000, async () => {
      const found = await messagesByImapflow({ port: node.port('imaps'), user: 'bob@example.test', password: node.password });
      return found.map((bytes) => bytes.toString('latin1')).find((message) => message.includes(`Subject: ${subject}\r\n`));
    });

  /** Sends, and answers the message as it has arrived. */
  async function sent(port: PortName, ...args: string[]): Promise<{ message: string; output: string }> {
    const { code, output, subject } = await swaks(port, ...args);
    expect(code, output).toBe(0);
    return { message: await received(subject), output };
  }

  async function refused(port: PortName, ...args: string[]): Promise<string> {
    const { code, output } = await swaks(port, ...args);
    expect(code, output).not.toBe(0);
    expect(output).not.toMatch(/<[-~*]+ +250 [^\n]*queued/i);
    return output;
  }

  const as = (user: string, password = node.password) => ['--auth-user', user, '--auth-password', password, '--from', user];
  const alice = () => as('alice@example.test');

  describe('--protocol', () => {
    it.each<[protocol: string, port: PortName, hasLogin: boolean, kind: string]>([
      ['SMTP', 'smtp', false, 'SMTP'],
      ['SSMTP', 'pop3s', false, 'ESMTPS'],
      ['SSMTPA', 'submissions', true, 'ESMTPSA'],
      ['SMTPS', 'pop3s', false, 'SMTP'],
      ['ESMTP', 'smtp', false, 'ESMTP'],
      ['ESMTPS', 'smtp', false, 'ESMTPS'],
      ['ESMTPSA', 'submission', true, 'ESMTPSA'],
      ['LMTP', 'lmtp', false, 'LMTP'],
      ['LMTPS', 'pop3', false, 'LMTPS'],
      ['LMTPSA', 'pop3', true, 'LMTPSA'],
    ])('%s', async (protocol, port, hasLogin, kind) => {
      const { message } = await sent(port, '--protocol', protocol, ...(hasLogin ? alice() : []));
      expect(message).toMatch(new RegExp(` with ${kind} id `));
    });

    it.each<[string, PortName]>([
      ['ESMTPA', 'submission'],
      ['LMTPA', 'pop3'],
    ])('%s has a login in the clear, which is not offered', async (protocol, port) => {
      expect(await refused(port, '--protocol', protocol, ...alice())).not.toMatch(/^<[-~*]+ +(334|235) /m);
    });
  });

  describe('TLS', () => {
    it('--tls-optional goes on by TLS, and without where there is none', async () => {
      expect((await sent('smtp', '--tls-optional')).message).toContain(' with ESMTPS id ');
      expect((await sent('lmtp', '--protocol', 'LMTP', '--tls-optional')).message).toContain(' with LMTP id ');
    });

    it('--tls-verify with --tls-ca-path believes our certificate, and without does not; --tls-get-peer-cert is that', async () => {
      const [trusted, seen] = [join(folder, 'trusted.pem'), join(folder, 'seen.pem')];
      writeFileSync(trusted, await servedCertificate(node.port('imaps')));
      const { message } = await sent('smtp', '--tls', '--tls-verify', '--tls-ca-path', trusted, '--tls-get-peer-cert', seen);
      expect(message).toContain(' with ESMTPS id ');
      expect(readFileSync(seen, 'latin1').trim()).toBe(readFileSync(trusted, 'latin1').trim());
      await refused('smtp', '--tls', '--tls-verify');
    });

    it('--tls-cert and --tls-key: a client with a certificate is as welcome as others', async () => {
      const file = join(folder, 'client.pem');
      await makeCertificate(file, 'client.test');
      const { message } = await sent('smtp', '--tls', '--tls-cert', file, '--tls-key', file);
      expect(message).toContain(' with ESMTPS id ');
    });

    it.each(['tlsv1_2,tlsv1_3', 'no_tlsv1_3', 'no_tlsv1,no_tlsv1_1'])('--tls-protocol %s', async (versions) => {
      await sent('pop3s', '--tls-on-connect', '--tls-protocol', versions);
    });
  });

  describe('AUTH', () => {
    it('without a mechanism takes what is offered, also with PIPELINING', async () => {
      expect((await sent('submission', '--tls', '--auth', ...alice())).message).toContain(' with ESMTPSA id ');
      expect((await sent('submissions', '--tls-on-connect', '--pipeline', '--auth', 'PLAIN', ...alice())).message).toContain(
        ' with ESMTPSA id ',
      );
    });

    it('--auth-optional and --auth-optional-strict go on where no login is offered', async () => {
      expect((await sent('smtp', '--tls', '--auth-optional', 'PLAIN', ...alice())).message).toContain(' with ESMTPS id ');
      expect((await sent('smtp', '--tls', '--auth-optional-strict', 'PLAIN', ...alice())).message).toContain(' with ESMTPS id ');
    });

    it('--auth-optional with a wrong password is no login: submission wants one', async () => {
      const wrong = as('alice@example.test', 'wrong');
      expect(await refused('submission', '--tls', '--auth-optional', 'PLAIN', ...wrong)).toMatch(/530 5\.7\.0/);
      expect(await refused('submission', '--tls', '--auth-optional-strict', 'PLAIN', ...wrong)).toMatch(/535 5\.7\.8/);
    });

    it('tries the mechanisms that it is told in turn: those that we do not have are passed over', async () => {
      await sent('submission', '--tls', '--auth', 'NTLM,CRAM-SHA1,LOGIN', ...alice());
    });

    it('--auth-map gives a mechanism another name; a name that we do not offer is none', async () => {
      await refused('submission', '--tls', '--auth', 'NOVEL', '--auth-map', 'NOVEL=PLAIN', ...alice());
      await sent('submission', '--tls', '--auth', 'PLAIN', '--auth-map', 'NOVEL=PLAIN', ...alice());
    });

    it('--auth-extra: DIGEST-MD5 with a realm and a digest-uri', async () => {
      const extra = 'dmd5-serv-type=smtp,dmd5-host=127.0.0.1';
      await sent('submission', '--tls', '--auth', 'DIGEST-MD5', '--auth-extra', extra, ...as(legacy));
      const elsewhere = ['--auth', 'DIGEST-MD5', '--auth-extra', 'realm=elsewhere.test', ...as(legacy)];
      expect(await refused('submission', '--tls', ...elsewhere)).toMatch(/501 5\.5\.2 The realm/);
    });

    it('--auth-plaintext and --auth-hide-password show what was said, and an address in < > is none', async () => {
      const { output } = await sent('submission', '--tls', '--auth-plaintext', '--auth-hide-password', ...alice());
      expect(output).not.toContain(node.password);
      await refused('submission', '--tls', '--auth', 'LOGIN', '--auth-user', '<>', '--auth-password', '<>');
    });
  });

  it('PRDR is not offered, which is what --prdr hears', async () => {
    expect(await refused('smtp', '--prdr')).toContain('did not advertise PRDR');
  });

  describe('XCLIENT', () => {
    const filter = ['--local-interface', filterAddress];
    const address = ['--xclient-addr', claimedAddress];

    it.each([[[]], [['--tls']], [['--tls', '--xclient-before-starttls']], [['--pipeline']]])('with %j', async (options) => {
      const { message } = await sent('smtp', ...filter, ...address, ...options);
      expect(message).toContain(claimedAddress);
      expect(message).not.toContain(filterAddress);
    });

    it('with all that it can say, in one command, in several, and in our own words', async () => {
      const all = [
        ...['--xclient-name', 'client.elsewhere.test', '--xclient-port', '4321', '--xclient-proto', 'ESMTP'],
        ...['--xclient-helo', 'helo.elsewhere.test', '--xclient-destaddr', '192.0.2.1', '--xclient-destport', '25'],
        ...['--xclient-login', 'alice@example.test'],
      ];
      const { message } = await sent('smtp', ...filter, ...all, ...address);
      expect(message).toContain(`(client.elsewhere.test [${claimedAddress}])`);
      // Who speaks for a client does not log it in.
      expect(message).toContain(' with ESMTP id ');
      const several = await sent('smtp', ...filter, '--xclient-helo', 'helo.elsewhere.test', '--xclient-delim', ...address);
      expect(several.output.match(/XCLIENT (HELO|ADDR)=/g)).toHaveLength(2);
      expect(several.message).toContain(claimedAddress);
      const free = await sent('smtp', ...filter, '--xclient', `NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::55`);
      expect(free.message).toContain('[IPv6:2001:db8::55]');
    });

    it('takes the client to where it came from only: what comes after its address is its own', async () => {
      const output = await refused('smtp', ...filter, ...address, '--xclient-delim', '--xclient-helo', 'helo.elsewhere.test');
      expect(output).toMatch(/550 5\.7\.0 XCLIENT is not for you/);
    });

    it('refuses what it did not announce, and what is no attribute', async () => {
      await refused('smtp', ...filter, ...address, '--xclient-reverse-name', 'x.test');
      const said = await refused('smtp', ...filter, ...address, '--xclient-reverse-name', 'x.test', '--xclient-no-verify');
      expect(said).toMatch(/501 5\.5\.4/);
      expect(await refused('smtp', ...filter, '--xclient', 'ADDR=nowhere')).toMatch(/501 5\.5\.4/);
    });

    it('--xclient-optional and --xclient-optional-strict go on as themselves where it is not offered', async () => {
      const stranger = ['--local-interface', strangerAddress];
      for (const option of ['--xclient-optional', '--xclient-optional-strict']) {
        const { message } = await sent('smtp', ...stranger, ...address, option);
        expect(message).toContain(strangerAddress);
        expect(message).not.toContain(claimedAddress);
      }
      await refused('smtp', ...filter, '--xclient', 'ADDR=nowhere', '--xclient-optional-strict');
      const { message } = await sent('smtp', ...filter, '--xclient', 'ADDR=nowhere', '--xclient-optional');
      expect(message).toContain(filterAddress);
    });
  });

  describe('PROXY', () => {
    const proxy = ['--local-interface', proxyAddress];
    const claim = (family: string, source: string, destination: string) => [
      ...['--proxy-family', family, '--proxy-source', source, '--proxy-source-port', '4321'],
      ...['--proxy-dest', destination, '--proxy-dest-port', '25'],
    ];

    it.each([
      ['1', 'TCP6'],
      ['2', 'AF_INET6'],
    ])('version %s for an IPv6 client', async (version, family) => {
      const { message } = await sent(
        'smtp',
        ...proxy,
        '--proxy-version',
        version,
        ...claim(family, '2001:db8::55', '2001:db8::1'),
      );
      expect(message).toContain('[IPv6:2001:db8::55]');
      expect(message).not.toContain(proxyAddress);
    });

    // This swaks writes 2 where LOCAL is 0, and ends its header in the middle: no command of the protocol's.
    it('version 2 with a command that there is not ends the connection', async () => {
      const local = ['--proxy-version', '2', '--proxy-command', 'LOCAL', '--proxy-protocol', 'STREAM'];
      await refused('smtp', ...proxy, ...local, ...claim('AF_INET', claimedAddress, '127.0.0.1'));
    });

    it('in words of its own: right ones are taken, wrong ones end the connection', async () => {
      const { message } = await sent('smtp', ...proxy, '--proxy', `TCP4 ${claimedAddress} 127.0.0.1 4321 25`);
      expect(message).toContain(claimedAddress);
      expect((await sent('smtp', ...proxy, '--proxy', 'UNKNOWN')).message).toContain(proxyAddress);
      await refused('smtp', ...proxy, '--proxy', 'TCP4 nowhere 127.0.0.1 4321 25');
      await refused('smtp', ...proxy, '--proxy-version', '2', '--proxy', 'x');
    });

    it('comes before TLS and XCLIENT: whom it speaks for may be a filter of ours, or not', async () => {
      const claimed = ['--proxy', `TCP4 ${filterAddress} 127.0.0.1 4321 25`];
      const { message } = await sent('smtp', ...proxy, ...claimed, '--tls', '--xclient-addr', claimedAddress);
      expect(message).toContain(claimedAddress);
      const stranger = ['--proxy', `TCP4 ${strangerAddress} 127.0.0.1 4321 25`];
      await refused('smtp', ...proxy, ...stranger, '--xclient-addr', claimedAddress);
    });
  });

  describe('the end of a session', () => {
    it.each(['banner', 'first-helo', 'tls', 'helo', 'mail', 'rcpt'])('--quit-after %s is answered with 221', async (point) => {
      const { code, output } = await swaks('smtp', '--tls', '--quit-after', point);
      expect(code, output).toBe(0);
      expect(output).toMatch(/^<[-~*]+ +221 2\.0\.0 /m);
    });

    it.each(['first-helo', 'mail', 'rcpt', 'data'])('--drop-after-send %s leaves nothing behind', async (point) => {
      const { subject } = await swaks('smtp', '--drop-after-send', point);
      const next = await swaks('smtp');
      await received(next.subject);
      const found = await messagesByImapflow({ port: node.port('imaps'), user: 'bob@example.test', password: node.password });
      expect(found.some((bytes) => bytes.includes(`Subject: ${subject}\r\n`))).toBe(false);
    });

    it('--drop-after dot: what was acknowledged is there; --drop-after-send dot: at most once', async () => {
      await received((await swaks('smtp', '--drop-after', 'dot')).subject);
      const { subject } = await swaks('smtp', '--drop-after-send', 'dot');
      await received((await swaks('smtp')).subject);
      const found = await messagesByImapflow({ port: node.port('imaps'), user: 'bob@example.test', password: node.password });
      expect(found.filter((bytes) => bytes.includes(`Subject: ${subject}\r\n`)).length).toBeLessThanOrEqual(1);
    });
  });
});
