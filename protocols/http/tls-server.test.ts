import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { Agent, request as httpsRequest, type RequestOptions } from 'node:https';
import { tmpdir } from 'node:os';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { connect, type TLSSocket } from 'node:tls';
import { afterEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../ops/telemetry/index.js';
import { makeCertificate } from '../testing/certificate.js';
import { HttpServer, type HttpServerOptions, type TlsCertificate, textResponse, verifyCertificate } from './index.js';
import { textOf } from './server-under-test.js';

function certificate(...names: string[]): TlsCertificate {
  const subjects = names.map((name) => (/^[\d.]+$/.test(name) ? `IP:${name}` : `DNS:${name}`));
  const { cert, key } = makeCertificate(names[0]!, subjects);
  return { certificateChainPem: cert, privateKeyPem: key, names };
}

function* split(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

const main = certificate('main.test', '127.0.0.1');
const renewed = certificate('main.test', '127.0.0.1');
const other = certificate('other.test', '*.wild.test');

const servers: HttpServer[] = [];
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.stop(100)));
});

async function server(certificates: TlsCertificate[], options: Partial<HttpServerOptions> = {}): Promise<HttpServer> {
  const made = new HttpServer({
    name: 'tls',
    host: '127.0.0.1',
    port: 0,
    logger: silentLogger,
    tls: { certificates },
    ...options,
  });
  servers.push(made);
  made.route('GET', '/', (request) => textResponse(200, `${request.host} ${request.secure}`));
  made.route('GET', '/probe', () => textResponse(200, 'probe'), { anyHost: true });
  await made.listen();
  return made;
}

interface Answer {
  status: number;
  text: string;
  fingerprint: string;
}

/** A socket tells its peer's certificate only once. */
const shown = new WeakMap<TLSSocket, string>();
function shownOn(socket: TLSSocket): string {
  if (!shown.has(socket)) shown.set(socket, socket.getPeerX509Certificate()!.fingerprint256);
  return shown.get(socket)!;
}

/** GET with any server name ('' = none) and Host. */
async function get(from: HttpServer, serverName: string, host = serverName, options: RequestOptions = {}): Promise<Answer> {
  const request = httpsRequest({
    ...{ host: '127.0.0.1', port: from.address().port, path: '/', servername: serverName, rejectUnauthorized: false },
    ...{ headers: { host }, agent: new Agent({ maxCachedSessions: 0 }) },
    ...options,
  }).end();
  // In the event itself: the answer may be over, and its socket let go, before a promise goes on.
  let fingerprint = '';
  request.once('response', ({ socket }) => {
    fingerprint = shownOn(socket as TLSSocket);
  });
  const [response] = await once(request, 'response');
  let text = '';
  for await (const chunk of response) text += chunk;
  return { status: response.statusCode, text, fingerprint };
}

const fingerprintOf = (of: TlsCertificate) => verifyCertificate(of).leaf.fingerprint256;

