import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { registry, systemClock } from '../../ops/telemetry/index.js';
import { gossipLimits } from './contract.js';
import type { Connection } from './libp2p-types.js';
import { closing, start } from './test-lifecycle.js';
import { introduce, listeningLogger, meshed, otherSecret, publishesTo, type TestNode, until } from './test-nodes.js';
import { frame, packed, RawPeer } from './test-raw-peer.js';

/** A node with a raw peer among its members, and an honest one. */
async function withRawMember(): Promise<{ node: TestNode; honest: TestNode; raw: RawPeer; lines: { msg: string }[] }> {
  const { logger, lines } = listeningLogger();
  const [node, honest, raw] = await Promise.all([start(1, { logger }), start(2), RawPeer.start(10)]);
  closing.push(() => raw!.stop());
  for (const one of [node, honest]) one.gossip.setMembers([node.member, honest.member, raw.member]);
  await until('connections', () => node.isConnectedTo(raw.nodeId) && node.isConnectedTo(honest));
  return { node, honest, raw, lines };
}

/** A stream for direct messages, on a connection of its own. Where many processes want the machine, a second connection may be closed again as one too many before it is used. */
const directStream = async (raw: RawPeer, node: TestNode): ReturnType<RawPeer['directStream']> => {
  for (let attempt = 1; ; attempt++) {
    try {
      return await raw.directStream(await raw.dial(node.gossip.identity.addresses[0]!));
    } catch (error) {
      if (attempt === 10) throw error;
    }
  }
};

async function dropped(topic: string, reason: string): Promise<number> {
  const text = await registry.getSingleMetricAsString('starling_gossip_messages_dropped_total');
  return Number(new RegExp(`topic="${topic}",reason="${reason}"} (\\d+)`).exec(text)?.[1] ?? 0);
}

