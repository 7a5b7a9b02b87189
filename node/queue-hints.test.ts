import { describe, expect, it } from 'vitest';
import { SimulatedNetwork } from '../cluster/testing/network.js';
import { VirtualTime } from '../cluster/testing/virtual-time.js';
import { systemRandom } from '../ops/telemetry/index.js';
import { shareQueueHints } from './queue-hints.js';

/** Two nodes that hear each other; `due` says that something has become due on the first. */
async function pair() {
  const time = new VirtualTime();
  const network = new SimulatedNetwork({ random: systemRandom });
  const clocks = [time.clock(), time.clock()] as const;
  const [one, other] = [network.node('one', clocks[0]), network.node('other', clocks[1])];
  const identity = (gossip: typeof one) => ({ ...gossip.identity, nodeId: gossip.nodeId, incarnation: 1 });
  for (const [gossip, peer] of [
    [one, other],
    [other, one],
  ] as const) {
    await gossip.start();
    gossip.setMembers([identity(peer)]);
  }
  let due = () => {};
  const looks: Record<string, number> = { one: 0, other: 0 };
  const stops = [one, other].map((gossip, index) =>
    shareQueueHints({
      gossip,
      clock: clocks[index]!,
      queue: {
        onDue(listener) {
          if (gossip === one) due = listener;
          return () => {
            if (gossip === one) due = () => {};
          };
        },
      },
      onHint: () => looks[gossip.nodeId]!++,
    }),
  );
  await time.advance(10);
  return { time, one, other, looks, due: () => due(), stop: () => void stops.map((stop) => stop()) };
}

describe('work that becomes due', () => {
  it('makes the other nodes look at once, and not the one that said so', async () => {
    const { time, looks, due } = await pair();
    due();
    await time.advance(10);
    expect(looks).toEqual({ one: 0, other: 1 });
  });

  it('is told seldom, and never forgotten', async () => {
    const { time, looks, due } = await pair();
    for (let index = 0; index < 1_000; index++) {
      due();
      await time.advance(1);
    }
    const during = looks['other']!;
    expect(during).toBeGreaterThanOrEqual(3);
    expect(during).toBeLessThanOrEqual(6);
    await time.advance(1_000);
    expect(looks['other']).toBeGreaterThan(during - 1);
    expect(looks['other']).toBeLessThanOrEqual(during + 1);
  });

  it('is told the more seldom the more nodes there are', async () => {
    const time = new VirtualTime();
    let words = 0;
    let due = () => {};
    const stop = shareQueueHints({
      gossip: {
        publish: () => void words++,
        subscribe: () => () => {},
        connected: () => Array.from({ length: 49 }, (_, index) => `node${index}`),
      },
      clock: time.clock(),
      queue: {
        onDue(listener) {
          due = listener;
          return () => {};
        },
      },
      onHint: () => {},
    });
    for (let at = 0; at < 10_000; at += 50) {
      due();
      await time.advance(50);
    }
    expect(words).toBeGreaterThanOrEqual(4);
    expect(words).toBeLessThanOrEqual(6);
    stop();
  });

  it('is heard among other words, whatever they are', async () => {
    const { time, one, looks, due, stop } = await pair();
    for (const body of [undefined, null, 7, 'queue-due', [], { kind: 'drain' }]) one.publish('control', body);
    await time.advance(10);
    expect(looks['other']).toBe(0);
    stop();
    due();
    one.publish('control', { kind: 'queue-due' });
    await time.advance(1_000);
    expect(looks['other']).toBe(0);
  });
});
