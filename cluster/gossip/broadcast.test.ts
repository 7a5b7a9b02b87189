import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { registry, systemClock } from '../../ops/telemetry/index.js';
import { VirtualTime } from '../testing/virtual-time.js';
import { Broadcast } from './broadcast.js';
import { gossipLimits } from './contract.js';
import { packEnvelope } from './envelope.js';
import type { Link } from './link.js';
import { Peers } from './peers.js';
import { shortcuts } from './shortcut.js';
import { closing, start } from './test-lifecycle.js';
import {
  Forwarder,
  fastClock,
  freePort,
  introduce,
  listeningLogger,
  meshed,
  publishesTo,
  type TestNode,
  until,
} from './test-nodes.js';
import { frame, packed, RawPeer } from './test-raw-peer.js';

async function startRaw(...args: Parameters<typeof RawPeer.start>): Promise<RawPeer> {
  const raw = await RawPeer.start(...args);
  closing.push(() => raw.stop());
  return raw;
}

async function count(metric: string, labels: string): Promise<number> {
  const text = await registry.getSingleMetricAsString(metric);
  return Number(new RegExp(`${labels}} (\\d+)`).exec(text)?.[1] ?? 0);
}

const publishedBy = (way: 'straight' | 'gossipsub' | 'again') => count('starling_gossip_published_total', `way="${way}"`);
const dropped = (topic: string, reason: string) =>
  count('starling_gossip_messages_dropped_total', `topic="${topic}",reason="${reason}"`);

/** Until what this node publishes goes straight to all. */
async function publishesStraight(node: TestNode): Promise<void> {
  await until('lanes', async () => {
    const before = await publishedBy('straight');
    node.gossip.publish('membership', 'is it open?');
    return (await publishedBy('straight')) > before;
  });
}

describe('what is published', () => {
  it('goes straight from its origin where all can be reached, and gossipsub has nothing to do with it', async () => {
    const listenersBefore = shortcuts.listeners;
    const nodes = await Promise.all([1, 2, 3].map((digit) => start(digit)));
    introduce(...nodes);
    await meshed(...nodes);
    for (const node of nodes) await publishesStraight(node);
    // To each of two others one for direct messages and one for published ones.
    expect(shortcuts.listeners).toBeGreaterThanOrEqual(listenersBefore + 3 * 2 * 2);
    const before = { straight: await publishedBy('straight'), gossipsub: await publishedBy('gossipsub') };
    for (let index = 0; index < 50; index++) for (const { gossip } of nodes) gossip.publish('changes', index);
    const all = Array.from({ length: 50 }, (_, index) => index);
    for (const node of nodes) {
      const others = nodes.filter((other) => other !== node);
      const from = (other: TestNode) => node.heard.filter((one) => one.channel === 'changes' && one.from === other.gossip.nodeId);
      await until('all', () => others.every((other) => from(other).length === 50));
      for (const other of others) {
        expect(from(other).map(({ body }) => body)).toEqual(all);
        expect(from(other).map(({ sequence }) => sequence)).toEqual(all.map((index) => index + 1));
      }
    }
    expect(await publishedBy('straight')).toBe(before.straight + 150);
    expect(await publishedBy('gossipsub')).toBe(before.gossipsub);
  });

  it('goes by gossipsub as long as somebody is there who knows nothing else, both ways', async () => {
    const [a, b, old] = [await start(1), await start(2), await startRaw(10)];
    for (const { gossip } of [a, b]) gossip.setMembers([a.member, b.member, old.member]);
    await until('connections', () => [a, b].every((node) => node.isConnectedTo(old.nodeId)) && a.isConnectedTo(b));
    const before = await publishedBy('straight');
    await until('the new ones’ words', async () => {
      a.gossip.publish('changes', 'from the new');
      await systemClock.sleep(50);
      return old.published.some((bytes) => Buffer.from(bytes).includes('from the new')) && b.bodies('changes').length > 0;
    });
    let sequence = 0;
    await until('the old one’s words', async () => {
      await old.publish('control', packed(1, old.nodeId, 1, ++sequence, 'from the old'));
      await systemClock.sleep(50);
      return [a, b].every((node) => node.bodies('control').includes('from the old'));
    });
    expect(await publishedBy('straight')).toBe(before);
    // It leaves, or comes back new.
    for (const { gossip } of [a, b]) gossip.setMembers([a.member, b.member]);
    await old.stop();
    await publishesStraight(a);
    await until('the rest', () => b.bodies('membership').includes('is it open?'));
  });

  it('reaches who is cut off from the origin by a third, and once', async () => {
    const dark = [{ host: '127.0.0.1', port: await freePort() }];
    const [a, b, third] = [await start(1, { advertise: dark }), await start(2), await start(3)];
    const forwarder = await Forwarder.start({ host: '127.0.0.1', port: b.port });
    closing.push(() => forwarder.stop());
    // Between the two there is only the way through the forwarder.
    a.gossip.setMembers([third.member, { ...b.member, addresses: [forwarder.address] }]);
    b.gossip.setMembers([third.member, a.member]);
    third.gossip.setMembers([a.member, b.member]);
    await meshed(a, b, third);
    await publishesStraight(a);
    forwarder.isSwallowing = true;
    // Some go straight to nowhere, others after that was noticed.
    let last = 0;
    const numbers = (node: TestNode) => node.bodies('changes') as number[];
    await until('a word by way of the third', async () => {
      a.gossip.publish('changes', ++last);
      await systemClock.sleep(100);
      return numbers(b).length > 0;
    });
    a.gossip.publish('changes', ++last);
    await until('the last one', () => numbers(b).includes(last) && numbers(third).includes(last));
    for (const node of [b, third]) expect(new Set(numbers(node)).size).toBe(numbers(node).length);
    expect(numbers(third).sort((x, y) => x - y)).toEqual(Array.from({ length: last }, (_, index) => index + 1));
    expect(b.heard.filter(({ channel }) => channel === 'changes').every(({ from }) => from === a.gossip.nodeId)).toBe(true);
    forwarder.isSwallowing = false;
    await meshed(a, b, third);
    await publishesStraight(a);
  });

  it('goes by gossipsub when the stream for it is lost, until there is another', async () => {
    const [node, raw] = [await start(1, { clock: fastClock(10) }), await startRaw(10, { hasLane: true })];
    node.gossip.setMembers([raw.member]);
    await until('the connection', () => node.isConnectedTo(raw.nodeId));
    await publishesStraight(node);
    const opened = raw.lanes.length;
    for (const lane of raw.lanes) lane.abort(new Error('lost'));
    const before = await publishedBy('gossipsub');
    await until('gossipsub', async () => {
      node.gossip.publish('changes', 'around');
      return (await publishedBy('gossipsub')) > before;
    });
    await until('its word', () => raw.published.some((bytes) => Buffer.from(bytes).includes('around')));
    await publishesStraight(node);
    expect(raw.lanes.length).toBeGreaterThan(opened);
    node.gossip.publish('changes', 'straight again');
    await until('a straight word', () => raw.straight.some((bytes) => bytes.includes('straight again')));
    expect(node.connections).toEqual([[raw.nodeId, true]]);
  });
});

