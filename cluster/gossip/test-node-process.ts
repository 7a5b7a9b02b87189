/** A gossip node as a process of its own, for tests that kill or stop one. Says what it hears to its parent. */
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import type { GossipMember } from './contract.js';
import { createGossip } from './index.js';

type Order = { nodeId: string; secret: string; incarnation: number } | { members: GossipMember[] } | 'stop';

let gossip: ReturnType<typeof createGossip> | undefined;

async function obey(order: Order): Promise<void> {
  if (order === 'stop') {
    await gossip?.stop();
    // Nothing may be left that keeps the process alive.
    process.disconnect?.();
  } else if ('members' in order) gossip?.setMembers(order.members);
  else {
    gossip = createGossip({
      ...order,
      secret: Buffer.from(order.secret, 'hex'),
      listen: [{ host: '127.0.0.1', port: 0 }],
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
    });
    gossip.onDirect(({ body }) => process.send?.({ direct: body }));
    gossip.subscribe('changes', ({ body }) => process.send?.({ published: body }));
    await gossip.start();
    process.send?.({ nodeId: order.nodeId, incarnation: order.incarnation, ...gossip.identity });
  }
}

process.on('message', (order: Order) => void obey(order));
