/** Extensions that a node announces, with every option that swaks has for one of them; and with smtplib those for which it has none. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { messagesByImapflow, smtplib } from '../harness/clients.js';
import { machineHas } from '../harness/needs.js';
import { basePorts, NodeProcess, type PortName } from '../harness/node-process.js';
import { freePortOffset } from '../harness/ports.js';
import { runCommand, waitFor } from '../harness/processes.js';

const able = machineHas('swaks', 'python3');

/** Loopback has a whole network of addresses: a proxy of ours, a filter of ours, a stranger. */
const [proxyAddress, filterAddress, strangerAddress] = ['127.0.0.9', '127.0.0.8', '127.0.0.7'];
const claimedAddress = '192.0.2.55';

const listeners: [name: PortName, protocol: string, tls: string][] = [
  ['smtp', 'smtp', 'starttls'],
  ['submission', 'submission', 'starttls'],
  ['submissions', 'submission', 'implicit'],
  ['lmtp', 'lmtp', 'none'],
  ['imaps', 'imap', 'implicit'],
  ['http', 'http', 'none'],
];

describe.skipIf(!able)('extensions', () => {
  let node: NodeProcess;
  let count = 0;

  beforeAll(async () => {
    const portOffset = await freePortOffset(Object.values(basePorts));
    const settings = listeners.map(
      ([name, protocol, tls]) =>
        `[[listeners]]\nname = "${name}"\nprotocol = "${protocol}"\nport = ${basePorts[name] + portOffset}\ntls = "${tls}"\n` +
        (name === 'smtp' ? `proxyProtocol = { from = ["${proxyAddress}"] }\n` : ''),
    );
    node = await NodeProcess.start({
      portOffset,
      settings: settings.join(''),
      clusterSettings: `[smtp]\nisTrustedPeer = "remote_ip == '${filterAddress}'"\n`,
    });
  });
  afterAll(async () => {
    await node?.remove();
  });

  /** What swaks printed and how it ended, with a subject of its own. */
  async function swaks(name: PortName, ...args: string[]) {
    const subject = `extension ${++count}`;
    const message = `From: <a@client.test>\\nTo: <bob@example.test>\\nSubject: ${subject}\\n\\nHello\\n`;
    const where = ['--server', '127.0.0.1', '--port', String(node.port(name)), '--helo', 'client.test', '--timeout', '20'];
    const to = args.includes('--to') ? [] : ['--to', 'bob@example.test'];
    const from = args.includes('--from') ? [] : ['--from', 'a@client.test'];
    const { code, stdout, stderr } = await runCommand('swaks', [...where, ...from, ...to, '--data', message, ...args]);
    return { subject, code, output: stdout + stderr };
  }

  const received = (name: string, subject: string) =>
    waitFor(`"${subject}" of ${name}`, 15_000, async () => {
      const login = { port: node.port('imaps'), user: `${name}@example.test`, password: node.password };
      const found = await messagesByImapflow(login);
      return found.map((bytes) => bytes.toString('latin1')).find((message) => message.includes(`Subject: ${subject}\r\n`));
    });
  const login = () => ['--auth-user', 'alice@example.test', '--auth-password', node.password, '--from', 'alice@example.test'];

  it.each([
    ['--tls'],
    ['--tls-optional-strict'],
    ['--tls', '--tls-protocol', 'tlsv1_2'],
    ['--tls', '--tls-protocol', 'tlsv1_3', '--tls-sni', 'mail.example.test'],
    ['--tls', '--tls-cipher', 'ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256', '--tls-protocol', 'tlsv1_2'],
  ])('STARTTLS: %s %s %s %s %s', async (...args) => {
    const { code, output, subject } = await swaks('smtp', ...args.filter((arg) => arg !== undefined));
    expect(code, output).toBe(0);
    expect(await received('bob', subject)).toMatch(/ with ESMTPS /);
  });

  it('refuses a TLS of the last century', async () => {
    const { code } = await swaks('smtp', '--tls', '--tls-protocol', 'tlsv1_1');
    expect(code).not.toBe(0);
  });

  it.each(['PLAIN', 'LOGIN'])('AUTH %s over STARTTLS and over TLS from the start', async (mechanism) => {
    for (const [name, tls] of [['submission', '--tls'] as const, ['submissions', '--tls-on-connect'] as const]) {
      const { code, output, subject } = await swaks(name, tls, '--auth', mechanism, ...login());
      expect(code, output).toBe(0);
      expect(await received('bob', subject)).toMatch(/ with ESMTPSA /);
    }
  });

  it('offers no AUTH without TLS, and none that it does not have', async () => {
    expect((await swaks('submission', '--auth', 'PLAIN', ...login())).code).not.toBe(0);
    expect((await swaks('submission', '--tls', '--auth', 'NTLM', ...login())).code).not.toBe(0);
  });

  it('PIPELINING with several recipients', async () => {
    const { code, output, subject } = await swaks('smtp', '--pipeline', '--to', 'bob@example.test,alice@example.test');
    expect(code, output).toBe(0);
    await received('bob', subject);
    await received('alice', subject);
  });

  it('LMTP answers for each recipient', async () => {
    const { code, output, subject } = await swaks('lmtp', '--protocol', 'LMTP', '--to', 'bob@example.test,alice@example.test');
    expect(code, output).toBe(0);
    await received('bob', subject);
    await received('alice', subject);
  });

  it('XCLIENT from a filter of ours, and from nobody else', async () => {
    const as = [
      ...['--xclient-addr', claimedAddress, '--xclient-port', '4321', '--xclient-name', 'client.elsewhere.test'],
      ...['--xclient-helo', 'helo.elsewhere.test', '--xclient-proto', 'ESMTP'],
    ];
    const trusted = await swaks('smtp', '--local-interface', filterAddress, ...as);
    expect(trusted.code, trusted.output).toBe(0);
    const message = await received('bob', trusted.subject);
    expect(message).toContain(claimedAddress);
    expect(message).not.toContain(filterAddress);
    const stranger = await swaks('smtp', '--local-interface', strangerAddress, ...as);
    expect(stranger.code).not.toBe(0);
    expect(stranger.output).not.toMatch(/<[-~*]+ +2\d\d[^\n]*queued/i);
  });

  it.each([
    ['1', 'TCP4'],
    ['2', 'AF_INET'],
  ])('PROXY version %s from a proxy of ours, and from nobody else', async (version, family) => {
    const as = [
      ...['--proxy-version', version, '--proxy-family', family, '--proxy-source', claimedAddress, '--proxy-source-port', '4321'],
      ...['--proxy-dest', '127.0.0.1', '--proxy-dest-port', String(node.port('smtp'))],
      ...(version === '2' ? ['--proxy-command', 'PROXY', '--proxy-protocol', 'STREAM'] : []),
    ];
    const trusted = await swaks('smtp', '--local-interface', proxyAddress, ...as);
    expect(trusted.code, trusted.output).toBe(0);
    const message = await received('bob', trusted.subject);
    expect(message).toContain(claimedAddress);
    expect(message).not.toContain(proxyAddress);
    expect((await swaks('smtp', '--local-interface', strangerAddress, ...as)).code).not.toBe(0);
  });

  it.each(['connect', 'first-helo', 'mail', 'rcpt', 'data'])(
    'a client that hangs up after %s leaves nothing behind',
    async (point) => {
      const { subject } = await swaks('smtp', '--drop-after', point);
      // What comes after it is there, so it would be, too.
      const next = await swaks('smtp');
      await received('bob', next.subject);
      const mailbox = { port: node.port('imaps'), user: 'bob@example.test', password: node.password };
      const found = await messagesByImapflow(mailbox);
      expect(found.some((bytes) => bytes.includes(`Subject: ${subject}\r\n`))).toBe(false);
    },
  );

  const submit = (subject: string, mailOptions: string[], recipientOptions: string[] = []) =>
    smtplib({
      port: node.port('submission'),
      from: 'alice@example.test',
      to: ['bob@example.test'],
      message: Buffer.from(`From: <alice@example.test>\r\nTo: <bob@example.test>\r\nSubject: ${subject}\r\n\r\nHello\r\n`),
      mailOptions,
      recipientOptions,
      login: { user: 'alice@example.test', password: node.password },
    });

  it('FUTURERELEASE holds a message, and hands it on then', async () => {
    const heldSeconds = 5;
    const submittedAtMs = Date.now();
    expect(await submit('for later', [`HOLDFOR=${heldSeconds}`])).toBe('accepted');
    const message = await received('bob', 'for later');
    expect(Date.now() - submittedAtMs).toBeGreaterThan((heldSeconds - 1) * 1000);
    expect(message).toMatch(/^Received: /m);
    expect(await submit('refused', ['HOLDFOR=99999999'])).toMatch(/^5\d\d /);
    expect(await submit('refused', ['HOLDFOR=1', 'HOLDUNTIL=2030-01-01T00:00:00Z'])).toMatch(/^501 /);
  });

  it('MT-PRIORITY, DELIVERBY, SIZE, DSN and REQUIRETLS: taken where they make sense, refused where not', async () => {
    expect(await submit('priority', ['MT-PRIORITY=3'])).toBe('accepted');
    expect(await submit('refused', ['MT-PRIORITY=10'])).toMatch(/^501 /);
    expect(await submit('by', ['BY=3600;R'])).toBe('accepted');
    expect(await submit('refused', ['BY=0;R'])).toMatch(/^5\d\d /);
    expect(await submit('refused', ['SIZE=999999999999'])).toMatch(/^552 /);
    expect(await submit('report', ['RET=HDRS', 'ENVID=x'], ['NOTIFY=SUCCESS'])).toBe('accepted');
    expect(await submit('refused', [], ['NOTIFY=NEVER,SUCCESS'])).toMatch(/^501 /);
    expect(await submit('requires tls', ['REQUIRETLS'])).toBe('accepted');
    for (const subject of ['priority', 'by', 'report', 'requires tls']) await received('bob', subject);
    const plain = await smtplib({
      port: node.port('smtp'),
      from: 'a@client.test',
      to: ['bob@example.test'],
      message: Buffer.from('Subject: refused\r\n\r\n'),
      mailOptions: ['REQUIRETLS'],
    });
    expect(plain).toMatch(/^5\d\d /);
  });
});
