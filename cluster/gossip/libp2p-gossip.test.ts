import { createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { registry, silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { gossipLimits } from './contract.js';
import { createGossip } from './index.js';
import { closing, start } from './test-lifecycle.js';
import {
  Forwarder,
  fastClock,
  freePort,
  introduce,
  meshed,
  nodeIdOf,
  publishesTo,
  secret,
  TestNode,
  until,
} from './test-nodes.js';

async function forward(port: number, at?: number): Promise<Forwarder> {
  const forwarder = await Forwarder.start({ host: '127.0.0.1', port }, at);
  closing.push(() => forwarder.stop());
  return forwarder;
}

async function closedFor(cause: string): Promise<number> {
  const text = await registry.getSingleMetricAsString('starling_gossip_connections_closed_total');
  return Number(new RegExp(`cause="${cause}"} (\\d+)`).exec(text)?.[1] ?? 0);
}

describe('a mesh', () => {
  it('of four hears everything once and in order; a fifth that comes late hears what is said from then on', async () => {
    const nodes = await Promise.all([1, 2, 3, 4].map((digit) => start(digit)));
    introduce(...nodes);
    await meshed(...nodes);
    for (const node of nodes)
      await publishesTo(
        node,
        nodes.filter((other) => other !== node),
        `hello ${node.gossip.nodeId}`,
      );
    for (let index = 0; index < 20; index++) nodes[0]!.gossip.publish('control', index);
    await until('20 messages', () => nodes.slice(1).every((node) => node.bodies('control').length === 20));
    for (const node of nodes.slice(1)) {
      expect(node.bodies('control').sort((a, b) => Number(a) - Number(b))).toEqual(
        Array.from({ length: 20 }, (_, index) => index),
      );
      expect(
        node.heard
          .filter(({ channel }) => channel === 'control')
          .map(({ sequence }) => sequence)
          .sort((a, b) => a - b)[19],
      ).toBe(20);
    }
    expect(nodes[0]!.bodies('control')).toEqual([]);

    const late = await start(5, { bootstrap: nodes[0]!.gossip.identity.addresses });
    // As the store would have it: those that were there learn of the newcomer when a stranger knocks.
    await until('a stranger', () => nodes[0]!.strangers > 0);
    introduce(...nodes, late);
    await meshed(...nodes, late);
    await publishesTo(late, nodes, 'here I am');
    await publishesTo(nodes[3]!, [late], 'welcome');
    expect(
      nodes.every(
        (node) => node.connections.filter(([id, isConnected]) => id === late.gossip.nodeId && isConnected).length === 1,
      ),
    ).toBe(true);
  });

  it('sends direct messages in order, to one member alone', async () => {
    const [a, b, c] = await Promise.all([start(1), start(2), start(3)]);
    introduce(a!, b!, c!);
    await meshed(a!, b!, c!);
    for (let index = 0; index < 500; index++) expect(a!.gossip.send(b!.gossip.nodeId, { index })).toBe(true);
    await until('500 messages', () => b!.bodies('direct').length === 500);
    expect(b!.bodies('direct')).toEqual(Array.from({ length: 500 }, (_, index) => ({ index })));
    expect(b!.heard[0]).toMatchObject({ from: a!.gossip.nodeId, incarnation: 1, sequence: 1 });
    expect(c!.heard).toEqual([]);
    expect(a!.gossip.send(nodeIdOf(9), 'nobody')).toBe(false);
  });

  it('tells what it knows of its peers, also in metrics, and forgets those that leave', async () => {
    const [a, b] = await Promise.all([start(1), start(2)]);
    introduce(a!, b!);
    await meshed(a!, b!);
    await until('a ping', () => a!.gossip.peers()[0]?.roundTripMs !== undefined);
    expect(a!.gossip.peers()).toMatchObject([{ nodeId: b!.gossip.nodeId, isConnected: true }]);
    expect(await registry.getSingleMetricAsString('starling_gossip_round_trip_seconds')).toContain('peer="22222222"');
    expect(await registry.getSingleMetricAsString('starling_gossip_peers')).toContain('state="connected"} 1');
    a!.gossip.setMembers([]);
    expect(a!.gossip.connected()).toEqual([]);
    expect(a!.connections).toEqual([
      [b!.gossip.nodeId, true],
      [b!.gossip.nodeId, false],
    ]);
    expect(await registry.getSingleMetricAsString('starling_gossip_round_trip_seconds')).not.toContain('peer="22222222"');
  });

  it('raises incarnations in the middle, without a gap in the numbers', async () => {
    const [a, b] = await Promise.all([start(1), start(2)]);
    introduce(a!, b!);
    await meshed(a!, b!);
    a!.gossip.send(b!.gossip.nodeId, 'before');
    a!.gossip.setIncarnation(2);
    a!.gossip.send(b!.gossip.nodeId, 'after');
    await until('both', () => b!.heard.length === 2);
    expect(b!.heard.map(({ incarnation, sequence }) => [incarnation, sequence])).toEqual([
      [1, 1],
      [2, 2],
    ]);
  });

  it('stands firm when several dials run at once, both ways', async () => {
    const [a, b] = await Promise.all([start(1), start(2)]);
    // Each has the other among its bootstrap addresses as well: several dials run at once.
    const c = await start(3, { bootstrap: [...a!.gossip.identity.addresses, ...b!.gossip.identity.addresses] });
    introduce(a!, b!, c);
    await meshed(a!, b!, c);
    await publishesTo(c, [a!, b!], 'from c');
    await publishesTo(a!, [b!, c], 'from a');
    for (const node of [a!, b!, c]) expect(node.connections.every(([, isConnected]) => isConnected)).toBe(true);
  });

  it('closes a second connection that nobody needs, without anybody noticing', async () => {
    const clock = fastClock(3);
    const late = await freePort();
    // The second way is there only when the first has long been taken.
    const a = await start(1, { clock, bootstrap: [{ host: '127.0.0.1', port: late }] });
    const b = await start(2, { clock });
    introduce(a, b);
    await meshed(a, b);
    await Promise.all([publishesTo(a, [b], 'first'), publishesTo(b, [a], 'first as well')]);
    const before = await closedFor('duplicate');
    await forward(b.port, late);
    await until('the second to be closed', async () => (await closedFor('duplicate')) > before);
    // Both sides are told of the end of the connection that they closed or lost; neither was without one.
    await systemClock.sleep(500);
    for (const node of [a, b]) expect(node.connections.map(([, isConnected]) => isConnected)).toEqual([true]);
    await Promise.all([publishesTo(a, [b], 'still'), publishesTo(b, [a], 'still here')]);
  });
});

describe('finding each other', () => {
  it('goes on until a bootstrap address that was down is up, though one’s own address is among them', async () => {
    const [ownPort, otherPort] = [await freePort(), await freePort()];
    const bootstrap = [ownPort, otherPort].map((port) => ({ host: 'localhost', port }));
    const a = await start(1, { bootstrap, listen: [{ host: '127.0.0.1', port: ownPort }], clock: fastClock(3) });
    a.gossip.publish('changes', 'alone');
    await systemClock.sleep(1_000);
    const b = await start(2, { listen: [{ host: '127.0.0.1', port: otherPort }] });
    b.gossip.onStranger(() => b.gossip.setMembers([a.member]));
    a.gossip.onStranger(() => a.gossip.setMembers([b.member]));
    await meshed(a, b);
    await publishesTo(a, [b], 'not alone');
    expect(b.bodies('changes')).not.toContain('alone');
  });

  it('uses the advertised address, and the new one when it changes', async () => {
    const dark = [{ host: '127.0.0.1', port: await freePort() }];
    const a = await start(1, { advertise: dark });
    const b = await start(2, { advertise: [] });
    const first = await forward(b.port);
    // Only a can dial, and only through the forwarder.
    const at = (forwarder: Forwarder) => ({ ...b.member, addresses: [...dark, forwarder.address] });
    b.gossip.setMembers([a.member]);
    a.gossip.setMembers([at(first)]);
    await meshed(a, b);
    first.stop();
    await until('the loss', () => !a.isConnectedTo(b));
    const second = await forward(b.port);
    a.gossip.setMembers([at(second)]);
    await meshed(a, b);
    expect(a.connections).toEqual([
      [b.gossip.nodeId, true],
      [b.gossip.nodeId, false],
      [b.gossip.nodeId, true],
    ]);
    await publishesTo(a, [b], 'by another way');
  });

  it('gives up a connection that carries nothing any more, and makes it anew', async () => {
    const clock = fastClock(3);
    const a = await start(1, { clock, advertise: [{ host: '127.0.0.1', port: await freePort() }] });
    const b = await start(2, { clock });
    const forwarder = await forward(b.port);
    b.gossip.setMembers([a.member]);
    a.gossip.setMembers([{ ...b.member, addresses: [forwarder.address] }]);
    await meshed(a, b);
    forwarder.isSwallowing = true;
    await until('both to notice', () => !a.isConnectedTo(b) && !b.isConnectedTo(a));
    expect(a.gossip.send(b.gossip.nodeId, 'lost')).toBe(false);
    forwarder.isSwallowing = false;
    await meshed(a, b);
    await publishesTo(a, [b], 'healed');
    await publishesTo(b, [a], 'healed here too');
  });

  it('carries messages past a broken link', async () => {
    const dark = async () => [{ host: '127.0.0.1', port: await freePort() }];
    const [a, b, between] = [
      await start(1, { advertise: await dark() }),
      await start(2, { advertise: await dark() }),
      await start(3),
    ];
    introduce(a, b, between);
    await until('both to reach the third', () => between.gossip.connected().length === 2);
    expect(a.isConnectedTo(b)).toBe(false);
    await publishesTo(a, [b], 'around');
    expect(b.heard.every(({ from }) => from === a.gossip.nodeId)).toBe(true);
  });
});

describe('who is not a member', () => {
  it('hears nothing that counts, is told of once, and is hung up on after a while', async () => {
    const a = await start(1, { clock: fastClock(10) });
    const stranger = await start(2);
    stranger.gossip.setMembers([a.member]);
    await until('the knock', () => a.strangers > 0);
    await until('the connection', () => stranger.isConnectedTo(a));
    stranger.gossip.send(a.gossip.nodeId, 'let me in');
    stranger.gossip.publish('changes', 'let me in');
    await until('the hang-up', () => stranger.connections.some(([, isConnected]) => !isConnected));
    expect(a.heard).toEqual([]);
    expect(a.gossip.connected()).toEqual([]);
    // It is welcome as soon as it is a member.
    a.gossip.setMembers([stranger.member]);
    await meshed(a, stranger);
    await publishesTo(stranger, [a], 'inside');
  });
});

describe('alone, at the start and at the end', () => {
  it('publishes into the void, drops what is too large or can’t be packed, and throws nothing', async () => {
    const a = await start(1);
    a.gossip.publish('changes', 'anybody?');
    a.gossip.publish('changes', Buffer.alloc(gossipLimits.maxMessageBytes));
    a.gossip.publish('changes', {
      toJSON: 1,
      deep: new Proxy(
        {},
        {
          ownKeys: () => {
            throw new Error('no');
          },
        },
      ),
    });
    expect(await registry.getSingleMetricAsString('starling_gossip_messages_dropped_total')).toMatch(
      /topic="changes",reason="too-large"} 1[\s\S]*topic="changes",reason="unpackable"} 1/,
    );
  });

  it('says in a sentence that the port is taken, and can be stopped then', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await until('the server', () => server.listening);
    const { port } = server.address() as { port: number };
    const gossip = createGossip({
      nodeId: nodeIdOf(1),
      incarnation: 1,
      secret,
      listen: [{ host: '127.0.0.1', port }],
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
    });
    await expect(gossip.start()).rejects.toThrow(`can't listen for gossip on 127.0.0.1:${port}: the port is taken`);
    await gossip.stop();
    server.close();
    await expect(TestNode.start(1, { listen: [{ host: 'no.such.host.invalid', port: 0 }] })).rejects.toThrow(
      "can't listen for gossip on no.such.host.invalid:0: there is no address behind this name",
    );
  });

  it('that is stopped while it starts listens no more when that is over', async () => {
    for (const delayMs of [0, 1, 5, 20, 50]) {
      const port = await freePort();
      const gossip = createGossip({
        nodeId: nodeIdOf(1),
        incarnation: 1,
        secret,
        listen: [{ host: '127.0.0.1', port }],
        clock: systemClock,
        random: systemRandom,
        logger: silentLogger,
      });
      const started = gossip.start().then(
        () => true,
        (error: Error) => error.message,
      );
      if (delayMs > 0) await systemClock.sleep(delayMs);
      await gossip.stop();
      // It may just have been fast enough.
      expect([true, 'gossip was stopped before it had started']).toContain(await started);
      const server = createServer().listen(port, '127.0.0.1');
      await until('the port to be free', () => server.listening);
      server.close();
    }
  });

  it('hangs up on everybody when it stops, and can be told so twice', async () => {
    const [a, b] = await Promise.all([start(1), start(2)]);
    introduce(a!, b!);
    await meshed(a!, b!);
    await Promise.all([a!.gossip.stop(), a!.gossip.stop()]);
    await until('the loss', () => !b!.isConnectedTo(a!));
    a!.gossip.publish('changes', 'too late');
    expect(a!.gossip.send(b!.gossip.nodeId, 'too late')).toBe(false);
  });
});