describe('what went straight before a member was found to be out of reach', () => {
  const time = new VirtualTime();
  const clock = time.clock();

  /** Links that take everything; what is asked of them can be set. */
  function flock(...nodeIds: string[]) {
    const gossiped: number[] = [];
    const peers = new Peers(clock, () => undefined);
    const links = nodeIds.map((nodeId) => {
      const sent: Buffer[] = [];
      const link = {
        isReady: true,
        isUncertain: false,
        heardMs: clock.monotonicMs(),
        sent,
        lane: { isOpen: true, send: (bytes: Buffer) => sent.push(bytes) > 0 },
        isDoubtful: () => link.isUncertain,
      };
      peers.peer(`peer-${nodeId}`).links.add(link as unknown as Link);
      return link;
    });
    const members = nodeIds.map((nodeId) => ({ nodeId, incarnation: 1, peerId: `peer-${nodeId}`, addresses: [] }));
    peers.setMembers(members);
    const broadcast = new Broadcast({ peers, clock, gossip: (_, __, { body }) => void gossiped.push(body as number) });
    let sequence = 0;
    const publish = (count: number) => {
      for (let index = 0; index < count; index++) {
        const message = { from: 'origin', incarnation: 1, sequence: ++sequence, body: sequence };
        broadcast.publish('changes', packEnvelope(message), message);
      }
    };
    return { peers, members, links, broadcast, gossiped, publish, look: () => broadcast.look(clock.monotonicMs()) };
  }

  it('is published again by gossipsub, from when the peer was last heard, and what follows goes that way alone', async () => {
    const { links, gossiped, publish, look } = flock('b', 'c');
    look();
    publish(2);
    await time.advance(2_000);
    for (const link of links) link.heardMs = clock.monotonicMs();
    publish(3);
    await time.advance(1_500);
    publish(1);
    look();
    expect(gossiped).toEqual([]);
    expect(links.map(({ sent }) => sent.length)).toEqual([6, 6]);
    links[0]!.isUncertain = true;
    publish(1);
    expect(gossiped).toEqual([7]);
    look();
    expect(gossiped).toEqual([7, 3, 4, 5, 6]);
    look();
    expect(gossiped).toHaveLength(5);
    links[0]!.isUncertain = false;
    publish(1);
    expect(links.map(({ sent }) => sent.length)).toEqual([7, 7]);
    expect(gossiped).toHaveLength(5);
  });

  it('is published again seldom, in no greater number than is allowed, and not for who is no member any more', async () => {
    const { peers, members, links, gossiped, publish, look } = flock('b', 'c');
    const isUncertain = (value: boolean) => {
      links[0]!.isUncertain = value;
      look();
    };
    look();
    publish(600);
    isUncertain(true);
    expect(gossiped.length).toBeGreaterThanOrEqual(128);
    expect(gossiped.length).toBeLessThanOrEqual(256);
    expect(gossiped.at(-1)).toBe(600);
    isUncertain(false);
    gossiped.length = 0;
    publish(5);
    isUncertain(true);
    expect(gossiped).toEqual([]);
    isUncertain(false);
    await time.advance(10_000);
    for (const link of links) link.heardMs = clock.monotonicMs();
    publish(5);
    peers.setMembers(members.slice(1));
    isUncertain(true);
    expect(gossiped).toEqual([]);
    isUncertain(false);
    peers.setMembers(members);
    look();
    publish(1);
    // Its connection is closed.
    const peer = peers.byPeerId.get('peer-b')!;
    peer.links.clear();
    peer.current = undefined;
    peers.update('peer-b');
    look();
    expect(gossiped).toEqual([606, 607, 608, 609, 610, 611]);
  });
});