describe('a member that sends what it must not', () => {
  it.each([
    [
      'a frame that says it is too long',
      (): Buffer => frame(Buffer.alloc(8), 1, gossipLimits.maxMessageBytes + 2),
      'more than is allowed',
    ],
    ['a frame without a length', (): Buffer => Buffer.alloc(16), 'more than is allowed'],
    ['an envelope that is none', (): Buffer => frame(randomBytes(40).fill(0xc1, 0, 1)), 'garbage'],
    ['an envelope without an origin', (): Buffer => frame(packed(1, '', 1, 1, 'x')), 'garbage'],
    ['a ping without a token', (): Buffer => frame(Buffer.alloc(3), 2), 'garbage'],
  ])('is cut off, and nobody else: %s', async (_, bytes, words) => {
    const { node, honest, raw, lines } = await withRawMember();
    const stream = await directStream(raw, node);
    stream.send(bytes());
    await until('the cut', () => !node.isConnectedTo(raw.nodeId));
    expect(lines.map(({ msg }) => msg)).toEqual([`cut off a peer that sent ${words}`]);
    // It isn't taken back at once.
    await raw.dial(node.gossip.identity.addresses[0]!).catch(() => undefined);
    expect(node.isConnectedTo(raw.nodeId)).toBe(false);
    honest.gossip.send(node.gossip.nodeId, 'still here');
    await until('the honest one', () => node.bodies('direct').includes('still here'));
    expect(node.heard.every(({ from }) => from === honest.gossip.nodeId)).toBe(true);
  });

  it('is cut off for garbage that it publishes, which goes no further', async () => {
    const { node, honest, raw } = await withRawMember();
    await publishesTo(honest, [node], 'hello');
    await until('its gossip stream', async () => {
      await raw.publish('changes', randomBytes(30).fill(0xc1, 0, 1));
      await systemClock.sleep(50);
      return !node.isConnectedTo(raw.nodeId);
    });
    expect(await dropped('changes', 'garbage')).toBeGreaterThan(0);
    await publishesTo(node, [honest], 'carry on');
    expect(new Set(honest.heard.map(({ from }) => from))).toEqual(new Set([node.gossip.nodeId]));
  });

  it('may speak for others only in what is published, and never for who is no member', async () => {
    const { node, honest, raw } = await withRawMember();
    const stream = await directStream(raw, node);
    stream.send(frame(packed(1, honest.gossip.nodeId, 1, 1, 'as another')));
    stream.send(frame(packed(1, 'f'.repeat(32), 1, 1, 'as a stranger')));
    stream.send(frame(packed(1, raw.nodeId, 1, 1, 'as itself')));
    await until('its own word', () => node.bodies('direct').length > 0);
    await until('a publication', async () => {
      await raw.publish('changes', packed(1, 'f'.repeat(32), 1, 1, 'as a stranger'));
      await raw.publish('changes', packed(1, raw.nodeId, 1, 1, 'as itself'));
      await systemClock.sleep(50);
      return node.bodies('changes').length > 0;
    });
    expect(node.bodies('direct')).toEqual(['as itself']);
    expect(node.bodies('changes')).toEqual(['as itself']);
    expect(node.isConnectedTo(raw.nodeId)).toBe(true);
  });

  it('is heard once when it repeats itself, and not at all with what was said in an earlier incarnation', async () => {
    const { node, raw } = await withRawMember();
    const stream = await directStream(raw, node);
    await until('a publication', async () => {
      await raw.publish('control', packed(1, raw.nodeId, 2, 1, 'first'));
      await systemClock.sleep(50);
      return node.bodies('control').length > 0;
    });
    const before = await dropped('direct', 'stale');
    for (const [incarnation, sequence] of [
      [1, 7],
      [2, 1],
      [2, 1],
      [2, 2],
      [2, 1],
      [1, 8],
      [3, 1],
      [2, 3],
    ] as const) {
      stream.send(frame(packed(1, raw.nodeId, incarnation, sequence, `${incarnation}/${sequence}`)));
      await raw.publish('control', packed(1, raw.nodeId, incarnation, sequence + 1, `${incarnation}/${sequence}`));
    }
    stream.send(frame(packed(1, raw.nodeId, 3, 99, 'end')));
    await raw.publish('control', packed(1, raw.nodeId, 3, 99, 'end'));
    await until('the end', () => node.bodies('direct').includes('end') && node.bodies('control').includes('end'));
    // By either way, whichever of the two came first.
    const told = [...node.bodies('direct'), ...node.bodies('control')];
    expect(told.filter((body) => String(body).startsWith('1/'))).toEqual([]);
    expect(new Set(node.bodies('direct')).size).toBe(node.bodies('direct').length);
    expect(new Set(node.bodies('control')).size).toBe(node.bodies('control').length);
    expect(told.filter((body) => body === '2/3')).toEqual([]);
    expect(await dropped('direct', 'stale')).toBeGreaterThan(before);
  });

  it('of a later version stays connected; what can’t be read is passed over', async () => {
    const { node, raw, lines } = await withRawMember();
    const stream = await directStream(raw, node);
    const before = await dropped('direct', 'newer');
    stream.send(frame(packed(2, { all: 'is different' })));
    stream.send(frame(Buffer.from('a new kind'), 77));
    stream.send(frame(packed(1, raw.nodeId, 1, 1, { kind: 'readable' }, 'and an addition')));
    await until('what can be read', () => node.bodies('direct').length === 1);
    expect(await dropped('direct', 'newer')).toBe(before + 1);
    expect(node.isConnectedTo(raw.nodeId)).toBe(true);
    expect(lines).toEqual([]);
  });

  it('is not listened to beyond its rate', async () => {
    const { node, raw } = await withRawMember();
    const stream = await directStream(raw, node);
    const before = await dropped('direct', 'rate');
    // So many that even a slow machine takes them faster than the rate allows.
    const count = 20 * gossipLimits.maxMessagesPerSecond;
    const frames = Array.from({ length: count }, (_, index) => frame(packed(1, raw.nodeId, 1, index + 1, index)));
    stream.send(Buffer.concat(frames));
    await until(
      'all to be counted',
      async () => node.bodies('direct').length + (await dropped('direct', 'rate')) - before === count,
    );
    expect(await dropped('direct', 'rate')).toBeGreaterThan(before);
    expect(node.bodies('direct').length).toBeGreaterThanOrEqual(5 * gossipLimits.maxMessagesPerSecond);
  });

  // Again, should the second connection be closed as one too many before the first is lost.
  it('gets its gossip streams anew when it loses the connection that carried them and has another', { retry: 4 }, async () => {
    // Nobody else is there who would forward what is published.
    const [node, raw] = await Promise.all([start(1), RawPeer.start(10)]);
    closing.push(() => raw.stop());
    node.gossip.setMembers([raw.member]);
    await until('the connection', () => node.isConnectedTo(raw.nodeId));
    const address = node.gossip.identity.addresses[0]!;
    const isReached = async (body: string) => {
      node.gossip.publish('changes', body);
      await systemClock.sleep(50);
      return raw.published.some((bytes) => Buffer.from(bytes).includes(body));
    };
    await until('a first message', () => isReached('over the first'));
    const [first] = raw.host.getConnections();
    await raw.dial(address);
    await systemClock.sleep(300);
    first!.abort(new Error('lost'));
    await until('a message over the second', () => isReached('over the second'));
    expect(node.connections.filter(([id]) => id === raw.nodeId)).toEqual([[raw.nodeId, true]]);
  });
});

