/** The resolver against a small DNS server on a UDP socket, speaking RFC 1035 by hand. */
import { createSocket, type Socket } from 'node:dgram';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Clock } from '../../ops/telemetry/index.js';
import { systemClock } from '../../ops/telemetry/index.js';
import { SystemResolver, type SystemResolverOptions } from './resolver.js';

const types: Record<number, string> = { 1: 'A', 5: 'CNAME', 12: 'PTR', 15: 'MX', 16: 'TXT', 28: 'AAAA' };

const encodeName = (name: string) =>
  Buffer.concat([
    ...name
      .split('.')
      .filter(Boolean)
      .map((label) => Buffer.from([label.length, ...Buffer.from(label)])),
    Buffer.from([0]),
  ]);

const mxData = (preference: number, name: string) =>
  Buffer.concat([Buffer.from([preference >> 8, preference & 255]), encodeName(name)]);
const txtData = (...parts: string[]) => Buffer.concat(parts.map((part) => Buffer.from([part.length, ...Buffer.from(part)])));

interface ZoneRecord {
  type: number;
  ttl: number;
  data: Buffer;
}

const zone: Record<string, ZoneRecord[]> = {
  'mx.test MX': [
    { type: 15, ttl: 300, data: mxData(20, 'B.Mx.test') },
    { type: 15, ttl: 300, data: mxData(10, 'a.mx.test') },
  ],
  'null.test MX': [{ type: 15, ttl: 300, data: mxData(0, '') }],
  'host.test A': [
    { type: 1, ttl: 30, data: Buffer.from([192, 0, 2, 1]) },
    { type: 1, ttl: 20, data: Buffer.from([192, 0, 2, 2]) },
  ],
  'host.test AAAA': [{ type: 28, ttl: 30, data: Buffer.from('20010db8000000000000000000000001', 'hex') }],
  'host.test TXT': [{ type: 16, ttl: 30, data: txtData('v=spf1 ', '-all') }],
  'alias.test A': [
    { type: 5, ttl: 30, data: encodeName('host.test') },
    { type: 1, ttl: 30, data: Buffer.from([192, 0, 2, 1]) },
  ],
  '1.2.0.192.in-addr.arpa PTR': [{ type: 12, ttl: 30, data: encodeName('Host.test') }],
};

let socket: Socket;
let port = 0;
const questions: string[] = [];

function answer(packet: Buffer): Buffer | undefined {
  const labels: string[] = [];
  let at = 12;
  for (; packet[at] !== 0; at += packet[at]! + 1) labels.push(packet.toString('latin1', at + 1, at + 1 + packet[at]!));
  const name = labels.join('.').toLowerCase();
  const key = `${name} ${types[packet.readUInt16BE(at + 1)]}`;
  questions.push(key);
  if (name === 'silent.test') return undefined;
  const records = zone[key] ?? [];
  const exists = Object.keys(zone).some((known) => known.startsWith(`${name} `));
  const code = name === 'broken.test' ? 2 : name === 'refused.test' ? 5 : exists ? 0 : 3;
  const header = Buffer.alloc(12);
  packet.copy(header, 0, 0, 2);
  header.writeUInt16BE(0x8180 | code, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(records.length, 6);
  const last = records.findIndex((record) => record.type === 5) >= 0 ? encodeName('host.test') : encodeName(name);
  const body = records.map(({ type, ttl, data }) => {
    const fixed = Buffer.alloc(10);
    fixed.writeUInt16BE(type, 0);
    fixed.writeUInt16BE(1, 2);
    fixed.writeUInt32BE(ttl, 4);
    fixed.writeUInt16BE(data.length, 8);
    return Buffer.concat([type === 5 ? encodeName(name) : last, fixed, data]);
  });
  return Buffer.concat([header, packet.subarray(12, at + 5), ...body]);
}

beforeAll(async () => {
  socket = createSocket('udp4');
  socket.on('message', (packet, from) => {
    const reply = answer(packet);
    if (reply) socket.send(reply, from.port, from.address);
  });
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  port = (socket.address() as AddressInfo).port;
});

afterAll(() => {
  socket.close();
});

const resolver = (options: SystemResolverOptions = {}) =>
  new SystemResolver({ servers: [`127.0.0.1:${port}`], timeoutMs: 2000, tries: 2, ...options });

describe('SystemResolver', () => {
  it('answers every type', async () => {
    const dns = resolver();
    expect(await dns.mx('MX.test.')).toEqual({
      status: 'found',
      authenticated: false,
      ttlSeconds: 60,
      records: expect.arrayContaining([
        { preference: 20, exchange: 'b.mx.test' },
        { preference: 10, exchange: 'a.mx.test' },
      ]),
    });
    expect(await dns.mx('null.test')).toMatchObject({ records: [{ preference: 0, exchange: '' }] });
    expect(await dns.a('host.test')).toEqual({
      status: 'found',
      authenticated: false,
      ttlSeconds: 20,
      records: ['192.0.2.1', '192.0.2.2'],
    });
    expect(await dns.a('alias.test')).toMatchObject({ records: ['192.0.2.1'] });
    expect(await dns.aaaa('host.test')).toMatchObject({ records: ['2001:db8::1'] });
    expect(await dns.txt('host.test')).toMatchObject({ records: ['v=spf1 -all'] });
    expect(await dns.ptr('192.0.2.1')).toMatchObject({ records: ['host.test'] });
  });

  it('tells "there is none" from "I do not know"', async () => {
    const dns = resolver({ timeoutMs: 50, tries: 1 });
    expect(await dns.mx('host.test')).toEqual({ status: 'nodata', authenticated: false });
    expect(await dns.mx('absent.test')).toEqual({ status: 'nxdomain', authenticated: false });
    expect(await dns.mx('broken.test')).toEqual({ status: 'temporary', reason: 'ESERVFAIL' });
    expect(await dns.mx('refused.test')).toMatchObject({ status: 'temporary' });
    expect(await dns.mx('silent.test')).toEqual({ status: 'temporary', reason: 'ETIMEOUT' });
    expect(await dns.a(`${'x'.repeat(64)}.test`)).toMatchObject({ status: 'nxdomain' });
    expect(await dns.ptr('no address')).toMatchObject({ status: 'nxdomain' });
  });

  it('caches by TTL, asks once for many, never caches failures, and forgets the oldest', async () => {
    let nowMs = 0;
    const clock: Clock = { ...systemClock, monotonicMs: () => nowMs };
    const dns = resolver({ clock, maxCacheEntries: 2 });
    const count = (key: string) => questions.filter((question) => question === key).length;
    questions.length = 0;
    await Promise.all([dns.a('host.test'), dns.a('HOST.test'), dns.a('host.test.')]);
    await dns.a('host.test');
    expect(count('host.test A')).toBe(1);
    nowMs = 19_999;
    await dns.a('host.test');
    expect(count('host.test A')).toBe(1);
    nowMs = 20_001;
    await dns.a('host.test');
    expect(count('host.test A')).toBe(2);
    await dns.mx('broken.test');
    const tries = count('broken.test MX');
    await dns.mx('broken.test');
    expect(count('broken.test MX')).toBeGreaterThan(tries);
    await dns.mx('absent.test');
    await dns.txt('host.test');
    await dns.a('host.test');
    expect(count('host.test A')).toBe(3);
  });
});