describe('a member that publishes straight what it must not', () => {
  async function withRawMember() {
    const { logger, lines } = listeningLogger();
    const [node, honest, raw] = [await start(1, { logger }), await start(2), await startRaw(10, { hasLane: true })];
    for (const one of [node, honest]) one.gossip.setMembers([node.member, honest.member, raw.member]);
    await until('connections', () => node.isConnectedTo(raw.nodeId) && node.isConnectedTo(honest));
    const connection = await raw.dial(node.gossip.identity.addresses[0]!);
    return { node, honest, raw, lines, lane: await raw.lane(connection) };
  }

  it.each([
    [
      'a frame that is too long',
      (): Buffer => frame(Buffer.alloc(8), 2, gossipLimits.maxMessageBytes + 2),
      'more than is allowed',
    ],
    ['an envelope that is none', (): Buffer => frame(randomBytes(40).fill(0xc1, 0, 1), 2), 'garbage'],
  ])('is cut off, and nobody else: %s', async (_, bytes, words) => {
    const { node, honest, raw, lines, lane } = await withRawMember();
    lane.send(bytes());
    await until('the cut', () => !node.isConnectedTo(raw.nodeId));
    expect(lines.map(({ msg }) => msg)).toEqual([`cut off a peer that sent ${words}`]);
    await publishesTo(honest, [node], 'carry on');
    expect(new Set(node.heard.map(({ from }) => from))).toEqual(new Set([honest.gossip.nodeId]));
  });

  it('speaks for nobody else, repeats nothing, and is passed over where it is of a later version', async () => {
    const { node, honest, raw, lane, lines } = await withRawMember();
    const before = { others: await dropped('changes', 'not-a-member'), unknown: await dropped('control', 'unknown-topic') };
    lane.send(frame(packed(1, honest.gossip.nodeId, 1, 1, 'as another'), 2));
    lane.send(frame(packed(1, 'f'.repeat(32), 1, 1, 'as a stranger'), 2));
    lane.send(frame(packed(1, raw.nodeId, 1, 1, 'of a new topic'), 77));
    lane.send(frame(packed(2, { all: 'is different' }), 2));
    for (const [incarnation, sequence] of [
      [2, 1],
      [2, 1],
      [1, 9],
      [2, 2],
    ] as const) {
      lane.send(frame(packed(1, raw.nodeId, incarnation, sequence, `${incarnation}/${sequence}`), 2));
      // The same by gossipsub is not heard twice either.
      await raw.publish('changes', packed(1, raw.nodeId, incarnation, sequence, `${incarnation}/${sequence}`));
    }
    lane.send(frame(packed(1, raw.nodeId, 2, 3, 'end'), 2));
    await until('the end', () => node.bodies('changes').includes('end'));
    await systemClock.sleep(200);
    expect(node.bodies('changes').sort()).toEqual(['2/1', '2/2', 'end']);
    expect(node.heard.every(({ from }) => from === raw.nodeId)).toBe(true);
    expect(await dropped('changes', 'not-a-member')).toBe(before.others + 2);
    expect(await dropped('control', 'unknown-topic')).toBe(before.unknown + 1);
    expect(node.isConnectedTo(raw.nodeId)).toBe(true);
    expect(lines).toEqual([]);
  });

  it('is not listened to beyond its rate, and before it is a member not at all', async () => {
    const [node, raw] = [await start(1), await startRaw(10, { hasLane: true })];
    const lane = await raw.lane(await raw.dial(node.gossip.identity.addresses[0]!));
    const before = { stranger: await dropped('changes', 'not-a-member'), rate: await dropped('changes', 'rate') };
    lane.send(frame(packed(1, raw.nodeId, 1, 1, 'let me in'), 2));
    await until('the drop', async () => (await dropped('changes', 'not-a-member')) > before.stranger);
    expect(node.heard).toEqual([]);
    node.gossip.setMembers([raw.member]);
    const messages = 8 * gossipLimits.maxMessagesPerSecond;
    lane.send(
      Buffer.concat(Array.from({ length: messages }, (_, index) => frame(packed(1, raw.nodeId, 1, index + 1, index), 2))),
    );
    await until(
      'all to be counted',
      async () => node.bodies('changes').length + (await dropped('changes', 'rate')) - before.rate === messages,
    );
    expect(await dropped('changes', 'rate')).toBeGreaterThan(before.rate);
    expect(node.bodies('changes').length).toBeGreaterThanOrEqual(5 * gossipLimits.maxMessagesPerSecond - 1);
  });
});