describe('a member whose connections break the rules of the layers below', () => {
  it('ends nothing but these connections', async () => {
    const { node, honest, raw } = await withRawMember();
    const inside = (connection: Connection) =>
      connection as unknown as {
        maConn: { send(bytes: Uint8Array): void };
        muxer: { maConn: { send(bytes: Uint8Array): void } };
      };
    const breaks: ((connection: Connection) => unknown)[] = [
      (connection) => inside(connection).muxer.maConn.send(randomBytes(5_000)),
      (connection) => inside(connection).maConn.send(randomBytes(5_000)),
      (connection) => Promise.allSettled(Array.from({ length: 100 }, (_, index) => connection.newStream([`/nonsense/${index}`]))),
    ];
    for (const breakIt of [...breaks, ...breaks, ...breaks, ...breaks]) {
      const connection = await raw.dial(node.gossip.identity.addresses[0]!);
      await systemClock.sleep(100);
      await breakIt(connection);
      await systemClock.sleep(200);
    }
    expect(node.isConnectedTo(honest)).toBe(true);
    await publishesTo(honest, [node], 'carry on');
  });
});

describe('who does not know the key', () => {
  it('never connects, in either direction, and is told of once with its address', async () => {
    const { logger, lines } = listeningLogger();
    const a = await start(1, { logger });
    const b = await start(2, { secret: otherSecret, bootstrap: a.gossip.identity.addresses });
    // Two clusters that even think of each other as members.
    introduce(a, b);
    await until('a refusal', () => lines.length >= 2);
    await systemClock.sleep(1_500);
    expect(new Set(lines.map(({ msg }) => msg))).toEqual(
      new Set([
        "refused a gossip connection from somebody who does not know this cluster's key",
        "an address for gossip is answered by somebody who does not know this cluster's key",
      ]),
    );
    expect(lines).toHaveLength(2);
    expect(lines.every(({ remote }) => remote?.startsWith('/ip4/127.0.0.1/tcp/'))).toBe(true);
    expect([a, b].map(({ gossip }) => gossip.connected())).toEqual([[], []]);
    expect([a.strangers, b.strangers]).toEqual([0, 0]);
  });

  it('can scan, babble, or hold its breath, and the cluster goes on', async () => {
    const [a, b] = await Promise.all([start(1), start(2)]);
    introduce(a!, b!);
    await meshed(a!, b!);
    const sockets: Socket[] = [];
    const call = async (bytes?: Buffer) => {
      const socket = connect(a!.port, '127.0.0.1');
      socket.on('error', () => undefined);
      // Whoever doesn't read what has come sees no end either.
      socket.resume();
      sockets.push(socket);
      await once(socket, 'connect').catch(() => undefined);
      if (bytes) socket.write(bytes);
      return socket;
    };
    closing.push(() => {
      for (const socket of sockets) socket.destroy();
    });
    for (let index = 0; index < 5; index++) (await call()).destroy();
    await call(Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'));
    await call(Buffer.concat([Buffer.from('160301020001000001fc0303', 'hex'), randomBytes(500)]));
    await call(randomBytes(200_000));
    for (let index = 0; index < 200; index++) await call(index % 2 ? Buffer.from('x') : undefined);
    // All are hung up on: some at once, since too many are there, the others when they have not come to the point.
    await until('the hang-up', () => sockets.every(({ destroyed, readyState }) => destroyed || readyState !== 'open'));
    expect(a!.isConnectedTo(b!)).toBe(true);
    await publishesTo(a!, [b!], 'undisturbed');
    const c = await start(3, { bootstrap: a!.gossip.identity.addresses });
    introduce(a!, b!, c);
    await meshed(a!, b!, c);
  });
});
