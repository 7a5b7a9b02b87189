import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { type TLSSocket, connect as tlsConnect } from 'node:tls';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { registry, silentLogger, systemClock } from '../../ops/telemetry/index.js';
import { type TlsCertificate, verifyCertificate } from '../../protocols/http/index.js';
import { CertificateStore, type ListenerConnection, makeSelfSigned, TcpListener, type TcpListenerOptions } from './index.js';

let main: TlsCertificate;
let other: TlsCertificate;
let certificates: CertificateStore;
const open: (TcpListener | Socket)[] = [];

beforeAll(async () => {
  main = await makeSelfSigned({ names: ['main.test'] });
  other = await makeSelfSigned({ names: ['other.test'] });
});

beforeEach(() => {
  certificates = new CertificateStore({ logger: silentLogger });
  certificates.replace([main, other]);
});

afterEach(async () => {
  for (const each of open.splice(0)) {
    if (each instanceof TcpListener) await each.close();
    else each.destroy();
  }
});

/** Says what it was told, a line at a time, and knows STARTTLS. */
function echo(connection: ListenerConnection): void {
  const serve = (socket: Socket) => {
    socket.on('error', () => {});
    socket.on('data', (bytes) => {
      if (bytes.toString().startsWith('STARTTLS')) connection.startTls('220 go ahead\r\n').then(serve, () => {});
      else socket.write(`${connection.tls?.protocol ?? 'plain'}: ${bytes}`);
    });
    socket.on('end', () => socket.end());
  };
  serve(connection.socket);
}

async function listener(options: Partial<TcpListenerOptions> = {}): Promise<TcpListener> {
  const made = new TcpListener({
    ...{ name: 'test', host: '127.0.0.1', port: 0, tls: 'none', certificates, maxConnections: 10, maxConnectionsPerAddress: 10 },
    ...{ onConnection: echo, logger: silentLogger },
    ...options,
  });
  open.push(made);
  await made.listen();
  return made;
}

async function client(to: TcpListener): Promise<Socket> {
  const socket = connect(to.address().port, '127.0.0.1');
  open.push(socket);
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}

async function tlsClient(to: TcpListener, servername: string, over?: Socket): Promise<TLSSocket> {
  const target = over ? { socket: over } : { port: to.address().port, host: '127.0.0.1' };
  const socket = tlsConnect({ ...target, servername, rejectUnauthorized: false });
  open.push(socket);
  await once(socket, 'secureConnect');
  return socket;
}

const fingerprint = (of: TlsCertificate) => verifyCertificate(of).leaf.fingerprint256;
const shown = (socket: TLSSocket) => socket.getPeerX509Certificate()!.fingerprint256;

async function says(socket: Socket, text?: string): Promise<string> {
  if (text) socket.write(text);
  return String((await once(socket, 'data'))[0]);
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await delay(5);
}

async function metric(name: string, labels: Record<string, string>): Promise<number> {
  const { values } = await registry.getSingleMetric(name)!.get();
  return values.find((value) => Object.entries(labels).every(([label, text]) => value.labels[label] === text))?.value ?? 0;
}

describe('TcpListener', () => {
  it('hands over who is there', async () => {
    const seen: ListenerConnection[] = [];
    const plain = await listener({
      onConnection: (connection) => {
        seen.push(connection);
        echo(connection);
      },
    });
    const sockets = [await client(plain), await client(plain)];
    await until(() => seen.length === 2);
    expect(seen[0]).toMatchObject({ remoteAddress: '127.0.0.1', localAddress: '127.0.0.1', tls: undefined });
    expect(new Set(seen.map(({ remotePort }) => remotePort))).toEqual(new Set(sockets.map(({ localPort }) => localPort)));
    expect(seen[0]!.localPort).toBe(plain.address().port);
    expect(seen[0]!.connectionId).toMatch(/^[\w-]{8}$/);
    expect(seen[0]!.connectionId).not.toBe(seen[1]!.connectionId);
    expect(await metric('starling_connections', { listener: 'test' })).toBe(2);
    for (const socket of sockets) socket.destroy();
    await until(() => plain.connections === 0);
    expect(await metric('starling_connections', { listener: 'test' })).toBe(0);
  });

  it('gives IPv4 clients of an IPv6 socket their IPv4 address', async () => {
    let address = '';
    const plain = await listener({ host: '::', onConnection: (connection) => void (address = connection.remoteAddress) });
    await client(plain);
    await until(() => address !== '');
    expect(address).toBe('127.0.0.1');
  });

  it('says where it cannot listen', async () => {
    const first = await listener();
    await expect(listener({ port: first.address().port })).rejects.toThrow(
      /test cannot listen on 127\.0\.0\.1:\d+: .*EADDRINUSE/,
    );
  });

  it('answers everything that came before the FIN, and bounds a session that never ends', async () => {
    const plain = await listener({ halfOpenTimeoutMs: 50 });
    const socket = await client(plain);
    socket.end('hello\r\n');
    expect(await says(socket)).toBe('plain: hello\r\n');
    const deaf = await listener({ halfOpenTimeoutMs: 50, onConnection: ({ socket }) => void socket.resume() });
    const half = await client(deaf);
    half.resume().end();
    await once(half, 'close');
    await until(() => deaf.connections === 0);
  });

  it('survives a session that fails and a peer that resets', async () => {
    for (const onConnection of [
      () => {
        throw new Error('broken');
      },
      () => Promise.reject(new Error('broken')),
    ]) {
      const plain = await listener({ onConnection });
      await once((await client(plain)).resume(), 'close');
    }
    const plain = await listener({ onConnection: () => {} });
    (await client(plain)).resetAndDestroy();
    await until(() => plain.connections === 0);
  });
});

