/** One node of the gossip benchmark, as a process of its own; does what its parent tells it and answers with figures. */
import { createGossip, type Gossip, type GossipMember } from '../../cluster/gossip/index.js';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';

export type ToNode =
  | { do: 'start'; nodeId: string; secret: string }
  | { do: 'meet'; members: GossipMember[] }
  /** Beats: direct messages to so many peers, every `everyMs`. */
  | { do: 'idle'; forMs: number; beats?: { peers: number; everyMs: number } }
  | { do: 'publish'; forMs: number; perSecond: number; bytes: number }
  | { do: 'report' }
  | { do: 'stop' };

export type FromNode =
  | { did: 'start'; member: GossipMember; startMs: number }
  | { did: 'meet'; meshMs: number }
  | { did: 'idle'; cpuPercent: number }
  | { did: 'publish'; sent: number; cpuPercent: number }
  | { did: 'report'; delaysMs: number[]; residentBytes: number };

/** The same clock in all processes of a machine. */
const machineMs = () => Number(process.hrtime.bigint()) / 1e6;

let gossip: Gossip;
let delaysMs: number[] = [];

/** Of one core, while `work` runs. */
async function cpuPercent(work: () => Promise<void>): Promise<number> {
  const startMs = performance.now();
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 10 / (performance.now() - startMs);
}

async function start({ nodeId, secret }: Extract<ToNode, { do: 'start' }>): Promise<FromNode> {
  const startMs = performance.now();
  gossip = createGossip({
    nodeId,
    incarnation: 1,
    secret: Buffer.from(secret, 'hex'),
    listen: [{ host: '127.0.0.1', port: 0 }],
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
  });
  await gossip.start();
  gossip.subscribe('changes', ({ body }) => delaysMs.push(machineMs() - (body as { at: number }).at));
  return { did: 'start', member: { nodeId, incarnation: 1, ...gossip.identity }, startMs: performance.now() - startMs };
}

async function meet(members: GossipMember[]): Promise<FromNode> {
  const startMs = performance.now();
  gossip.setMembers(members);
  while (gossip.connected().length < members.length - 1) await systemClock.sleep(10);
  return { did: 'meet', meshMs: performance.now() - startMs };
}

async function idle({ forMs, beats }: Extract<ToNode, { do: 'idle' }>): Promise<FromNode> {
  const percent = await cpuPercent(async () => {
    const endMs = performance.now() + forMs;
    const peers = gossip.connected().slice(0, beats?.peers ?? 0);
    while (performance.now() < endMs) {
      for (const peer of peers) gossip.send(peer, { kind: 'beat', digest: gossip.connected().map((id, index) => [id, index]) });
      await systemClock.sleep(beats?.everyMs ?? forMs);
    }
  });
  return { did: 'idle', cpuPercent: percent };
}

async function publish({ forMs, perSecond, bytes }: Extract<ToNode, { do: 'publish' }>): Promise<FromNode> {
  const filling = 'x'.repeat(bytes);
  let sent = 0;
  const percent = await cpuPercent(async () => {
    const startMs = performance.now();
    // Nodes don't publish in step.
    await systemClock.sleep(systemRandom.float() * (1_000 / perSecond));
    for (; performance.now() - startMs < forMs; sent++) {
      gossip.publish('changes', { at: machineMs(), filling });
      const nextMs = startMs + ((sent + 1) * 1_000) / perSecond;
      await systemClock.sleep(Math.max(0, nextMs - performance.now()));
    }
  });
  return { did: 'publish', sent, cpuPercent: percent };
}

async function obey(order: ToNode): Promise<FromNode | undefined> {
  switch (order.do) {
    case 'start':
      return await start(order);
    case 'meet':
      return await meet(order.members);
    case 'idle':
      return await idle(order);
    case 'publish':
      return await publish(order);
    case 'report': {
      const report: FromNode = { did: 'report', delaysMs, residentBytes: process.memoryUsage.rss() };
      delaysMs = [];
      return report;
    }
    case 'stop':
      await gossip.stop();
      process.disconnect?.();
      return undefined;
  }
}

process.on('message', (order: ToNode) => {
  void obey(order).then((answer) => answer && process.send?.(answer));
});
