import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Clock, createLogger, registry, silentLogger, systemClock } from '../../ops/telemetry/index.js';
import { verifyCertificate } from '../../protocols/http/index.js';
import { CertificateStore, loadOrMakeSelfSigned, makeSelfSigned } from './index.js';

const dayMs = 86_400_000;
const shifted = (days: number): Clock => ({ ...systemClock, nowMs: () => Date.now() + days * dayMs });

describe('makeSelfSigned', () => {
  it('makes a certificate that holds its names, for a year', async () => {
    const made = await makeSelfSigned({ names: ['mx.example.test', '*.example.test', '127.0.0.1', '::1'] });
    const { leaf, notAfterMs } = verifyCertificate(made);
    expect(leaf.checkHost('mx.example.test')).toBeDefined();
    expect(leaf.checkHost('a.example.test')).toBeDefined();
    expect(leaf.checkIP('127.0.0.1')).toBeDefined();
    expect(leaf.checkIP('::1')).toBeDefined();
    expect(leaf.subject).toBe('CN=mx.example.test');
    expect(leaf.verify(leaf.publicKey)).toBe(true);
    expect(leaf.publicKey.asymmetricKeyDetails).toMatchObject({ namedCurve: 'prime256v1' });
    expect(Math.round((notAfterMs - Date.now()) / dayMs)).toBe(365);
    await expect(makeSelfSigned({ names: [] })).rejects.toThrow(/needs a name/);
  });
});

describe('loadOrMakeSelfSigned', () => {
  let directory: string;
  const load = (names: string[], clock: Clock = systemClock) =>
    loadOrMakeSelfSigned(join(directory, 'tls'), { names, clock, logger: silentLogger });

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'starling-test-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it('keeps one for the owner alone, and gives the same again', async () => {
    const first = await load(['localhost', '127.0.0.1']);
    expect(await load(['localhost', '127.0.0.1'])).toEqual(first);
    expect(readdirSync(join(directory, 'tls'))).toEqual(['self-signed.pem']);
    expect(statSync(join(directory, 'tls/self-signed.pem')).mode & 0o777).toBe(0o600);
    expect(statSync(join(directory, 'tls')).mode & 0o777).toBe(0o700);
    expect(readFileSync(join(directory, 'tls/self-signed.pem'), 'utf8')).toContain(first.privateKeyPem);
  });

  it('makes a new one for other names, near its end, and for a damaged file', async () => {
    const first = await load(['localhost']);
    const renamed = await load(['localhost', 'mx.test']);
    expect(renamed.privateKeyPem).not.toBe(first.privateKeyPem);
    expect(await load(['localhost', 'mx.test'], shifted(334))).toEqual(renamed);
    const renewed = await load(['localhost', 'mx.test'], shifted(336));
    expect(renewed.privateKeyPem).not.toBe(renamed.privateKeyPem);
    for (const damage of ['', 'nonsense', renewed.privateKeyPem + first.certificateChainPem]) {
      writeFileSync(join(directory, 'tls/self-signed.pem'), damage);
      const repaired = await load(['localhost']);
      expect(() => verifyCertificate(repaired)).not.toThrow();
      expect(await load(['localhost'])).toEqual(repaired);
    }
  });
});

describe('CertificateStore', () => {
  const store = () => new CertificateStore({ logger: silentLogger });

  it('finds by name, by wildcard, and else gives the main one', async () => {
    const certificates = store();
    expect(() => certificates.secureContext()).toThrow(/No TLS certificate/);
    certificates.replace([
      await makeSelfSigned({ names: ['main.test'] }),
      await makeSelfSigned({ names: ['*.wild.test', 'other.test'] }),
      await makeSelfSigned({ names: ['exact.wild.test', 'other.test'] }),
    ]);
    const main = certificates.secureContext();
    const wild = certificates.secureContext('a.wild.test');
    expect(wild).not.toBe(main);
    expect(certificates.secureContext('Other.Test.')).toBe(wild);
    expect([main, wild]).not.toContain(certificates.secureContext('exact.wild.test'));
    for (const name of ['main.test', 'unknown.test', 'a.b.wild.test', 'wild.test', '']) {
      expect(certificates.secureContext(name)).toBe(main);
    }
  });

  it('takes all or nothing, and tells who listens', async () => {
    const certificates = store();
    const first = await makeSelfSigned({ names: ['a.test'] });
    const second = await makeSelfSigned({ names: ['a.test'] });
    const told: number[] = [];
    const stop = certificates.onChange((all) => told.push(all.length));
    certificates.replace([first]);
    expect(() => certificates.replace([second, { ...first, privateKeyPem: second.privateKeyPem }])).toThrow();
    expect(() => certificates.replace([])).toThrow(/At least one/);
    expect(certificates.certificates.map((certificate) => certificate.privateKeyPem)).toEqual([first.privateKeyPem]);
    stop();
    certificates.replace([second]);
    expect(told).toEqual([1]);
  });

  it('counts the days, and warns of what ends', async () => {
    const lines: string[] = [];
    const logger = createLogger();
    logger.warn = (_: unknown, text?: string) => void lines.push(text ?? '');
    const certificate = await makeSelfSigned({ names: ['a.test'] });
    for (const days of [0, 360, 366]) new CertificateStore({ logger, clock: shifted(days) }).replace([certificate]);
    expect(lines).toEqual(['TLS certificate expires soon', 'TLS certificate has expired']);
    const metric = await registry.getSingleMetric('starling_certificate_days_until_expiry')!.get();
    expect(metric.values.map(({ labels, value }) => [labels['certificate'], Math.round(value)])).toEqual([
      ['main', -1],
      ['soonest', -1],
    ]);
  });
});
