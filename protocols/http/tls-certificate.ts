/**
 * A certificate as the servers take it, and the checks that the HTTP engine leaves out: given files that do not fit it silently
 * serves something else.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { createSecureContext } from 'node:tls';

export interface TlsCertificate {
  /** The server's own certificate first, then the intermediates. */
  certificateChainPem: string;
  privateKeyPem: string;
  /** DNS names under which it is served, `*.` for one label; IP addresses may be listed but are never asked for by name. */
  names: readonly string[];
}

export interface VerifiedCertificate extends TlsCertificate {
  /** Lower case, without a final dot. */
  names: readonly string[];
  leaf: X509Certificate;
  notBeforeMs: number;
  notAfterMs: number;
}

/**
 * Checks that the chain and the key can be loaded and belong together. Expiry is not refused (an expired certificate is better
 * than none for opportunistic TLS): see `notAfterMs`.
 * @throws Error that names the certificate and says what is wrong.
 */
export function verifyCertificate(certificate: TlsCertificate): VerifiedCertificate {
  const names = certificate.names.map((name) => name.toLowerCase().replace(/\.$/, ''));
  const about = `The certificate for ${names.join(', ') || '(no name)'}`;
  let leaf: X509Certificate;
  try {
    leaf = new X509Certificate(certificate.certificateChainPem);
  } catch (cause) {
    throw new Error(`${about} is not readable as PEM`, { cause });
  }
  try {
    const matches = leaf.checkPrivateKey(createPrivateKey(certificate.privateKeyPem));
    if (!matches) throw new Error('the key is for another certificate');
    createSecureContext({ cert: certificate.certificateChainPem, key: certificate.privateKeyPem, minVersion: 'TLSv1.2' });
  } catch (cause) {
    throw new Error(`${about} does not work with its key: ${(cause as Error).message}`, { cause });
  }
  if (names.length === 0) throw new Error(`${about} is served under no name`);
  const isAddress = (name: string) => isIP(name) !== 0 && leaf.checkIP(name) !== undefined;
  const strangers = names.filter((name) => !isAddress(name) && !covers(leaf, name));
  if (strangers.length > 0) throw new Error(`${about} does not hold ${strangers.join(', ')}`);
  return { ...certificate, names, leaf, notBeforeMs: Date.parse(leaf.validFrom), notAfterMs: Date.parse(leaf.validTo) };
}

/** Whether `host` is one of `names` (RFC 6125 6.4.3: a wildcard stands for exactly one whole left-most label). */
export function isNamed(names: readonly string[], host: string): boolean {
  const dot = host.indexOf('.');
  const wildcard = dot > 0 ? `*${host.slice(dot)}` : undefined;
  return names.some((name) => name === host || name === wildcard);
}

/** The names in a PEM certificate's subjectAltName: DNS names and IP addresses. */
export function namesInCertificate(leaf: X509Certificate): string[] {
  return (leaf.subjectAltName ?? '')
    .split(/,\s*/)
    .map((entry) => /^(?:DNS|IP Address):(.+)$/.exec(entry)?.[1])
    .filter((name): name is string => name !== undefined);
}

function covers(leaf: X509Certificate, name: string): boolean {
  // checkHost takes no wildcard as its subject, so a label that nobody has registered stands in for it.
  return (
    leaf.checkHost(name.startsWith('*.') ? `wildcard-probe${name.slice(1)}` : name, { partialWildcards: false }) !== undefined
  );
}
