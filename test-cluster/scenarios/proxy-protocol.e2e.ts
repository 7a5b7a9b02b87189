/** A node behind HAProxy: the client's own address in Received fields, logs and limits, checks that leave no trace, and nobody who forges one. */
import { once } from 'node:events';
import { type ClientRequest, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { messagesByImapflow, swaks } from '../harness/clients.js';
import { Haproxy, type HaproxyService } from '../harness/haproxy.js';
import { machineHas } from '../harness/needs.js';
import { basePorts, NodeProcess, type PortName } from '../harness/node-process.js';
import { freePortOffset } from '../harness/ports.js';
import { waitFor } from '../harness/processes.js';

/** Loopback has a whole network of addresses: the client's, and the one from which HAProxy speaks to the node. */
const clientAddress = '127.0.0.2';
const otherClientAddress = '127.0.0.4';
const proxyAddress = '127.0.0.3';

const listeners: [name: PortName, protocol: string, tls: string, more?: string][] = [
  ['smtp', 'smtp', 'starttls'],
  ['submission', 'submission', 'starttls'],
  ['submissions', 'submission', 'implicit'],
  ['lmtp', 'lmtp', 'none', 'required = true, '],
  ['imap', 'imap', 'starttls'],
  ['imaps', 'imap', 'implicit'],
  ['http', 'http', 'none'],
];

/** Without a version HAProxy asks in HTTP/1.0, which the engine does not speak. */
const httpCheck = ['option httpchk', 'http-check send meth GET uri /health/ready ver HTTP/1.1 hdr Host localhost'];

/** Talks in lines with a server, over TLS from the start or after `secure`. */
class Dialog {
  private heard = '';
  private constructor(private socket: Socket) {
    this.listen();
  }

  static async connect(port: number, from: string, isTls = false): Promise<Dialog> {
    const carrier = connect({ host: '127.0.0.1', port, localAddress: from });
    await once(carrier, 'connect');
    const dialog = new Dialog(carrier);
    if (isTls) await dialog.secure();
    return dialog;
  }

  private listen(): void {
    this.socket.on('error', () => {});
    this.socket.on('data', (chunk: Buffer) => (this.heard += chunk.toString('latin1')));
  }

  async secure(): Promise<void> {
    this.socket.removeAllListeners('data');
    const socket = connectTls({ socket: this.socket, rejectUnauthorized: false });
    this.socket = socket;
    this.listen();
    await once(socket, 'secureConnect');
  }

  /** What was heard up to `end`; throws what was heard when the connection ends before. */
  until(end: RegExp): Promise<string> {
    return waitFor(`${end}`, 15_000, async () => {
      if (end.test(this.heard)) {
        const found = this.heard;
        this.heard = '';
        return found;
      }
      if (this.socket.destroyed || this.socket.readableEnded) throw new Error(`the connection ended: ${this.heard}`);
      return undefined;
    });
  }

  say(text: string, end: RegExp): Promise<string> {
    this.socket.write(text);
    return this.until(end);
  }

  close(): void {
    this.socket.destroy();
  }
}

/** Until a connection that is refused has ended, at most. */
const endMs = 60_000;

const ok = /^250 [^\r\n]*\r\n$/m;
const message = (subject: string) => `From: a@outside.test\r\nTo: alice@example.test\r\nSubject: ${subject}\r\n\r\nHello\r\n`;

/** MAIL to DATA's final reply, on a connection that has said EHLO. */
async function send(smtp: Dialog, from: string, subject: string): Promise<void> {
  await smtp.say(`MAIL FROM:<${from}>\r\n`, ok);
  await smtp.say('RCPT TO:<alice@example.test>\r\n', ok);
  await smtp.say('DATA\r\n', /^354 /m);
  await smtp.say(`${message(subject)}.\r\n`, ok);
}

/** Everything that comes until the connection ends, or `until` matches. Where both may fail to appear, `patienceMs` is how long that is waited for. */
async function fate(port: number, from: string, bytes: string | Buffer, until?: RegExp, patienceMs = endMs): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port, localAddress: from });
  let heard = '';
  socket.on('error', () => {});
  const over = new Promise<void>((resolve) => {
    socket.once('close', () => resolve());
    socket.on('data', (chunk: Buffer) => {
      heard += chunk.toString('latin1');
      if (until?.test(heard)) resolve();
    });
  });
  socket.write(bytes);
  await Promise.race([over, delay(patienceMs, undefined, { ref: false })]);
  socket.destroy();
  return heard;
}

async function statusOf(request: ClientRequest): Promise<number> {
  const [response] = await once(request.end(), 'response');
  response.resume();
  return response.statusCode;
}

