import { createHash, randomBytes } from 'node:crypto';
import './with-resolvers.js';
import { noise } from '@chainsafe/libp2p-noise';
import { yamux } from '@chainsafe/libp2p-yamux';
import { preSharedKey } from '@libp2p/pnet';
import { tcp } from '@libp2p/tcp';
import { createLibp2p } from 'libp2p';
import { afterEach, describe, expect, it } from 'vitest';
import type { Stream } from './libp2p-types.js';
import { thriftyYamux } from './muxer.js';
import { shortcuts } from './shortcut.js';
import { until } from './test-nodes.js';

const protocol = '/test/1';
const psk = Buffer.from(`/key/swarm/psk/1.0.0/\n/base16/\n${'5a'.repeat(32)}`, 'latin1');

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** A node of the same layers, with the shortcut through them or as libp2p makes them. */
async function start(isShort: boolean) {
  const host = await createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [isShort ? thriftyYamux({ enableKeepAlive: false }) : yamux({ enableKeepAlive: false })],
    connectionProtector: preSharedKey({ psk }),
    connectionMonitor: { enabled: false },
  });
  closing.push(() => host.stop());
  return host;
}

/** Counts and digests what comes on a stream. */
function digesting(stream: Stream) {
  const hash = createHash('sha256');
  const state = { bytes: 0, digest: () => hash.copy().digest('hex') };
  stream.addEventListener('message', ({ data }) => {
    const bytes = data.subarray();
    state.bytes += bytes.length;
    hash.update(bytes);
  });
  return state;
}

describe.each([
  ['both sides', true, true, 2],
  ['the side that dials', true, false, 1],
  ['the side that is dialed', false, true, 1],
] as const)('with the shortcut on %s', (_, isDialerShort, isDialedShort, expected) => {
  async function connected() {
    const before = shortcuts.connections;
    const [dialer, dialed] = [await start(isDialerShort), await start(isDialedShort)];
    const inbound: Stream[] = [];
    await dialed.handle(protocol, (stream) => void inbound.push(stream));
    await dialer.handle(protocol, (stream) => void inbound.push(stream));
    const connection = await dialer.dial(dialed.getMultiaddrs());
    await until('the other side', () => dialed.getConnections().length === 1);
    // Where this fails, a new version of libp2p is not made as the shortcut expects it.
    expect(shortcuts.connections).toBe(before + expected);
    return { connection, back: dialed.getConnections()[0]!, inbound };
  }

  it('bytes arrive as they were sent, in pieces of all sizes and more than any window, both ways at once', async () => {
    const { connection, back, inbound } = await connected();
    const pairs: { sent: string; bytes: number; got: ReturnType<typeof digesting> }[] = [];
    for (const from of [connection, back, connection]) {
      const known = inbound.length;
      const stream = await from.newStream([protocol]);
      await until('the stream', () => inbound.length > known);
      const got = digesting(inbound.at(-1)!);
      const hash = createHash('sha256');
      let bytes = 0;
      for (const size of [
        1, 11, 0, 12, 13, 250, 1_183, 1_184, 1_200, 16_384, 65_507, 65_519, 65_520, 262_131, 262_144, 700_000, 3,
      ]) {
        const piece = randomBytes(size);
        hash.update(piece);
        bytes += size;
        stream.send(piece);
      }
      pairs.push({ sent: hash.digest('hex'), bytes, got });
    }
    for (const { sent, bytes, got } of pairs) {
      await until('all bytes', () => got.bytes === bytes);
      expect(got.digest()).toBe(sent);
    }
  });

  it('many small messages arrive in order, also from a side that is paused and goes on', async () => {
    const { connection, inbound } = await connected();
    const stream = await connection.newStream([protocol]);
    await until('the stream', () => inbound.length === 1);
    const got = digesting(inbound[0]!);
    const hash = createHash('sha256');
    let bytes = 0;
    for (let index = 0; index < 3_000; index++) {
      const piece = Buffer.from(`${index},`.repeat(1 + (index % 40)));
      hash.update(piece);
      bytes += piece.length;
      stream.send(piece);
      if (index === 1_000) inbound[0]!.pause();
      if (index % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    inbound[0]!.resume();
    await until('all bytes', () => got.bytes === bytes);
    expect(got.digest()).toBe(hash.digest('hex'));
  });

  it('nonsense in any layer ends the connection, and a stream that is closed is closed', async () => {
    for (const layer of ['key', 'noise', 'yamux'] as const) {
      const { connection, back, inbound } = await connected();
      const stream = await connection.newStream([protocol]);
      await until('the stream', () => inbound.length === 1);
      const got = digesting(inbound[0]!);
      stream.send(Buffer.from('before'));
      await until('a word', () => got.bytes === 6);
      const inside = connection as unknown as { muxer: { maConn: Sending & { stream: Sending & { maConn: Sending } } } };
      const noiseLayer = inside.muxer.maConn;
      const at = { key: noiseLayer.stream.maConn, noise: noiseLayer.stream, yamux: noiseLayer }[layer];
      at.send(randomBytes(70_000));
      await until(`the end after nonsense in ${layer}`, () => back.status !== 'open');
      expect(got.bytes).toBe(6);
    }
    const { connection, inbound } = await connected();
    const stream = await connection.newStream([protocol]);
    await until('the stream', () => inbound.length === 1);
    const got = digesting(inbound[0]!);
    stream.send(Buffer.from('last words'));
    await stream.close();
    await until('them', () => got.bytes === 10 && inbound[0]!.remoteWriteStatus === 'closed');
    expect(() => stream.send(Buffer.from('too late'))).toThrow();
  });
});

interface Sending {
  send(bytes: Uint8Array): unknown;
}
