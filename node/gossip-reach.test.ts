import { describe, expect, it } from 'vitest';
import type { NodeView } from '../cluster/membership/index.js';
import { VirtualTime } from '../cluster/testing/virtual-time.js';
import type { Logger } from '../ops/telemetry/index.js';
import { isLoopback, watchGossipReach } from './gossip-reach.js';

function bench(own: string[]) {
  const time = new VirtualTime();
  const warnings: { addresses: string[]; hostnames: string[] }[] = [];
  const connected: string[] = [];
  const others: NodeView[] = [];
  let changed = () => {};
  const stop = watchGossipReach({
    gossip: {
      identity: { peerId: 'p', addresses: own.map((host) => ({ host, port: 2946 })) },
      connected: () => connected,
    },
    membership: {
      nodes: () => others,
      onChange: (listener) => {
        changed = listener;
        return () => {};
      },
    },
    hostname: 'mx1.example.test',
    clock: time.clock(),
    logger: { warn: (facts: (typeof warnings)[number]) => void warnings.push(facts) } as unknown as Logger,
  });
  const join = (nodeId: string, hostname: string, isGossiping = true) => {
    const gossip = isGossiping ? { peerId: nodeId, addresses: [] } : undefined;
    others.push({ nodeId, isSelf: false, verdict: 'alive', row: { hostname, gossip } } as unknown as NodeView);
    changed();
  };
  return { time, warnings, connected, join, stop };
}

describe('gossip on the loopback address', () => {
  it('is warned of once, when nodes of other machines stay out of reach', async () => {
    const { time, warnings, join } = bench(['127.0.0.1']);
    join('b', 'mx2.example.test');
    await time.advance(14_000);
    expect(warnings).toEqual([]);
    await time.advance(2_000);
    expect(warnings).toEqual([{ addresses: ['127.0.0.1:2946'], hostnames: ['mx2.example.test'] }]);
    join('c', 'mx3.example.test');
    await time.advance(60_000);
    expect(warnings).toHaveLength(1);
  });

  it('is well where the others are on this machine, are connected, or do not gossip', async () => {
    const { time, warnings, connected, join } = bench(['127.0.0.1', '::1']);
    join('same', 'mx1.example.test');
    join('silent', 'mx2.example.test', false);
    join('late', 'mx3.example.test');
    await time.advance(5_000);
    connected.push('late');
    await time.advance(60_000);
    expect(warnings).toEqual([]);
  });

  it('does not concern a node that others can reach, nor one that has stopped', async () => {
    const reachable = bench(['127.0.0.1', '192.0.2.1']);
    reachable.join('b', 'mx2.example.test');
    await reachable.time.advance(60_000);
    expect(reachable.warnings).toEqual([]);
    const stopped = bench(['127.0.0.1']);
    stopped.join('b', 'mx2.example.test');
    stopped.stop();
    await stopped.time.advance(60_000);
    expect(stopped.warnings).toEqual([]);
  });

  it('is told from others', () => {
    expect(['127.0.0.1', '127.8.8.8', '::1', '::ffff:127.0.0.1', 'localhost'].every(isLoopback)).toBe(true);
    expect(['0.0.0.0', '::', '12.7.0.1', '::10', 'localhost.example.test'].some(isLoopback)).toBe(false);
  });
});
