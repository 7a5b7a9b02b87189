import fc from 'fast-check';
import ipaddr from 'ipaddr.js';
import { describe, expect, it } from 'vitest';
import { maxVersion1Bytes, maxVersion2PayloadBytes, type ProxyHeader, parseProxyHeader } from './proxy-header.js';
import { binaryHeader } from './proxy-header-under-test.js';

const verdictOn = (text: string) => parseProxyHeader(Buffer.from(text, 'latin1'));
const headerOf = (bytes: Buffer | string) => {
  const verdict = parseProxyHeader(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
  if (verdict.kind !== 'complete') throw new Error(JSON.stringify(verdict));
  return verdict.header;
};
const nobody = { source: undefined, destination: undefined };

const port = fc.nat(65_535);
const ipv4 = fc.ipV4();
const ipv6 = fc.ipV6().filter((text) => ipaddr.isValid(text) && !text.includes('%'));
const short = (address: string) => ipaddr.process(address).toString();

/** Headers as a sender makes them, with what they say. */
const version1 = fc
  .oneof(
    fc.tuple(fc.constant('TCP4'), ipv4, ipv4, port, port),
    fc.tuple(fc.constant('TCP6'), ipv6, ipv6, port, port),
    fc.constant(undefined),
  )
  .map((line): { bytes: Buffer; header: ProxyHeader } => {
    if (!line) return { bytes: Buffer.from('PROXY UNKNOWN\r\n'), header: { version: 1, command: 'PROXY', ...nobody } };
    const [, from, to, fromPort, toPort] = line;
    const source = { address: short(from), port: fromPort };
    const destination = { address: short(to), port: toPort };
    return { bytes: Buffer.from(`PROXY ${line.join(' ')}\r\n`), header: { version: 1, command: 'PROXY', source, destination } };
  });

const addressBytes = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((bytes) => Buffer.from(bytes));
const version2 = fc
  .record({
    isLocal: fc.boolean(),
    family: fc.constantFrom(0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32),
    addresses: fc.tuple(addressBytes(16), addressBytes(16)),
    ports: fc.tuple(port, port),
    tlvs: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  })
  .map(({ isLocal, family, addresses, ports, tlvs }): { bytes: Buffer; header: ProxyHeader } => {
    const length = family >> 4 === 1 ? 4 : 16;
    const block = Buffer.alloc(4);
    block.writeUInt16BE(ports[0], 0);
    block.writeUInt16BE(ports[1], 2);
    const [from, to] = addresses.map((bytes) => bytes.subarray(0, length)) as [Buffer, Buffer];
    const bytes = binaryHeader({
      versionAndCommand: isLocal ? 0x20 : 0x21,
      family,
      payload: Buffer.concat([from, to, block, tlvs]),
    });
    const text = (address: Buffer) => short(ipaddr.fromByteArray([...address]).toString());
    const isKnown = !isLocal && (family === 0x11 || family === 0x21);
    const ends = isKnown
      ? { source: { address: text(from), port: ports[0] }, destination: { address: text(to), port: ports[1] } }
      : nobody;
    return { bytes, header: { version: 2, command: isLocal ? 'LOCAL' : 'PROXY', ...ends } };
  });

describe('version 1', () => {
  it('reads both families, and takes an unknown client as one', () => {
    expect(headerOf('PROXY TCP4 203.0.113.9 198.51.100.1 56324 25\r\nEHLO')).toEqual({
      ...{ version: 1, command: 'PROXY' },
      source: { address: '203.0.113.9', port: 56_324 },
      destination: { address: '198.51.100.1', port: 25 },
    });
    expect(headerOf('PROXY TCP6 2001:DB8:0:0::1 ::1 1 0\r\n').source).toEqual({ address: '2001:db8::1', port: 1 });
    expect(headerOf('PROXY TCP6 ::ffff:203.0.113.9 ::1 1 2\r\n').source!.address).toBe('203.0.113.9');
    const longest = `PROXY UNKNOWN ${'ffff:f...f:ffff '.repeat(9)}`.slice(0, maxVersion1Bytes - 2);
    for (const line of ['PROXY UNKNOWN', longest]) expect(headerOf(`${line}\r\n`)).toMatchObject(nobody);
  });

  it.each([
    ['another protocol', 'EHLO client.test\r\n'],
    ['a lower-case signature', 'proxy TCP4 203.0.113.9 198.51.100.1 1 2\r\n'],
    ['an unknown family', 'PROXY UDP4 203.0.113.9 198.51.100.1 1 2\r\n'],
    ['UNKNOWNX', 'PROXY UNKNOWNX\r\n'],
    ['the wrong family', 'PROXY TCP4 2001:db8::1 ::1 1 2\r\n'],
    ['a zone', 'PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n'],
    ['leading zeroes', 'PROXY TCP4 203.0.113.009 198.51.100.1 1 2\r\n'],
    ['a port with leading zeroes', 'PROXY TCP4 203.0.113.9 198.51.100.1 01 2\r\n'],
    ['a port too large', 'PROXY TCP4 203.0.113.9 198.51.100.1 1 65536\r\n'],
    ['a missing port', 'PROXY TCP4 203.0.113.9 198.51.100.1 1\r\n'],
    ['two blanks', 'PROXY TCP4  203.0.113.9 198.51.100.1 1 2\r\n'],
    ['something more', 'PROXY TCP4 203.0.113.9 198.51.100.1 1 2 3\r\n'],
    ['a bare LF', 'PROXY TCP4 203.0.113.9 198.51.100.1 1 2\n'],
    ['a bare LF in what is not looked at', 'PROXY UNKNOWN x\nEHLO\r\n'],
    ['nothing in it', 'PROXY \r\n'],
    ['no end', `PROXY UNKNOWN ${'x'.repeat(maxVersion1Bytes)}`],
    ['an end that comes too late', `PROXY UNKNOWN ${'x'.repeat(maxVersion1Bytes - 15)}\r\n`],
  ])('refuses %s', (_what, text) => {
    expect(verdictOn(text).kind).toBe('malformed');
  });
});

describe('version 2', () => {
  const ipv4Payload = Buffer.from([203, 0, 113, 9, 198, 51, 100, 1, 0xdc, 0x04, 0, 25]);

  it('reads the client and leaves TLVs alone', () => {
    const tlv = Buffer.concat([Buffer.from([0x20, 0x01, 0x00]), Buffer.alloc(256, 7)]);
    for (const payload of [ipv4Payload, Buffer.concat([ipv4Payload, tlv])]) {
      expect(headerOf(binaryHeader({ family: 0x11, payload })).source).toEqual({ address: '203.0.113.9', port: 56_324 });
    }
  });

  it('keeps to the connection where the header names nobody', () => {
    for (const [command, name] of [
      [0x20, 'LOCAL'],
      [0x21, 'PROXY'],
    ] as const) {
      const header = binaryHeader({ versionAndCommand: command, family: 0, payload: Buffer.alloc(0) });
      expect(headerOf(header)).toEqual({ version: 2, command: name, ...nobody });
    }
    expect(headerOf(binaryHeader({ versionAndCommand: 0x20, family: 0x11, payload: ipv4Payload }))).toMatchObject(nobody);
    expect(headerOf(binaryHeader({ family: 0x12, payload: ipv4Payload }))).toMatchObject(nobody);
    expect(headerOf(binaryHeader({ family: 0x31, payload: Buffer.alloc(216, 65) }))).toMatchObject(nobody);
  });

  it.each([
    ['version 1', binaryHeader({ versionAndCommand: 0x11, family: 0x11, payload: ipv4Payload })],
    ['version 3', binaryHeader({ versionAndCommand: 0x31, family: 0x11, payload: ipv4Payload })],
    ['an unknown command', binaryHeader({ versionAndCommand: 0x22, family: 0x11, payload: ipv4Payload })],
    ['an unknown family', binaryHeader({ family: 0x41, payload: ipv4Payload })],
    ['an unknown transport', binaryHeader({ family: 0x13, payload: ipv4Payload })],
    ['addresses cut short', binaryHeader({ family: 0x11, payload: ipv4Payload.subarray(1) })],
    ['IPv6 with the bytes of IPv4', binaryHeader({ family: 0x21, payload: ipv4Payload })],
    ['too much', binaryHeader({ family: 0x11, payload: Buffer.alloc(maxVersion2PayloadBytes + 1) })],
    ['a broken signature', Buffer.from('\r\n\r\n\0\r\nQUIT\r', 'latin1')],
  ])('refuses %s as soon as it can be seen', (_what, bytes) => {
    expect(parseProxyHeader(bytes).kind).toBe('malformed');
    expect(parseProxyHeader(bytes.subarray(0, 16)).kind).toBe('malformed');
  });

  it('takes the longest', () => {
    const payload = Buffer.concat([ipv4Payload, Buffer.alloc(maxVersion2PayloadBytes - ipv4Payload.length)]);
    expect(headerOf(binaryHeader({ family: 0x11, payload })).source!.address).toBe('203.0.113.9');
  });
});

describe('any bytes', () => {
  it('finds exactly the header, whatever follows, and waits for all of it', () => {
    const rest = fc.uint8Array({ maxLength: 200 });
    fc.assert(
      fc.property(fc.oneof(version1, version2), rest, ({ bytes, header }, more) => {
        expect(parseProxyHeader(Buffer.concat([bytes, more]))).toEqual({ kind: 'complete', bytes: bytes.length, header });
        for (let length = 0; length < bytes.length; length++) {
          expect(parseProxyHeader(bytes.subarray(0, length)).kind).toBe('incomplete');
        }
      }),
      { numRuns: 200 },
    );
  });

  it('never throws, never asks for more than a header may have, never takes a verdict back', () => {
    const damaged = fc
      .tuple(fc.oneof(version1, version2), fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 4 }), fc.uint8Array())
      .map(([{ bytes }, changes, more]) => {
        const changed = Buffer.concat([bytes, more]);
        for (const [at, value] of changes) changed[at % changed.length] = value;
        return changed;
      });
    const any = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes));
    fc.assert(
      fc.property(fc.oneof(damaged, any), fc.nat(400), (bytes, cut) => {
        const early = parseProxyHeader(bytes.subarray(0, cut));
        const late = parseProxyHeader(bytes);
        if (early.kind !== 'incomplete') expect(late).toEqual(early);
        if (late.kind === 'complete') expect(late.bytes).toBeLessThanOrEqual(bytes.length);
        const isBinary = bytes[0] === 0x0d;
        const bound = isBinary ? 16 + maxVersion2PayloadBytes : maxVersion1Bytes;
        if (late.kind === 'incomplete') expect(bytes.length).toBeLessThan(bound);
      }),
      { numRuns: 2_000 },
    );
  });
});
