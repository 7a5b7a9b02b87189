/**
 * A certificate for a node that has none yet: self-signed, ECDSA P-256, kept in a file so that clients see the same one after a
 * restart, and made anew before it ends or when the names change.
 */
import { KeyObject, webcrypto, X509Certificate } from 'node:crypto';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { type Clock, type Logger, type Random, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { namesInCertificate, type TlsCertificate, verifyCertificate } from '../../protocols/http/index.js';

const dayMs = 86_400_000;
const validDays = 365;
const renewBeforeDays = 30;
/** Key and certificate in one file: they are replaced together or not at all. */
const fileName = 'self-signed.pem';

export interface SelfSignedOptions {
  /** DNS names and IP addresses; the first is the subject. */
  names: readonly string[];
  clock?: Clock;
  random?: Random;
}

/** Makes a new key and certificate, valid from an hour ago (clocks differ) for a year. */
export async function makeSelfSigned(options: SelfSignedOptions): Promise<TlsCertificate> {
  const { names, clock = systemClock, random = systemRandom } = options;
  const [subject] = names;
  if (!subject) throw new Error('A certificate needs a name');
  // Loaded here because it takes a good part of a second, which only a node without a certificate should pay.
  await import('reflect-metadata');
  const x509 = await import('@peculiar/x509');
  const crypto = webcrypto as unknown as Parameters<typeof x509.cryptoProvider.set>[0];
  const keys = await webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']);
  // RFC 5280 4.1.2.2: a positive number of at most 20 octets.
  const serial = random.bytes(16);
  serial[0] = (serial[0]! & 0x7f) | 0x40;
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: serial.toString('hex'),
      name: [{ CN: [subject] }],
      notBefore: new Date(clock.nowMs() - 3_600_000),
      notAfter: new Date(clock.nowMs() + validDays * dayMs),
      keys: keys as unknown as Parameters<typeof x509.X509CertificateGenerator.createSelfSigned>[0]['keys'],
      signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
        new x509.SubjectAlternativeNameExtension(names.map((name) => ({ type: isIP(name) ? 'ip' : 'dns', value: name }))),
      ],
    },
    crypto,
  );
  const privateKeyPem = KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' }) as string;
  return { certificateChainPem: `${certificate.toString('pem')}\n`, privateKeyPem, names };
}

/**
 * The self-signed certificate kept in `directory` (made if missing, mode 0700); a new one when there is none, when it does not
 * hold exactly `names`, when it ends within 30 days, or when the file is damaged.
 */
export async function loadOrMakeSelfSigned(
  directory: string,
  options: SelfSignedOptions & { logger: Logger },
): Promise<TlsCertificate> {
  const { clock = systemClock, logger, names } = options;
  const path = join(directory, fileName);
  const kept = await load(path, names, clock).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') logger.warn({ err: error, path }, 'the kept self-signed certificate is of no use');
    return undefined;
  });
  if (kept) return kept;
  const made = await makeSelfSigned(options);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await writeAtomically(
    path,
    made.privateKeyPem + made.certificateChainPem,
    (options.random ?? systemRandom).bytes(6).toString('hex'),
  );
  logger.info({ names, path }, 'made a self-signed TLS certificate');
  return made;
}

async function load(path: string, names: readonly string[], clock: Clock): Promise<TlsCertificate | undefined> {
  const pem = await readFile(path, 'utf8');
  const certificateAt = pem.indexOf('-----BEGIN CERTIFICATE-----');
  if (certificateAt < 0) throw new Error('there is no certificate in the file');
  const certificate = { privateKeyPem: pem.slice(0, certificateAt), certificateChainPem: pem.slice(certificateAt), names };
  const held = new Set(namesInCertificate(new X509Certificate(certificate.certificateChainPem)));
  const { notAfterMs } = verifyCertificate({ ...certificate, names: [...held] });
  const isSame = held.size === new Set(names).size && names.every((name) => held.has(name));
  return isSame && notAfterMs - clock.nowMs() > renewBeforeDays * dayMs ? certificate : undefined;
}

async function writeAtomically(path: string, text: string, suffix: string): Promise<void> {
  const temporary = `${path}.${suffix}.tmp`;
  try {
    const file = await open(temporary, 'wx', 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