describe('limits', () => {
  const refusal = (reason: string) => `421 ${reason}\r\n`;

  it('refuses politely beyond the limits, and takes new ones when there is room', async () => {
    for (const [limits, reason] of [
      [{ maxConnections: 1 }, 'limit'],
      [{ maxConnectionsPerAddress: 1 }, 'address_limit'],
    ] as const) {
      const name = `limits-${reason}`;
      const plain = await listener({ name, refusal, ...limits });
      const first = await client(plain);
      expect(await says(first, 'x')).toBe('plain: x');
      const second = await client(plain);
      expect(await says(second)).toBe(`421 ${reason}\r\n`);
      await once(second, 'close');
      expect(await metric('starling_connections_refused_total', { listener: name, reason })).toBe(1);
      first.destroy();
      await until(() => plain.connections === 0);
      expect(await says(await client(plain), 'y')).toBe('plain: y');
    }
  });

  it('cuts refused peers under implicit TLS, and banned ones, without a word', async () => {
    const full = await listener({ tls: 'implicit', maxConnections: 0, refusal });
    const banned = await listener({ refusal, isBanned: (address) => address === '127.0.0.1' });
    for (const plain of [full, banned]) {
      const socket = await client(plain);
      let heard = '';
      socket.on('data', (bytes) => (heard += bytes));
      await once(socket, 'close');
      expect(heard).toBe('');
    }
  });

  it('cuts what is open from an address that gets banned, and counts it', async () => {
    let isOn = false;
    const plain = await listener({ name: 'to-be-banned', isBanned: (address) => isOn && address === '127.0.0.1' });
    const [first, second] = [await client(plain), await client(plain)];
    expect(await says(first, 'x')).toBe('plain: x');
    await says(second, 'STARTTLS\r\n');
    const secured = await tlsClient(plain, 'main.test', second);
    secured.on('error', () => {});
    expect(plain.cutBanned()).toBe(0);
    isOn = true;
    const closed = Promise.all([once(first, 'close'), once(secured, 'close')]);
    expect(plain.cutBanned()).toBe(2);
    await closed;
    await until(() => plain.connections === 0);
    const third = await client(plain);
    await once(third, 'close');
    expect(await registry.getSingleMetricAsString('starling_connections_banned_total')).toMatch(/listener="to-be-banned"} 3/);
  });

  it('keeps only so many refused peers that do not hang up', async () => {
    // However long the test takes: nobody's time is up.
    const clock = { ...systemClock, setTimer: () => ({ cancel: () => {} }) };
    const plain = await listener({ maxConnections: 0, refusal, clock });
    let cut = 0;
    let told = 0;
    const peers = Array.from({ length: 300 }, () => {
      const socket = connect({ port: plain.address().port, host: '127.0.0.1', allowHalfOpen: true });
      socket.on('error', () => {});
      let heard = false;
      socket.once('data', () => {
        heard = true;
        told++;
      });
      socket.once('close', () => (cut += heard ? 0 : 1));
      socket.once('end', () => heard || socket.destroy());
      return socket;
    });
    await until(() => told + cut === 300);
    expect(told).toBe(256);
    for (const socket of peers) socket.destroy();
  });

  it('does not keep a refused peer that never reads or closes', async () => {
    const plain = await listener({ maxConnections: 0, refusal });
    const socket = connect({ port: plain.address().port, host: '127.0.0.1', allowHalfOpen: true });
    open.push(socket);
    socket.on('error', () => {});
    await once(socket.resume(), 'end');
    await plain.close();
  });
});

