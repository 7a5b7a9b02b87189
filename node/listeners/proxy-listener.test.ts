import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { type TLSSocket, connect as tlsConnect } from 'node:tls';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Logger, registry, silentLogger } from '../../ops/telemetry/index.js';
import {
  CertificateStore,
  type ListenerConnection,
  makeSelfSigned,
  TcpListener,
  type TcpListenerOptions,
  trustedProxies,
} from './index.js';
import { headerOfClient, localHeader } from './proxy-header-under-test.js';

const certificates = new CertificateStore({ logger: silentLogger });
const open: (TcpListener | Socket)[] = [];
let seen: ListenerConnection[] = [];

beforeAll(async () => certificates.replace([await makeSelfSigned({ names: ['main.test'] })]));

afterEach(async () => {
  seen = [];
  for (const each of open.splice(0)) {
    if (each instanceof TcpListener) await each.close();
    else each.destroy();
  }
});

/** Tells each client who it is taken for, and repeats what it says. */
function mirror(connection: ListenerConnection): void {
  seen.push(connection);
  const serve = (socket: Socket) => {
    socket.on('error', () => {});
    socket.on('data', (bytes) => {
      if (bytes.toString().startsWith('STARTTLS')) connection.startTls('220 go ahead\r\n').then(serve, () => {});
      else socket.write(`[${connection.remoteAddress}]:${connection.remotePort} ${bytes}`);
    });
    socket.on('end', () => socket.end());
  };
  serve(connection.socket);
}

/** Trusts 127.0.0.1. */
async function listener(options: Partial<TcpListenerOptions> = {}): Promise<TcpListener> {
  const made = new TcpListener({
    ...{
      name: 'proxied',
      host: '127.0.0.1',
      port: 0,
      tls: 'none',
      certificates,
      maxConnections: 10,
      maxConnectionsPerAddress: 10,
    },
    ...{ onConnection: mirror, logger: silentLogger, proxyProtocol: trustedProxies({ from: ['127.0.0.1'], required: false }) },
    ...options,
  });
  open.push(made);
  await made.listen();
  return made;
}

async function client(to: TcpListener, localAddress = '127.0.0.1'): Promise<Socket> {
  const socket = connect({ port: to.address().port, host: '127.0.0.1', localAddress, allowHalfOpen: true });
  open.push(socket);
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket.setNoDelay();
}

/** Everything up to the end of the connection. */
async function allOf(socket: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.once('end', () => socket.end());
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
  return Buffer.concat(chunks).toString();
}

async function says(socket: Socket, bytes: string | Buffer): Promise<string> {
  const heard = once(socket, 'data');
  socket.write(bytes);
  return String((await heard)[0]);
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await delay(5);
}

async function metric(name: string, labels: Record<string, string>): Promise<number> {
  const found = (await registry.getSingleMetric(name)!.get()).values.find((value) =>
    Object.entries(labels).every(([label, wanted]) => value.labels[label] === wanted),
  );
  return found?.value ?? 0;
}

/** Keeps lines of `info` and above. */
function watchedLogger(): { logger: Logger; lines: string[] } {
  const lines: string[] = [];
  const keep = (_facts: object, text: string) => void lines.push(text);
  const logger = { ...silentLogger, debug: () => {}, info: keep, warn: keep, error: keep } as unknown as Logger;
  return { logger, lines };
}

const version1 = 'PROXY TCP4 203.0.113.9 198.51.100.1 4711 25\r\n';
const header = headerOfClient('203.0.113.9', 4711);
const as = (text: string) => `[203.0.113.9]:4711 ${text}`;

