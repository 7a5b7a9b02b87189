/**
 * What ties a SASL exchange to the TLS connection under it (RFC 5056): the two types that SCRAM clients use, from either end of a socket. No `tls-unique`: TLS 1.3 has none.
 */
import { createHash } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { ChannelBindingSource, ChannelBindingType } from './contract.js';

/** RFC 9266 4.1. */
const exporterLabel = 'EXPORTER-Channel-Binding';
const exporterBytes = 32;

/** `p=` names of SCRAM that are known here. */
export const channelBindingTypes: readonly ChannelBindingType[] = ['tls-exporter', 'tls-server-end-point'];

/** Of a server's connected socket. */
export function serverChannelBinding(socket: TLSSocket): ChannelBindingSource {
  return (type) => bindingOf(socket, type, () => rawOf(socket.getCertificate()));
}

/** Of a client's connected socket: what its server hands to the same mechanism. */
export function clientChannelBinding(socket: TLSSocket): ChannelBindingSource {
  return (type) => bindingOf(socket, type, () => rawOf(socket.getPeerCertificate()));
}

function rawOf(certificate: object | null | undefined): Buffer | undefined {
  const raw = (certificate as { raw?: unknown } | null | undefined)?.raw;
  return Buffer.isBuffer(raw) ? raw : undefined;
}

function bindingOf(socket: TLSSocket, type: ChannelBindingType, certificate: () => Buffer | undefined): Buffer | undefined {
  try {
    if (type === 'tls-server-end-point') return endPointBinding(certificate());
    // RFC 9266 3: before TLS 1.3 only with the extended master secret, which a socket does not tell.
    return socket.getProtocol() === 'TLSv1.3'
      ? socket.exportKeyingMaterial(exporterBytes, exporterLabel, Buffer.alloc(0))
      : undefined;
  } catch {
    // A socket that has just been closed throws.
    return undefined;
  }
}

/** RFC 5929 4.1: the certificate's hash, with the hash of its signature but MD5 and SHA-1. Undefined for signatures without exactly one. */
export function endPointBinding(der: Buffer | undefined): Buffer | undefined {
  const hash = der && signatureHash(der);
  return hash ? createHash(hash).update(der).digest() : undefined;
}

// Object identifiers in DER, hex, without tag and length.
const hashOfSignature: Record<string, string> = {
  '2a864886f70d010104': 'sha256', // md5WithRSAEncryption
  '2a864886f70d010105': 'sha256', // sha1WithRSAEncryption
  '2a864886f70d01010e': 'sha224',
  '2a864886f70d01010b': 'sha256',
  '2a864886f70d01010c': 'sha384',
  '2a864886f70d01010d': 'sha512',
  '2a8648ce3d0401': 'sha256', // ecdsa-with-SHA1
  '2a8648ce3d040301': 'sha224',
  '2a8648ce3d040302': 'sha256',
  '2a8648ce3d040303': 'sha384',
  '2a8648ce3d040304': 'sha512',
};
const rsaPss = '2a864886f70d01010a';
const hashes: Record<string, string> = {
  '2b0e03021a': 'sha256', // SHA-1
  '608648016503040204': 'sha224',
  '608648016503040201': 'sha256',
  '608648016503040202': 'sha384',
  '608648016503040203': 'sha512',
};

interface Element {
  tag: number;
  start: number;
  end: number;
}

/** One DER element; undefined when it does not fit. */
function element(der: Buffer, at: number, end: number): Element | undefined {
  if (at + 2 > end) return undefined;
  const first = der[at + 1]!;
  const sizeBytes = first < 0x80 ? 0 : first & 0x7f;
  if (sizeBytes > 4 || first === 0x80 || at + 2 + sizeBytes > end) return undefined;
  const start = at + 2 + sizeBytes;
  const length = sizeBytes === 0 ? first : der.readUIntBE(at + 2, sizeBytes);
  return start + length <= end ? { tag: der[at]!, start, end: start + length } : undefined;
}

const oidText = (der: Buffer, { start, end }: Element) => der.toString('hex', start, end);

function signatureHash(der: Buffer): string | undefined {
  const certificate = element(der, 0, der.length);
  const signed = certificate && element(der, certificate.start, certificate.end);
  const algorithm = signed && element(der, signed.end, certificate.end);
  const oid = algorithm && element(der, algorithm.start, algorithm.end);
  if (!oid) return undefined;
  const name = oidText(der, oid);
  return name === rsaPss ? pssHash(der, element(der, oid.end, algorithm.end)) : hashOfSignature[name];
}

/** RFC 4055 3.1: `[0] hashAlgorithm`; absent it is SHA-1, for which SHA-256 is taken. */
function pssHash(der: Buffer, parameters: Element | undefined): string | undefined {
  if (!parameters) return undefined;
  const tagged = element(der, parameters.start, parameters.end);
  if (tagged?.tag !== 0xa0) return 'sha256';
  const algorithm = element(der, tagged.start, tagged.end);
  const oid = algorithm && element(der, algorithm.start, algorithm.end);
  return oid && hashes[oidText(der, oid)];
}