describe('TLS', () => {
  it('shakes hands first where it is implicit, by name', async () => {
    const seen: ListenerConnection[] = [];
    const tls = await listener({
      tls: 'implicit',
      onConnection: (connection) => {
        seen.push(connection);
        echo(connection);
      },
    });
    const named = await tlsClient(tls, 'other.test');
    expect([shown(named), await says(named, 'hello')]).toEqual([fingerprint(other), 'TLSv1.3: hello']);
    expect(seen[0]!.tls).toMatchObject({ protocol: 'TLSv1.3', cipher: expect.stringMatching(/^TLS_/), serverName: 'other.test' });
    expect(shown(await tlsClient(tls, 'unknown.test'))).toBe(fingerprint(main));
    const unnamed = await tlsClient(tls, '');
    expect([shown(unnamed), await says(unnamed, 'x')]).toEqual([fingerprint(main), 'TLSv1.3: x']);
    expect(seen.at(-1)!.tls!.serverName).toBeUndefined();
  });

  it('serves a new certificate at the next handshake, and leaves open connections alone', async () => {
    const tls = await listener({ tls: 'implicit' });
    const before = await tlsClient(tls, 'main.test');
    const renewed = await makeSelfSigned({ names: ['main.test'] });
    certificates.replace([renewed]);
    expect(shown(await tlsClient(tls, 'main.test'))).toBe(fingerprint(renewed));
    expect(await says(before, 'still here')).toBe('TLSv1.3: still here');
  });

  it('upgrades a plain connection once', async () => {
    let connection: ListenerConnection | undefined;
    const plain = await listener({
      onConnection: (each) => {
        connection = each;
        echo(each);
      },
    });
    const socket = await client(plain);
    expect(await says(socket, 'a')).toBe('plain: a');
    expect(await says(socket, 'STARTTLS\r\n')).toBe('220 go ahead\r\n');
    const secured = await tlsClient(plain, 'other.test', socket);
    expect([shown(secured), await says(secured, 'b')]).toEqual([fingerprint(other), 'TLSv1.3: b']);
    await expect(connection!.startTls()).rejects.toThrow(/already/);
    expect(plain.connections).toBe(1);
    secured.destroy();
    await until(() => plain.connections === 0);
  });

  it('never takes plain text sent before the handshake for commands', async () => {
    const plain = await listener({ name: 'injected' });
    const socket = await client(plain);
    expect(await says(socket, 'STARTTLS\r\n')).toBe('220 go ahead\r\n');
    let heard = '';
    socket.on('data', (bytes) => (heard += bytes.toString('latin1')));
    socket.write('MAIL FROM:<injected>\r\n');
    await once(socket, 'close');
    expect(heard).not.toContain('injected');
    expect(await metric('starling_tls_handshake_failures_total', { listener: 'injected' })).toBe(1);
    await until(() => plain.connections === 0);
  });

  it('ends handshakes that hang, break off or ask for old versions', async () => {
    const tls = await listener({ name: 'hanging', tls: 'implicit', handshakeTimeoutMs: 50 });
    await once((await client(tls)).resume(), 'close');
    (await client(tls)).destroy();
    const old = tlsConnect({
      ...{ port: tls.address().port, host: '127.0.0.1', minVersion: 'TLSv1', maxVersion: 'TLSv1.1' },
      ciphers: 'DEFAULT@SECLEVEL=0',
    });
    open.push(old);
    await expect(once(old, 'secureConnect')).rejects.toThrow();
    await until(() => tls.connections === 0);
    expect(await metric('starling_tls_handshake_failures_total', { listener: 'hanging' })).toBe(3);
  });
});

describe('stopping', () => {
  it('stops accepting, leaves open connections alone, then cuts them', async () => {
    const plain = await listener();
    const { port } = plain.address();
    const socket = await client(plain);
    expect(await says(socket, 'a')).toBe('plain: a');
    plain.stopAccepting();
    await expect(once(connect(port, '127.0.0.1'), 'connect')).rejects.toThrow(/ECONNREFUSED/);
    expect(await says(socket, 'b')).toBe('plain: b');
    const closed = once(socket, 'close');
    await Promise.all([plain.close(), plain.close(), closed]);
    expect(plain.connections).toBe(0);
  });

  it('closes connections that are under TLS or still shake hands', async () => {
    const tls = await listener({ tls: 'implicit' });
    const secured = await tlsClient(tls, 'main.test');
    const shaking = await client(tls);
    const closed = [once(secured.resume(), 'close'), once(shaking.resume(), 'close')];
    await tls.close();
    await Promise.all(closed);
  });
});
