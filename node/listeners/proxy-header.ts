/**
 * Reads a PROXY protocol header, versions 1 and 2 (haproxy.org, "The PROXY protocol", sections 2.1 and 2.2). Pure: bytes in, verdict out.
 * The sections named in comments are those of that document.
 */
import { isIPv4, isIPv6 } from 'node:net';
import ipaddr from 'ipaddr.js';

/** 2.1: the longest line that version 1 can make, CRLF included. */
export const maxVersion1Bytes = 107;
/** What may follow the 16 bytes of a version 2 header: addresses and TLVs. The field could say 65 535; senders stay far below this. */
export const maxVersion2PayloadBytes = 4_096;

const version2HeadBytes = 16;
const signature1 = Buffer.from('PROXY ', 'latin1');
const signature2 = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
/** 2.2: two addresses and two ports. */
const ipv4BlockBytes = 12;
const ipv6BlockBytes = 36;

export interface ProxyEndpoint {
  /** In the usual short form; IPv4-mapped addresses as IPv4. */
  address: string;
  port: number;
}

export interface ProxyHeader {
  version: 1 | 2;
  /** LOCAL: a connection of the proxy's own, such as a health check. */
  command: 'PROXY' | 'LOCAL';
  /** The client. Undefined under LOCAL, and where the proxy does not know it or it has no IP address: the connection's own addresses hold. */
  source: ProxyEndpoint | undefined;
  /** What the client had connected to. */
  destination: ProxyEndpoint | undefined;
}

export type ProxyHeaderVerdict =
  /** The header is the first `bytes` bytes; what follows belongs to the session. */
  | { kind: 'complete'; bytes: number; header: ProxyHeader }
  /** So far it may become one. Never said of more bytes than a header may have. */
  | { kind: 'incomplete' }
  | { kind: 'malformed'; reason: string };

const incomplete: ProxyHeaderVerdict = { kind: 'incomplete' };
const malformed = (reason: string): ProxyHeaderVerdict => ({ kind: 'malformed', reason });

/** Judges the first bytes of a connection. Never throws; what follows a complete header is not looked at. */
export function parseProxyHeader(bytes: Buffer): ProxyHeaderVerdict {
  if (startsLike(bytes, signature2)) return bytes.length < version2HeadBytes ? incomplete : parseVersion2(bytes);
  if (startsLike(bytes, signature1)) return bytes.length < signature1.length ? incomplete : parseVersion1(bytes);
  return malformed('it does not begin with a PROXY header');
}

/** Whether the signature, or as much of it as has come, stands at the beginning. */
function startsLike(bytes: Buffer, signature: Buffer): boolean {
  const length = Math.min(bytes.length, signature.length);
  return bytes.compare(signature, 0, length, 0, length) === 0;
}

/** 2.1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 25` CRLF, or `PROXY UNKNOWN` with anything up to CRLF. */
function parseVersion1(bytes: Buffer): ProxyHeaderVerdict {
  const lineFeed = bytes.subarray(0, maxVersion1Bytes).indexOf(0x0a);
  if (lineFeed < 0) return bytes.length < maxVersion1Bytes ? incomplete : malformed('a version 1 line is too long');
  if (bytes[lineFeed - 1] !== 0x0d) return malformed('a version 1 line does not end in CRLF');
  const length = lineFeed + 1;
  const line = bytes.toString('latin1', signature1.length, lineFeed - 1);
  if (line === 'UNKNOWN' || line.startsWith('UNKNOWN ')) return complete(1, length, 'PROXY');
  const [family, source, destination, sourcePort, destinationPort, ...rest] = line.split(' ');
  const isAddress = family === 'TCP4' ? isIPv4 : family === 'TCP6' ? isPlainIpv6 : undefined;
  if (!isAddress) return malformed('a version 1 line has an unknown protocol');
  if (rest.length > 0 || !isAddress(source ?? '') || !isAddress(destination ?? '')) {
    return malformed('a version 1 line has wrong addresses');
  }
  const ports = [portOf(sourcePort), portOf(destinationPort)] as const;
  if (ports[0] === undefined || ports[1] === undefined) return malformed('a version 1 line has wrong ports');
  return complete(
    ...([1, length, 'PROXY'] as const),
    { address: ipaddr.process(source!).toString(), port: ports[0] },
    { address: ipaddr.process(destination!).toString(), port: ports[1] },
  );
}

/** `isIPv6` also takes a zone, which means nothing on another machine. */
function isPlainIpv6(text: string): boolean {
  return isIPv6(text) && !text.includes('%');
}

/** 2.1: decimal, 0 to 65535, without leading zeroes. */
function portOf(text: string | undefined): number | undefined {
  return text !== undefined && /^(0|[1-9]\d{0,4})$/.test(text) && Number(text) <= 65_535 ? Number(text) : undefined;
}

/** 2.2: the signature, version and command, family and transport, the length of what follows; then addresses and TLVs. */
function parseVersion2(bytes: Buffer): ProxyHeaderVerdict {
  const versionAndCommand = bytes[12]!;
  const command = versionAndCommand & 0x0f;
  if (versionAndCommand >> 4 !== 2 || command > 1) return malformed('a binary header has an unknown version or command');
  const family = bytes[13]! >> 4;
  const transport = bytes[13]! & 0x0f;
  if (family > 3 || transport > 2) return malformed('a version 2 header has an unknown address family or transport');
  const payloadBytes = bytes.readUInt16BE(14);
  if (payloadBytes > maxVersion2PayloadBytes) return malformed('a version 2 header is too long');
  // Only streams over IP can be who they say they are here. Anything else that is valid counts as unknown, as 2.2 wants it.
  const isIp = command === 1 && transport === 1 && (family === 1 || family === 2);
  const blockBytes = family === 1 ? ipv4BlockBytes : ipv6BlockBytes;
  if (isIp && payloadBytes < blockBytes) return malformed('a version 2 header is too short for its addresses');
  const length = version2HeadBytes + payloadBytes;
  if (bytes.length < length) return incomplete;
  if (!isIp) return complete(2, length, command === 0 ? 'LOCAL' : 'PROXY');
  const addressBytes = family === 1 ? 4 : 16;
  const portsAt = version2HeadBytes + 2 * addressBytes;
  const endpoint = (index: 0 | 1): ProxyEndpoint => {
    const at = version2HeadBytes + index * addressBytes;
    const address = ipaddr.fromByteArray([...bytes.subarray(at, at + addressBytes)]).toString();
    return {
      address: family === 1 ? address : ipaddr.process(address).toString(),
      port: bytes.readUInt16BE(portsAt + 2 * index),
    };
  };
  return complete(2, length, 'PROXY', endpoint(0), endpoint(1));
}

function complete(
  version: 1 | 2,
  bytes: number,
  command: ProxyHeader['command'],
  source?: ProxyEndpoint,
  destination?: ProxyEndpoint,
): ProxyHeaderVerdict {
  return { kind: 'complete', bytes, header: { version, command, source, destination } };
}
