/** Nodes with a bus each, on a simulated network and one memory database, in virtual time. For tests. */
import { silentLogger } from '../../ops/telemetry/index.js';
import { key } from '../../store/keyspace.js';
import { MemoryDatabase, type MemoryStore, openMemoryStore } from '../../store/kv/index.js';
import { type NetworkFaults, type SimulatedGossip, SimulatedNetwork } from '../testing/network.js';
import { seededRandom } from '../testing/nodes.js';
import { type NodeClock, VirtualTime } from '../testing/virtual-time.js';
import { type AccountChange, type Bus, createBus } from './index.js';

/** Outside of every real subspace. */
const counterKey = key(99, 'generation');

export interface Bird {
  nodeId: string;
  clock: NodeClock;
  kv: MemoryStore;
  gossip: SimulatedGossip;
  bus: Bus;
  heard: (AccountChange & { atMs: number })[];
  /** When it was told that it has missed something. */
  missedAtMs: number[];
  /** Generations that it was told of. */
  told: { generation: string; atMs: number }[];
  /** Times that its source was read. */
  reads: number;
}

export class Flock {
  readonly time = new VirtualTime();
  readonly database = new MemoryDatabase({ clock: this.time.clock() });
  readonly network: SimulatedNetwork;
  readonly birds: Bird[] = [];
  readonly eye = openMemoryStore({ database: this.database, clock: this.time.clock() });
  /** Messages on the wire of `changes`, one per receiver. */
  sent = 0;

  constructor(seed = 1, faults: Partial<NetworkFaults> = {}) {
    const onMessage = ({ topic }: { topic: string }) => void (this.sent += topic === 'changes' ? 1 : 0);
    this.network = new SimulatedNetwork({ random: seededRandom(seed), faults, onMessage });
  }

  add(nodeId: string): Bird {
    const clock = this.time.clock();
    const random = seededRandom(this.birds.length + 7);
    const kv = openMemoryStore({ database: this.database, clock, random });
    const gossip = this.network.node(nodeId, clock);
    const members = () => this.birds.map((bird) => bird.nodeId);
    const bus = createBus({ gossip, kv, clock, random, logger: silentLogger, nodeId, members });
    const bird: Bird = { nodeId, clock, kv, gossip, bus, heard: [], missedAtMs: [], told: [], reads: 0 };
    bus.onChange((change) => bird.heard.push({ ...change, atMs: this.time.nowMs }));
    bus.onMissed(() => bird.missedAtMs.push(this.time.nowMs));
    bus.follow({
      name: 'counter',
      read: async (reads) => {
        bird.reads++;
        return (await reads.get(counterKey))?.toString('hex') ?? '';
      },
      onChanged: (generation) => void bird.told.push({ generation, atMs: this.time.nowMs }),
    });
    this.birds.push(bird);
    return bird;
  }

  /** That many, all connected, an hour of peace behind them as far as anybody remembers. */
  async start(count: number): Promise<Bird[]> {
    for (let i = 0; i < count; i++) this.add(`node${i}`);
    for (const { bus, gossip } of this.birds) {
      await gossip.start();
      bus.start();
    }
    this.meet();
    await this.time.advance(100);
    for (const { bus } of this.birds) bus.announceChange({ accountId: 'first', modseq: 1 });
    await this.time.advance(30_000);
    for (const bird of this.birds) {
      bird.heard = [];
      bird.missedAtMs = [];
      bird.told = [];
      bird.reads = 0;
    }
    this.sent = 0;
    return this.birds;
  }

  meet(): void {
    const all = this.birds.map(({ nodeId, gossip }) => ({ nodeId, incarnation: 1, ...gossip.identity }));
    for (const { gossip, nodeId } of this.birds) gossip.setMembers(all.filter((one) => one.nodeId !== nodeId));
  }

  /** A change of what all keep in memory. */
  async raise(): Promise<void> {
    await this.eye.transact(async (tx) => tx.add(counterKey, 1n));
  }

  async close(): Promise<void> {
    for (const { clock, kv } of this.birds) {
      clock.isPaused = false;
      kv.faults.clear();
    }
    const closing = Promise.all(this.birds.map(({ bus }) => bus.stop()));
    await this.time.advance(20_000);
    await closing;
    await Promise.all(this.birds.map(({ gossip }) => gossip.stop()));
  }
}
