/** Several members in one process on one database, each with its own clock and its own faults, and claims kept in the same database. */
import { type Random, silentLogger, systemRandom } from '../../ops/telemetry/index.js';
import { key, keyItems, keysUnder, nodeKeys } from '../../store/keyspace.js';
import { type KvStore, MemoryDatabase, type MemoryStore, openMemoryStore } from '../../store/kv/index.js';
import { type ClaimTable, type FailureTiming, failureTimings, type Membership } from '../membership/contract.js';
import { createMembership } from '../membership/membership.js';
import type { MembershipOptions } from '../membership/options.js';
import { type NetworkFaults, type SimulatedGossip, SimulatedNetwork } from './network.js';
import { type NodeClock, VirtualTime } from './virtual-time.js';

/** Outside of every real subspace. */
const claimSpace = 99;

export interface TestMember {
  nodeId: string;
  membership: Membership;
  clock: NodeClock;
  kv: MemoryStore;
  /** Where the cluster gossips. */
  gossip?: SimulatedGossip;
  /** How often another node has declared it dead. */
  fencings: number;
  /** As the queue saves: asserts the fence in the same transaction. */
  save(item: string): Promise<void>;
  claim(item: string): Promise<void>;
}

export interface TestClusterOptions {
  /** Nodes gossip over a network with these faults. Without it they have the store alone. */
  network?: Partial<NetworkFaults>;
  seed?: number;
  timing?: FailureTiming;
}

export class TestCluster {
  readonly time = new VirtualTime();
  readonly timing: FailureTiming;
  readonly seed: number;
  readonly network: SimulatedNetwork | undefined;
  readonly database = new MemoryDatabase({ clock: this.time.clock() });
  readonly members: TestMember[] = [];
  /** A look at the database that no fault touches. */
  readonly eye = openMemoryStore({ database: this.database, clock: this.time.clock() });
  #count = 0;

  constructor({ network, seed = 1, timing = failureTimings.normal }: TestClusterOptions = {}) {
    this.timing = timing;
    this.seed = seed;
    this.network = network && new SimulatedNetwork({ random: seededRandom(seed), faults: network });
  }

  /** Claims at most `batch` per transaction, so that a takeover takes several. */
  claimTable(kv: KvStore, batch = 2): ClaimTable {
    return {
      release: (nodeId) =>
        kv.transact(async (tx) => {
          if (await tx.get(nodeKeys.fence(nodeId))) throw new Error(`the fence of ${nodeId} still stands`);
          const { begin, end } = keysUnder(claimSpace, nodeId);
          const claims = await tx.getRange(begin, end, { limit: batch });
          for (const claim of claims) tx.clear(claim.key);
          return claims.length;
        }),
      holders: () =>
        kv.read(async (reads) => {
          const { begin, end } = keysUnder(claimSpace);
          return [...new Set((await reads.getRange(begin, end)).map((pair) => keyItems(pair.key)[1] as string))];
        }),
    };
  }

  /** A member that has not joined. */
  make(options: Partial<MembershipOptions> = {}): TestMember {
    const clock = this.time.clock();
    const kv = openMemoryStore({ database: this.database, clock, random: seededRandom(this.seed * 1_000 + ++this.#count) });
    const nodeId = options.nodeId ?? this.#count.toString(16).padStart(32, '0');
    const gossip = this.network?.node(nodeId, clock);
    const member: TestMember = {
      nodeId,
      clock,
      kv,
      gossip,
      fencings: 0,
      save: (item) =>
        kv.transact(async (tx) => {
          if (!(await tx.get(nodeKeys.fence(nodeId)))) throw new Error('fenced');
          tx.set(key(claimSpace, 'saved', item), Buffer.from(nodeId));
        }),
      claim: (item) => kv.transact(async (tx) => tx.set(key(claimSpace, nodeId, item), Buffer.alloc(0))),
      membership: createMembership({
        kv,
        clock,
        random: this.network ? seededRandom(this.seed * 1_000 + 500 + this.#count) : systemRandom,
        timing: this.timing,
        gossip,
        logger: silentLogger,
        nodeId,
        incarnation: 1,
        self: { hostname: `host${this.#count}`, addresses: [], roles: ['queue'], version: '1', formats: { mail: 1 } },
        claims: this.claimTable(kv),
        onFenced: () => member.fencings++,
        ...options,
      }),
    };
    this.members.push(member);
    return member;
  }

  /** Members that have joined one after the other and are ready. The first has just looked, and seen what there is to be seen of the others. */
  async start(count: number): Promise<TestMember[]> {
    const members = Array.from({ length: count }, () => this.make());
    const endMs = this.time.nowMs + 4_000;
    for (const { membership, gossip } of members) {
      await gossip?.start();
      await membership.join();
      void membership.setState('ready');
      await this.time.advance(300);
    }
    await this.time.advance(endMs - this.time.nowMs);
    return members;
  }

  /** As kill -9: it does nothing any more. With `isNoticed` its peers see their connections close, as the machine it ran on would tell them. */
  kill({ nodeId, clock }: TestMember, isNoticed = true): void {
    clock.isPaused = true;
    if (isNoticed) this.network?.kill(nodeId);
  }

  /** Nothing goes between these two groups any more, in the first way or in both. */
  cut(some: readonly TestMember[], others: readonly TestMember[], isOneWay = false): void {
    for (const one of some) {
      for (const other of others) {
        this.network!.cut(one.nodeId, other.nodeId);
        if (!isOneWay) this.network!.cut(other.nodeId, one.nodeId);
      }
    }
  }

  /** Node ids that have a row, a fence, or claims. */
  async standing(): Promise<{ rows: string[]; fences: string[]; claims: string[] }> {
    const ids = (pairs: { key: Buffer }[], at: number) => pairs.map((pair) => keyItems(pair.key)[at] as string);
    return this.eye.read(async (reads) => {
      const range = async ({ begin, end }: { begin: Buffer; end: Buffer }) => reads.getRange(begin, end);
      return {
        rows: ids(await range(nodeKeys.rows()), 2),
        fences: ids(await range(nodeKeys.fences()), 2),
        claims: ids(await range(keysUnder(claimSpace)), 1).filter((id) => id !== 'saved'),
      };
    });
  }

  async close(): Promise<void> {
    for (const member of this.members) {
      member.clock.isPaused = false;
      member.kv.faults.clear();
    }
    const closing = Promise.all(
      this.members.map(async ({ membership, gossip }) => {
        await membership.stop();
        await gossip?.stop();
      }),
    );
    await this.time.advance(20_000);
    await closing;
  }
}

/** Random from a seed, so that a failing run can be repeated. */
export function seededRandom(seed: number): Random {
  let state = seed * 7919;
  const float = () => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return state / 2147483648;
  };
  return { float, bytes: (length) => Buffer.from(Array.from({ length }, () => Math.floor(float() * 256))) };
}
