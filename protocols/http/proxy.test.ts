import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterEach, describe, expect, it } from 'vitest';
import { registry } from '../../ops/telemetry/index.js';
import { makeCertificate } from '../testing/certificate.js';
import { type HttpServer, type HttpServerOptions, textResponse } from './index.js';
import { server, stopAll } from './server-under-test.js';

afterEach(stopAll);

async function rawConnection(of: HttpServer): Promise<Socket> {
  const socket = connect(of.address().port, '127.0.0.1');
  await once(socket, 'connect');
  return socket.on('error', () => {});
}

describe('the PROXY protocol', () => {
  const version2 = '0d0a0d0a000d0a515549540a';
  const header = Buffer.concat([
    Buffer.from(`${version2}2111000c`, 'hex'),
    Buffer.from([203, 0, 113, 9, 127, 0, 0, 1, 0x30, 0x39, 0, 80]),
  ]);
  const local = Buffer.from(`${version2}20000000`, 'hex');
  const get = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n';

  async function proxied(isTrusted: boolean, options: Partial<HttpServerOptions> = {}): Promise<HttpServer> {
    const http = server({ name: 'proxied', proxyProtocol: { isTrusted: () => isTrusted, isRequired: false }, ...options });
    http.route('GET', '/', (request) => textResponse(200, `for ${request.remoteAddress}.`));
    await http.listen();
    return http;
  }

  /** What comes back until it matches or the connection ends. */
  async function answer(http: HttpServer, bytes: Buffer, end = /for .*\.$/): Promise<string> {
    const socket = await rawConnection(http);
    socket.write(bytes);
    let text = '';
    try {
      for await (const chunk of socket) {
        text += chunk;
        if (end.test(text)) break;
      }
    } finally {
      socket.destroy();
    }
    return text;
  }

  it('knows the client, at once and in pieces, or the proxy where that speaks for itself', async () => {
    const http = await proxied(true);
    for (const [bytes, address] of [
      [header, '203.0.113.9'],
      [local, '127.0.0.1'],
      [Buffer.alloc(0), '127.0.0.1'],
    ] as const) {
      expect(await answer(http, Buffer.concat([bytes, Buffer.from(get)]))).toContain(`for ${address}.`);
    }
    const socket = await rawConnection(http);
    socket.setNoDelay();
    for (const byte of Buffer.concat([header, Buffer.from(get)])) {
      socket.write(Buffer.from([byte]));
      await new Promise(setImmediate);
    }
    expect(String((await once(socket, 'data'))[0])).toContain('for 203.0.113.9.');
    socket.destroy();
  });

  it('cuts strangers who send a header, and serves them without', async () => {
    const http = await proxied(false);
    expect(await answer(http, Buffer.concat([header, Buffer.from(get)]))).toBe('');
    expect(await answer(http, Buffer.from(get))).toContain('for 127.0.0.1.');
    const refused = registry.getSingleMetric('starling_http_connections_refused_total')!;
    expect((await refused.get()).values).toContainEqual(
      expect.objectContaining({ labels: { listener: 'proxied', reason: 'forged' }, value: 1 }),
    );
  });

  it('bans clients, not the proxy, and lets nobody past it where it is required', async () => {
    for (const banned of ['127.0.0.1', '203.0.113.9']) {
      const http = await proxied(true, { admit: (address) => address !== banned });
      const text = await answer(http, Buffer.concat([header, Buffer.from(get)]));
      if (banned === '127.0.0.1') expect(text).toContain('for 203.0.113.9.');
      else expect(text).toBe('');
    }
    const closed = await proxied(false, { proxyProtocol: { isTrusted: () => false, isRequired: true } });
    expect(await answer(closed, Buffer.from(get))).toBe('');
  });

  it('does not take version 1', async () => {
    const http = await proxied(true);
    const text = await answer(http, Buffer.from(`PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n${get}`), /$^/);
    expect(text).toMatch(/^HTTP\/1\.1 (400|505) /);
  });

  it('is not spoken on HTTPS: before TLS it breaks the handshake, within TLS it is not believed', async () => {
    const { cert, key } = makeCertificate('main.test', ['DNS:main.test']);
    const tls = { certificates: [{ certificateChainPem: cert, privateKeyPem: key, names: ['main.test'] }] };
    expect(() => server({ tls, proxyProtocol: { isTrusted: () => true, isRequired: false } })).toThrow(/takes no PROXY header/);
    const https = server({ tls });
    https.route('GET', '/', (request) => textResponse(200, `for ${request.remoteAddress}.`), { anyHost: true });
    await https.listen();
    const carrier = await rawConnection(https);
    carrier.write(header);
    await expect(once(connectTls({ socket: carrier, rejectUnauthorized: false }), 'secureConnect')).rejects.toThrow();
    const within = connectTls({ port: https.address().port, host: '127.0.0.1', rejectUnauthorized: false });
    await once(within, 'secureConnect');
    within.write(Buffer.concat([header, Buffer.from(get)]));
    expect(String((await once(within, 'data'))[0])).toContain('for 127.0.0.1.');
    within.destroy();
  });
});