describe.runIf(machineHas('haproxy', 'openssl', 'swaks'))('behind HAProxy', () => {
  let node: NodeProcess;
  let haproxy: Haproxy;

  beforeAll(async () => {
    const portOffset = await freePortOffset(Object.values(basePorts));
    const settings = listeners.map(
      ([name, protocol, tls, more = '']) =>
        `[[listeners]]\nname = "${name}"\nprotocol = "${protocol}"\nport = ${basePorts[name] + portOffset}\ntls = "${tls}"\n` +
        `maxConnectionsPerAddress = 4\nproxyProtocol = { ${more}from = ["${proxyAddress}"] }\n`,
    );
    node = await NodeProcess.start({ portOffset, settings: settings.join('') });
    const service = (name: PortName, server: string, rest: Partial<HaproxyService> = {}): HaproxyService => ({
      ...{ name, mode: 'tcp', targetPort: node.port(name), server: `${server} check inter 150ms` },
      ...rest,
    });
    haproxy = await Haproxy.start(
      [
        service('smtp', 'send-proxy-v2', { lines: ['option smtpchk EHLO check.test'] }),
        service('submission', 'send-proxy'),
        service('submissions', 'send-proxy-v2-ssl'),
        service('lmtp', 'send-proxy-v2'),
        service('imap', 'send-proxy'),
        service('imaps', 'send-proxy-v2'),
        service('http', 'send-proxy-v2', { mode: 'http', lines: httpCheck }),
        { ...service('http', 'send-proxy-v2', { mode: 'http', tls: true, lines: httpCheck }), name: 'https' },
      ],
      proxyAddress,
    );
  });

  afterAll(async () => {
    await haproxy?.stop();
    await node?.remove();
  });

  const logged = (text: string) => node.output.stderr.split('\n').filter((line) => line.includes(text));

  it('writes the client into Received fields and the log, on every way in', async () => {
    const smtp = await Dialog.connect(haproxy.port('smtp'), clientAddress);
    await smtp.until(/^220 /);
    await smtp.say('EHLO client.test\r\n', ok);
    await smtp.say('STARTTLS\r\n', /^220 /);
    await smtp.secure();
    await smtp.say('EHLO client.test\r\n', ok);
    await send(smtp, 'a@outside.test', 'smtp');
    smtp.close();
    const submissions = await Dialog.connect(haproxy.port('submissions'), clientAddress, true);
    await submissions.until(/^220 /);
    await submissions.say('EHLO client.test\r\n', ok);
    const login = Buffer.from(`\0bob@example.test\0${node.password}`).toString('base64');
    await submissions.say(`AUTH PLAIN ${login}\r\n`, /^235 /);
    await send(submissions, 'bob@example.test', 'submissions');
    submissions.close();
    const lmtp = await Dialog.connect(haproxy.port('lmtp'), clientAddress);
    await lmtp.until(/^220 /);
    await lmtp.say('LHLO client.test\r\n', ok);
    await send(lmtp, 'a@outside.test', 'lmtp');
    lmtp.close();
    // A client of its own making, from the address that everything has here, through STARTTLS and version 1.
    const auth = { user: 'bob@example.test', password: node.password };
    const bytes = Buffer.from(message('submission').replace('a@outside.test', auth.user));
    await swaks({ port: haproxy.port('submission'), from: auth.user, to: 'alice@example.test', message: bytes, login: auth });

    const alice = { port: haproxy.port('imaps'), user: 'alice@example.test', password: node.password };
    const mails = await waitFor('the mail', 10_000, async () => {
      const found = await messagesByImapflow(alice);
      return found.length === 4 && found.map((mail) => mail.toString('latin1'));
    });
    for (const [subject, address] of [
      ['smtp', clientAddress],
      ['submissions', clientAddress],
      ['lmtp', clientAddress],
      ['submission', '127.0.0.1'],
    ]) {
      const mail = mails.find((each) => each.includes(`Subject: ${subject}\r\n`))!;
      expect(mail, subject).toContain(`from client.test ([${address}])`);
      expect(mail, subject).not.toContain(proxyAddress);
    }
    expect(logged(`"remoteAddress":"${clientAddress}"`).length).toBeGreaterThanOrEqual(3);
  });

  it('knows who logs in over IMAP', async () => {
    for (const [name, isTls] of [
      ['imap', false],
      ['imaps', true],
    ] as const) {
      const imap = await Dialog.connect(haproxy.port(name), clientAddress, isTls);
      await imap.until(/^\* OK/);
      if (!isTls) {
        await imap.say('a STARTTLS\r\n', /^a OK/m);
        await imap.secure();
      }
      await imap.say(`b LOGIN ${name}@example.test wrong\r\n`, /^b NO/m);
      imap.close();
      const refusals = logged(`"login":"${name}@example.test"`).concat(logged('"login refused"'));
      expect(refusals.join('\n')).toContain(`"remoteAddress":"${clientAddress}"`);
    }
    expect(logged(`"remoteAddress":"${proxyAddress}"`)).toEqual([]);
  });

  it('limits each client, not HAProxy', async () => {
    const open: Dialog[] = [];
    // Connections of the tests before may still be on their way out.
    await waitFor('four connections', 10_000, async () => {
      const imap = await Dialog.connect(haproxy.port('imap'), clientAddress);
      if (/^\* OK/.test(await imap.until(/^\* (OK|BYE).*\r\n/))) open.push(imap);
      else imap.close();
      return open.length === 4;
    });
    const fifth = await Dialog.connect(haproxy.port('imap'), clientAddress);
    expect(await fifth.until(/\r\n/)).toMatch(/^\* BYE/);
    const other = await Dialog.connect(haproxy.port('imap'), otherClientAddress);
    expect(await other.until(/\r\n/)).toMatch(/^\* OK/);
    for (const each of [...open, fifth, other]) each.close();
  });

  it('serves HTTP, and HTTPS that HAProxy ends', async () => {
    const at = { host: '127.0.0.1', path: '/health/ready', localAddress: clientAddress, rejectUnauthorized: false };
    expect(await statusOf(httpRequest({ ...at, port: haproxy.port('http') }))).toBe(200);
    expect(await statusOf(httpsRequest({ ...at, port: haproxy.port('https') }))).toBe(200);
  });

  it('is checked without a line in the log', async () => {
    const checks = () => node.metric('starling_proxy_headers_total', { result: 'local' });
    const before = node.output.stderr.length;
    const checksBefore = await checks();
    await waitFor('more checks', 10_000, async () => (await checks()) > checksBefore + 14);
    expect(node.output.stderr.slice(before)).not.toMatch(/"listener":/);
    expect(await node.metric('starling_tls_handshake_failures_total')).toBe(0);
    for (const { status, failedChecks } of await haproxy.servers())
      expect({ status, failedChecks }).toEqual({ status: 'UP', failedChecks: 0 });
  });

  it('believes nobody else', async () => {
    const version1 = 'PROXY TCP4 203.0.113.9 198.51.100.1 4711 25\r\n';
    const version2 = Buffer.from('0d0a0d0a000d0a515549540a2111000ccb007109c633640112670019', 'hex');
    const before = node.output.stderr.length;
    for (const forged of [version1, version2]) {
      const quit = (line: string) => Buffer.concat([Buffer.from(forged as string, 'latin1'), Buffer.from(line)]);
      const smtp = await fate(node.port('smtp'), clientAddress, quit('QUIT\r\n'), /^5\d\d /m);
      expect(smtp).toMatch(/^(220 [^\r]*\r\n)?5\d\d /);
      expect(await fate(node.port('imap'), clientAddress, quit('a LOGOUT\r\n'), /BAD|BYE/)).toMatch(/BAD|BYE/);
      for (const name of ['imaps', 'submissions'] as const) {
        // A TLS alert at most.
        expect(await fate(node.port(name), clientAddress, quit(''), /OK|220/, 1_000)).not.toMatch(/OK|220/);
      }
      expect(await fate(node.port('lmtp'), clientAddress, quit('LHLO x\r\n'))).toBe('');
      const http = await fate(
        node.port('http'),
        clientAddress,
        quit('GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n'),
        /^HTTP/m,
      );
      expect(http).not.toContain(' 200 ');
    }
    expect(await node.metric('starling_http_connections_refused_total', { reason: 'forged' })).toBe(1);
    expect(await node.metric('starling_connections_refused_total', { reason: 'not_proxied' })).toBe(2);
    expect(node.output.stderr.slice(before)).not.toContain('203.0.113.9');
    // Without a header they are served as who they are.
    const honest = await Dialog.connect(node.port('smtp'), clientAddress);
    expect(await honest.until(/\r\n/)).toMatch(/^220 /);
    honest.close();
  });

  it('cuts a proxy that sends none, and says so once', async () => {
    const text = 'a trusted proxy has sent no usable PROXY header';
    for (let attempt = 0; attempt < 3; attempt++) {
      expect(await fate(node.port('smtp'), proxyAddress, 'EHLO client.test\r\n')).toBe('');
    }
    await waitFor('the line in the log', 5_000, async () => logged(text).length > 0);
    expect(logged(text)).toHaveLength(1);
    expect(await node.metric('starling_proxy_headers_total', { listener: 'smtp', result: 'malformed' })).toBe(3);
  });
});
