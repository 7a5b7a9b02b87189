/** Contenders on one memory database in virtual time, and a job that notes what it does. For tests. */
import { silentLogger } from '../../ops/telemetry/index.js';
import { key, nodeKeys } from '../../store/keyspace.js';
import { MemoryDatabase, type MemoryStore, openMemoryStore } from '../../store/kv/index.js';
import { seededRandom } from '../testing/nodes.js';
import { type NodeClock, VirtualTime } from '../testing/virtual-time.js';
import { createLeaderLeases, type LeaderLease, type LeaderLeases, type LeaderWork, type LeaseOptions } from './index.js';

/** Outside of every real subspace. */
const effectSpace = 99;

export interface Contestant {
  nodeId: string;
  clock: NodeClock;
  kv: MemoryStore;
  leases: LeaderLeases;
  /** Runs of work that go on now, by job. */
  running: Map<string, number>;
  /** Runs begun. */
  runs: number;
}

export interface Effect {
  job: string;
  nodeId: string;
  epoch: number;
}

export class JobFloor {
  readonly time = new VirtualTime();
  readonly database = new MemoryDatabase({ clock: this.time.clock() });
  readonly eye = openMemoryStore({ database: this.database, clock: this.time.clock() });
  readonly all: Contestant[] = [];
  /** Ids of ready members, as every node sees them. */
  members: string[] = [];
  /** Committed, in the order of their commits. */
  readonly effects: Effect[] = [];
  readonly violations: string[] = [];

  async add(nodeId: string, options: Partial<LeaseOptions> = {}): Promise<Contestant> {
    const clock = this.time.clock();
    const kv = openMemoryStore({ database: this.database, clock, random: seededRandom(this.all.length + 1) });
    await this.eye.transact(async (tx) => tx.set(nodeKeys.fence(nodeId), Buffer.alloc(0)));
    const members = () => this.members;
    const leases = createLeaderLeases({ kv, clock, logger: silentLogger, nodeId, members, ...options });
    const one: Contestant = { nodeId, clock, kv, leases, running: new Map(), runs: 0 };
    this.all.push(one);
    this.members = [...this.members, nodeId].sort();
    return one;
  }

  async breakFence(nodeId: string): Promise<void> {
    await this.eye.transact(async (tx) => tx.clear(nodeKeys.fence(nodeId)));
  }

  /** Work that saves an effect every `stepMs` until its signal is aborted, or for `steps`. */
  work(one: Contestant, job: string, { stepMs = 400, steps = Number.POSITIVE_INFINITY } = {}): LeaderWork {
    return async (epoch, signal, lease) => {
      const running = (one.running.get(job) ?? 0) + 1;
      one.running.set(job, running);
      one.runs++;
      if (running > 1) this.violations.push(`${job} runs twice on ${one.nodeId}`);
      try {
        for (let step = 0; step < steps && !signal.aborted; step++) {
          await this.save(one, job, epoch, lease);
          await one.clock.sleep(stepMs, signal);
        }
      } finally {
        one.running.set(job, one.running.get(job)! - 1);
      }
    };
  }

  /** One effect: raises the job's counter in a transaction that asserts the lease. Notes it in the order of commits, checked by the counter. */
  async save(one: Contestant, job: string, epoch: number, lease: LeaderLease): Promise<void> {
    const at = key(effectSpace, 'effect', job);
    await one.kv.transact(
      async (tx) => {
        await lease.assert(tx);
        const before = await tx.get(at);
        // Epochs never go back: an effect of a former holder after one of a later would be one that was not fenced.
        if (before && before.readUInt32BE(0) > epoch)
          this.violations.push(`${one.nodeId} saved under ${epoch} after a later epoch`);
        if (before && before.readUInt32BE(0) === epoch && before.toString('latin1', 4) !== one.nodeId)
          this.violations.push(`two holders of epoch ${epoch} of ${job}`);
        const value = Buffer.alloc(4 + one.nodeId.length);
        value.writeUInt32BE(epoch, 0);
        value.write(one.nodeId, 4, 'latin1');
        tx.set(at, value);
      },
      { maxAttempts: 5 },
    );
    this.effects.push({ job, nodeId: one.nodeId, epoch });
  }

  /** Who holds the job by its own belief. */
  believers(job: string): string[] {
    return this.all.filter(({ leases }) => leases.contend(job).isHeld).map(({ nodeId }) => nodeId);
  }

  /** Who runs work, by job. */
  workers(job: string): string[] {
    return this.all.filter(({ running }) => (running.get(job) ?? 0) > 0).map(({ nodeId }) => nodeId);
  }

  async close(): Promise<void> {
    for (const { clock, kv } of this.all) {
      clock.isPaused = false;
      kv.faults.clear();
    }
    const stopping = Promise.all(this.all.map(({ leases }) => leases.stop()));
    await this.time.advance(30_000);
    await stopping;
  }
}