describe('a trusted proxy', () => {
  it.each([
    ['version 1', Buffer.from(version1)],
    ['version 2', header],
  ])('tells the client, in one packet with what the client says, and in many: %s', async (_version, bytes) => {
    const proxied = await listener();
    expect(await says(await client(proxied), Buffer.concat([bytes, Buffer.from('EHLO x')]))).toBe(as('EHLO x'));
    const slow = await client(proxied);
    for (const byte of bytes) {
      slow.write(Buffer.from([byte]));
      await new Promise(setImmediate);
    }
    expect(await says(slow, 'EHLO y')).toBe(as('EHLO y'));
    expect(seen[0]!.localPort).toBe(proxied.address().port);
    expect(await metric('starling_proxy_headers_total', { listener: 'proxied', result: 'proxied' })).toBeGreaterThanOrEqual(2);
  });

  it('may be followed by silence, for a server that speaks first', async () => {
    const proxied = await listener({
      onConnection: (connection) => {
        mirror(connection);
        connection.socket.write('220 hello\r\n');
      },
    });
    const socket = await client(proxied);
    expect(await says(socket, header)).toBe('220 hello\r\n');
    expect(await says(socket, 'EHLO x')).toBe(as('EHLO x'));
  });

  it('may hang up behind the header and still be answered', async () => {
    const proxied = await listener();
    for (const [bytes, answer] of [
      [Buffer.concat([header, Buffer.from('QUIT')]), as('QUIT')],
      [header, ''],
    ] as const) {
      const socket = await client(proxied);
      socket.end(bytes);
      expect(await allOf(socket)).toBe(answer);
    }
    await until(() => proxied.connections === 0);
    expect(seen).toHaveLength(2);
  });

  it.each([
    ['one packet', 0],
    ['many packets', 50],
  ])('speaks before TLS, its header and the handshake in %s', async (_how, pieceBytes) => {
    const proxied = await listener({ tls: 'implicit' });
    const carrier = await client(proxied);
    // Header and ClientHello leave together: what TLS writes is held until both are there.
    const write = carrier.write.bind(carrier) as (bytes: Buffer) => boolean;
    const { socket, hello } = await tlsByHand();
    const first = Buffer.concat([header, await hello]);
    for (let at = 0; at < first.length; at += pieceBytes || first.length) {
      write(first.subarray(at, at + (pieceBytes || first.length)));
      await new Promise(setImmediate);
    }
    join(socket.carrier, carrier);
    await once(socket.tls, 'secureConnect');
    expect(await says(socket.tls, 'EHLO x')).toBe(as('EHLO x'));
    expect(seen[0]!.tls!.protocol).toBe('TLSv1.3');
  });

  it('passes STARTTLS through', async () => {
    const proxied = await listener();
    const socket = await client(proxied);
    expect(await says(socket, Buffer.concat([header, Buffer.from('STARTTLS')]))).toBe('220 go ahead\r\n');
    const secured = tlsConnect({ socket, rejectUnauthorized: false });
    open.push(secured);
    await once(secured, 'secureConnect');
    expect(await says(secured, 'x')).toBe(as('x'));
  });

  it('is itself the client when it checks, or knows nobody', async () => {
    const proxied = await listener({ maxConnectionsPerAddress: 1, isBanned: (address) => address === '127.0.0.1' });
    const unknown = Buffer.from('PROXY UNKNOWN\r\n');
    for (const bytes of [localHeader, localHeader, unknown]) {
      expect(await says(await client(proxied), Buffer.concat([bytes, Buffer.from('x')]))).toMatch(/^\[127\.0\.0\.1\]:\d+ x$/);
    }
  });

  it('checks without a line in the log', async () => {
    const { logger, lines } = watchedLogger();
    const plain = await listener({ logger });
    const tls = await listener({ logger, tls: 'implicit', name: 'checked' });
    for (const each of [plain, tls]) {
      for (const bytes of [localHeader, Buffer.alloc(0)]) {
        const socket = await client(each);
        if (bytes.length > 0) socket.write(bytes);
        await until(() => each.connections === 1);
        socket.destroy();
        await until(() => each.connections === 0);
        const reset = await client(each);
        reset.write(bytes.length > 0 ? bytes : 'P');
        await until(() => each.connections === 1);
        reset.resetAndDestroy();
        await until(() => each.connections === 0);
      }
    }
    expect(lines).toEqual([]);
    expect(await metric('starling_tls_handshake_failures_total', { listener: 'checked' })).toBe(0);
    expect(await metric('starling_proxy_headers_total', { listener: 'checked', result: 'closed' })).toBe(2);
  });

  it('is cut when it sends no header, a broken one, or none in time; said once', async () => {
    const { logger, lines } = watchedLogger();
    const proxied = await listener({ name: 'broken', logger, proxyHeaderTimeoutMs: 50 });
    for (const bytes of [
      'EHLO x\r\n',
      'PROXY TCP4 nobody nowhere 1 2\r\n',
      Buffer.alloc(3_000, 'P'),
      'PROXY TCP4 203.0.113.9',
      '',
    ]) {
      const socket = await client(proxied);
      if (bytes.length > 0) socket.write(bytes);
      expect(await allOf(socket)).toBe('');
    }
    await until(() => proxied.connections === 0);
    expect(seen).toEqual([]);
    expect(lines).toEqual(['a trusted proxy has sent no usable PROXY header']);
    expect(await metric('starling_proxy_headers_total', { listener: 'broken', result: 'malformed' })).toBe(3);
    expect(await metric('starling_proxy_headers_total', { listener: 'broken', result: 'timeout' })).toBe(2);
  });
});

