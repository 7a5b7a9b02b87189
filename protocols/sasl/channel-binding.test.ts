/** Channel binding on real TLS connections: both ends, and `openssl`, must come to the same bytes. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { clientChannelBinding, endPointBinding, serverChannelBinding } from './channel-binding.js';
import { tlsClientChannelBinding } from './client/index.js';
import type { ChannelBindingSource } from './contract.js';

interface Pair {
  key: string;
  cert: string;
}

function certificate(...options: string[]): Pair {
  const folder = mkdtempSync(join(tmpdir(), 'starling-binding-'));
  try {
    const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
    const common = ['req', '-x509', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-keyout', key, '-out', cert];
    execFileSync('openssl', [...common, ...options], { stdio: 'pipe' });
    return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];
const rsa = ['-newkey', 'rsa:2048'];
const pss = ['-sigopt', 'rsa_padding_mode:pss'];
const der = ({ cert }: Pair) => Buffer.from(cert.replace(/-----[^-]+-----|\s/g, ''), 'base64');

/** Shakes hands, and shows the sources of both ends while the connection is up. */
async function connected<T>(
  pair: Pair,
  version: 'TLSv1.2' | 'TLSv1.3',
  look: (server: TLSSocket, client: TLSSocket) => T,
): Promise<T> {
  const server = createServer({ ...pair, minVersion: version, maxVersion: version });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const accepted = new Promise<TLSSocket>((resolve) => server.once('secureConnection', resolve));
  const client = connect({ host: '127.0.0.1', port: (server.address() as AddressInfo).port, rejectUnauthorized: false });
  try {
    await new Promise<void>((resolve, reject) => client.once('secureConnect', resolve).once('error', reject));
    return look(await accepted, client);
  } finally {
    client.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

describe('channel binding', () => {
  it.each([
    ['ECDSA with SHA-256', [...ec, '-sha256'], 'sha256'],
    ['ECDSA with SHA-384', [...ec, '-sha384'], 'sha384'],
    ['RSA with SHA-512', [...rsa, '-sha512'], 'sha512'],
    ['RSA with SHA-1', [...rsa, '-sha1'], 'sha256'],
    ['RSA-PSS with SHA-384', [...rsa, '-sha384', ...pss], 'sha384'],
    ['RSA-PSS with SHA-256', [...rsa, '-sha256', ...pss], 'sha256'],
    ['Ed25519, which has no hash', ['-newkey', 'ed25519'], undefined],
  ])('takes the hash of the signature: %s', (_name, options, hash) => {
    const bytes = der(certificate(...options));
    expect(endPointBinding(bytes)).toEqual(hash && createHash(hash).update(bytes).digest());
  });

  it('is the same at both ends, and another one for each connection', async () => {
    const pair = certificate(...ec, '-sha256');
    const both = (server: TLSSocket, client: TLSSocket) => {
      const sources: [ChannelBindingSource, ChannelBindingSource] = [serverChannelBinding(server), clientChannelBinding(client)];
      const of = (type: 'tls-exporter' | 'tls-server-end-point') => sources.map((source) => source(type)?.toString('hex'));
      return { exporter: of('tls-exporter'), endPoint: of('tls-server-end-point'), best: tlsClientChannelBinding(client)?.type };
    };
    const first = await connected(pair, 'TLSv1.3', both);
    const second = await connected(pair, 'TLSv1.3', both);
    const old = await connected(pair, 'TLSv1.2', both);
    const wanted = createHash('sha256').update(der(pair)).digest('hex');
    expect(first.exporter[0]).toMatch(/^[0-9a-f]{64}$/);
    expect(first.exporter[0]).toBe(first.exporter[1]);
    expect(second.exporter[0]).not.toBe(first.exporter[0]);
    expect(first.endPoint).toEqual([wanted, wanted]);
    expect(first.best).toBe('tls-exporter');
    expect(old).toEqual({ exporter: [undefined, undefined], endPoint: [wanted, wanted], best: 'tls-server-end-point' });
  });

  it('is gone with the connection, without an error', async () => {
    const source = await connected(certificate(...ec), 'TLSv1.3', (server) => {
      server.destroy();
      return serverChannelBinding(server);
    });
    expect(source('tls-exporter')).toBeUndefined();
  });

  it('finds nothing in damaged certificates, and never throws', () => {
    const good = der(certificate(...ec));
    for (let length = 0; length < 40; length++) expect(() => endPointBinding(good.subarray(0, length))).not.toThrow();
    expect(endPointBinding(good.subarray(0, good.length - 1))).toBeUndefined();
    expect(endPointBinding(undefined)).toBeUndefined();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => void endPointBinding(Buffer.from(bytes))),
      { numRuns: 1_000 },
    );
  });
});