describe('HTTPS', () => {
  it('shows each name its certificate, and everybody else the main one', async () => {
    const https = await server([main, other]);
    expect(await get(https, 'main.test')).toEqual({ status: 200, text: 'main.test true', fingerprint: fingerprintOf(main) });
    expect(await get(https, 'other.test')).toMatchObject({ status: 200, fingerprint: fingerprintOf(other) });
    expect(await get(https, 'a.wild.test')).toMatchObject({ status: 200, fingerprint: fingerprintOf(other) });
    expect(await get(https, '', '127.0.0.1')).toMatchObject({ status: 200, fingerprint: fingerprintOf(main) });
    expect(await get(https, 'unknown.test')).toMatchObject({ status: 421, fingerprint: fingerprintOf(main) });
    expect(await get(https, 'a.b.wild.test')).toMatchObject({ status: 421, fingerprint: fingerprintOf(main) });
  });

  it('answers 421 when the Host is not what the certificate stands for, except to probes', async () => {
    const https = await server([main, other]);
    expect((await get(https, 'other.test', 'main.test')).status).toBe(421);
    expect((await get(https, 'main.test', 'other.test')).status).toBe(421);
    expect((await get(https, 'main.test', 'MAIN.test.:443')).status).toBe(200);
    expect(await get(https, 'main.test', 'anything.test', { path: '/probe' })).toMatchObject({ status: 200, text: 'probe' });
  });

  it('verifies before it serves', async () => {
    const mixed = { ...main, privateKeyPem: other.privateKeyPem };
    expect(() => verifyCertificate(mixed)).toThrow(/main\.test.*does not work with its key/);
    expect(() => verifyCertificate({ ...main, certificateChainPem: 'nonsense' })).toThrow(/not readable/);
    expect(() => verifyCertificate({ ...main, names: ['stranger.test'] })).toThrow(/does not hold stranger\.test/);
    const https = await server([main]);
    expect(() => https.setCertificates([renewed, mixed])).toThrow();
    expect((await get(https, 'main.test')).fingerprint).toBe(fingerprintOf(main));
    expect(() => https.setCertificates([])).toThrow(/needs a certificate/);
  });

  it('replaces certificates under load: no connection fails, kept ones live on and reach their own routes', async () => {
    const https = await server([main]);
    const kept = new Agent({ keepAlive: true, maxSockets: 1 });
    await get(https, 'main.test', 'main.test', { agent: kept });
    let stop = false;
    let answered = 0;
    const failures: unknown[] = [];
    const clients = Array.from({ length: 8 }, async () => {
      while (!stop) {
        await get(https, 'main.test').then(
          ({ status }) => (status === 200 ? answered++ : failures.push(status)),
          (error) => failures.push(error),
        );
      }
    });
    for (let round = 0; round < 30; round++) {
      https.setCertificates(round % 2 ? [main, other] : [renewed, other]);
      const [fresh, old, byAddress] = await Promise.all([
        get(https, 'main.test'),
        get(https, 'main.test', 'main.test', { agent: kept }),
        get(https, '', '127.0.0.1'),
      ]);
      expect(fresh.fingerprint).toBe(fingerprintOf(round % 2 ? main : renewed));
      expect(byAddress.fingerprint).toBe(fresh.fingerprint);
      expect(old).toEqual({ status: 200, text: 'main.test true', fingerprint: fingerprintOf(main) });
    }
    stop = true;
    await Promise.all(clients);
    expect(failures).toEqual([]);
    expect(answered).toBeGreaterThan(30);
    kept.destroy();
  });

  it('adds a name in place, at run time or when it is first asked for', async () => {
    let asked = '';
    const https = await server([main], {
      tls: {
        certificates: [main],
        missingCertificate: (name) => {
          asked = name;
          return name === 'other.test' ? { ...other, names: ['other.test'] } : undefined;
        },
      },
    });
    expect((await get(https, 'nobody.test')).status).toBe(421);
    expect(asked).toBe('nobody.test');
    expect(await get(https, 'other.test')).toMatchObject({ status: 200, fingerprint: fingerprintOf(other) });
    https.setCertificates([main, { ...other, names: ['*.wild.test'] }]);
    expect(await get(https, 'b.wild.test')).toMatchObject({ status: 200, fingerprint: fingerprintOf(other) });
  });

  it('keeps names apart once a second certificate joins one that was alone', async () => {
    const https = await server([main]);
    expect(await get(https, 'main.test')).toMatchObject({ status: 200, fingerprint: fingerprintOf(main) });
    expect(await get(https, 'main.test', '127.0.0.1')).toMatchObject({ status: 200 });
    https.setCertificates([main, other]);
    expect(await get(https, 'main.test')).toMatchObject({ status: 200, fingerprint: fingerprintOf(main) });
    expect(await get(https, 'a.wild.test')).toMatchObject({ status: 200, fingerprint: fingerprintOf(other) });
    expect((await get(https, 'main.test', 'other.test')).status).toBe(421);
    expect((await get(https, 'a.wild.test', 'main.test')).status).toBe(421);
  });

  it('asks for no other certificate where its own holds the name', async () => {
    const asked: string[] = [];
    const https = await server([main], {
      tls: {
        certificates: [main],
        missingCertificate: (name) => {
          asked.push(name);
          return undefined;
        },
      },
    });
    expect((await get(https, 'main.test')).status).toBe(200);
    expect((await get(https, 'MAIN.test', 'main.test')).status).toBe(200);
    expect((await get(https, 'stranger.test')).status).toBe(421);
    expect(asked).toEqual(['stranger.test']);
  });

  it('stops serving a name whose certificate is gone', async () => {
    const https = await server([main, other]);
    https.setCertificates([main]);
    expect((await get(https, 'other.test')).fingerprint).toBe(fingerprintOf(main));
  });

  for (const isSized of [true, false]) {
    it(`sends and takes large bodies whole, ${isSized ? 'with their size' : 'in chunks'}, to a slow client`, async () => {
      const https = await server([main], { maxBodyBytes: 20_000_000 });
      const bytes = randomBytes(20_000_000);
      const hash = createHash('sha256').update(bytes).digest('hex');
      const pieces = () => Readable.from(split(bytes, 77_777), { objectMode: false });
      https.route('GET', '/big', () => ({ status: 200, body: pieces(), ...(isSized && { bodyBytes: bytes.length }) }));
      https.route('PUT', '/big', async (request) => {
        const received = createHash('sha256');
        for await (const chunk of request.body) received.update(chunk);
        return textResponse(200, received.digest('hex'));
      });
      const options = { host: '127.0.0.1', port: https.address().port, path: '/big', rejectUnauthorized: false };
      const download = httpsRequest(options).end();
      const [response] = await once(download, 'response');
      const received = createHash('sha256');
      let chunks = 0;
      for await (const chunk of response) {
        received.update(chunk);
        if (++chunks % 100 === 0) await delay(10);
      }
      expect(received.digest('hex')).toBe(hash);
      const upload = httpsRequest({ ...options, method: 'PUT', headers: isSized ? { 'content-length': bytes.length } : {} });
      pieces().pipe(upload);
      const [answer] = await once(upload, 'response');
      expect(await textOf(answer)).toBe(hash);
    });
  }

  it('leaves no key on disk', async () => {
    const before = readdirSync(tmpdir()).filter((name) => name.startsWith('starling-tls-'));
    const https = await server([main, other]);
    https.setCertificates([renewed]);
    expect(readdirSync(tmpdir()).filter((name) => name.startsWith('starling-tls-'))).toEqual(before);
  });

  it('refuses old TLS versions and plain text, and closes connections that are not admitted', async () => {
    let admitted = true;
    const https = await server([main], { admit: () => admitted });
    const socket = connect({
      port: https.address().port,
      host: '127.0.0.1',
      maxVersion: 'TLSv1.1',
      minVersion: 'TLSv1',
      ciphers: 'DEFAULT@SECLEVEL=0',
    });
    await expect(once(socket, 'secureConnect')).rejects.toThrow();
    await expect(fetch(`http://127.0.0.1:${https.address().port}/`)).rejects.toThrow();
    admitted = false;
    await expect(get(https, 'main.test')).rejects.toThrow();
    admitted = true;
    expect((await get(https, 'main.test')).status).toBe(200);
  });
});