describe('limits behind a proxy', () => {
  const refusal = (reason: string) => `421 ${reason}\r\n`;

  it('count each client, not the proxy', async () => {
    const proxied = await listener({ maxConnectionsPerAddress: 1, refusal });
    const first = await client(proxied);
    expect(await says(first, Buffer.concat([header, Buffer.from('x')]))).toBe(as('x'));
    const again = await client(proxied);
    again.write(Buffer.concat([headerOfClient('203.0.113.9', 4712), Buffer.from('x')]));
    expect(await allOf(again)).toBe('421 address_limit\r\n');
    const other = headerOfClient('203.0.113.10', 4711);
    expect(await says(await client(proxied), Buffer.concat([other, Buffer.from('x')]))).toBe('[203.0.113.10]:4711 x');
    first.destroy();
    await until(() => proxied.connections === 1);
    expect(await says(await client(proxied), Buffer.concat([header, Buffer.from('x')]))).toBe(as('x'));
  });

  it('keep out the banned client, and only that', async () => {
    const proxied = await listener({ isBanned: (address) => address === '203.0.113.9' });
    const banned = await client(proxied);
    banned.write(Buffer.concat([header, Buffer.from('x')]));
    expect(await allOf(banned)).toBe('');
    const other = headerOfClient('203.0.113.10', 4711);
    expect(await says(await client(proxied), Buffer.concat([other, Buffer.from('x')]))).toBe('[203.0.113.10]:4711 x');
  });

  it('end what the banned client has open, and nothing of the proxy', async () => {
    const banned = new Set<string>();
    const proxied = await listener({ isBanned: (address) => banned.has(address) });
    const of = async (bytes: Buffer) => {
      const socket = await client(proxied);
      await says(socket, Buffer.concat([bytes, Buffer.from('x')]));
      return socket;
    };
    const theirs = await of(header);
    const checks = await of(localHeader);
    banned.add('203.0.113.9').add('127.0.0.1');
    const closed = once(theirs.resume(), 'end');
    expect(proxied.cutBanned()).toBe(1);
    await closed;
    expect(await says(checks, 'y')).toMatch(/ y$/);
  });

  it('hold for connections whose header is still to come', async () => {
    const proxied = await listener({ maxConnections: 1, refusal });
    const waiting = await client(proxied);
    await until(() => proxied.connections === 1);
    const second = await client(proxied);
    expect(await allOf(second)).toBe('421 limit\r\n');
    const closed = once(waiting.resume(), 'end');
    await proxied.close();
    await closed;
  });
});

describe('anybody else', () => {
  it('is served as itself, and a header of its own is what it says', async () => {
    const proxied = await listener();
    expect(await says(await client(proxied, '127.0.0.2'), version1)).toMatch(/^\[127\.0\.0\.2\]:\d+ PROXY TCP4 203/);
    expect(seen[0]!.remoteAddress).toBe('127.0.0.2');
  });

  it('is sent away where the proxies are the only way in', async () => {
    const proxied = await listener({
      ...{ name: 'only', refusal: () => '421\r\n' },
      proxyProtocol: trustedProxies({ from: ['127.0.0.1'], required: true }),
    });
    expect(await allOf(await client(proxied, '127.0.0.2'))).toBe('');
    expect(await metric('starling_connections_refused_total', { listener: 'only', reason: 'not_proxied' })).toBe(1);
    expect(await says(await client(proxied), Buffer.concat([header, Buffer.from('x')]))).toBe(as('x'));
  });
});

describe('trusted networks', () => {
  it('are addresses and prefixes of both families', () => {
    const { isTrusted } = trustedProxies({ from: ['10.1.2.3/8', '192.0.2.1', '2001:db8::/32', '::1'], required: false });
    const addresses = ['10.255.0.1', '11.0.0.1', '192.0.2.1', '192.0.2.2', '2001:db8:1::1', '2001:db9::1', '::1', '::2'];
    expect(addresses.filter(isTrusted)).toEqual(['10.255.0.1', '192.0.2.1', '2001:db8:1::1', '::1']);
  });
});

/** A TLS client over a pair of sockets, and its ClientHello, taken before the far side has seen it. */
async function tlsByHand(): Promise<{ socket: { tls: TLSSocket; carrier: Socket }; hello: Promise<Buffer> }> {
  const { createServer } = await import('node:net');
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const near = connect((server.address() as { port: number }).port, '127.0.0.1');
  const [carrier] = (await once(server, 'connection')) as [Socket];
  server.close();
  open.push(near, carrier);
  const hello = once(carrier, 'data').then(([bytes]) => {
    carrier.pause();
    return bytes as Buffer;
  });
  const tls = tlsConnect({ socket: near, rejectUnauthorized: false });
  open.push(tls);
  return { socket: { tls, carrier }, hello };
}

function join(a: Socket, b: Socket): void {
  for (const each of [a, b]) each.on('error', () => {});
  a.pipe(b);
  b.pipe(a);
}
