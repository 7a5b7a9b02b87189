/** Several members in one process on one database, each with its own clock and its own faults, and claims kept in the same database. */
import { type Random, silentLogger, systemRandom } from '../../ops/telemetry/index.js';
import { key, keyItems, keysUnder, nodeKeys } from '../../store/keyspace.js';
import { type KvStore, MemoryDatabase, type MemoryStore, openMemoryStore } from '../../store/kv/index.js';
import type { ClaimTable, Membership } from '../membership/contract.js';
import { createMembership, type MembershipOptions } from '../membership/membership.js';
import { type NodeClock, VirtualTime } from './virtual-time.js';

/** Outside of every real subspace. */
const claimSpace = 99;

export interface TestMember {
  nodeId: string;
  membership: Membership;
  clock: NodeClock;
  kv: MemoryStore;
  /** How often another node has declared it dead. */
  fencings: number;
  /** As the queue saves: asserts the fence in the same transaction. */
  save(item: string): Promise<void>;
  claim(item: string): Promise<void>;
}

export class TestCluster {
  readonly time = new VirtualTime();
  readonly database = new MemoryDatabase({ clock: this.time.clock() });
  readonly members: TestMember[] = [];
  /** A look at the database that no fault touches. */
  readonly eye = openMemoryStore({ database: this.database, clock: this.time.clock() });
  #count = 0;

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
    const kv = openMemoryStore({ database: this.database, clock, random: seededRandom(++this.#count) });
    const nodeId = options.nodeId ?? this.#count.toString(16).padStart(32, '0');
    const member: TestMember = {
      nodeId,
      clock,
      kv,
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
        random: systemRandom,
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
    for (const { membership } of members) {
      await membership.join();
      void membership.setState('ready');
      await this.time.advance(300);
    }
    await this.time.advance(endMs - this.time.nowMs);
    return members;
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
    const closing = Promise.all(this.members.map(({ membership }) => membership.stop()));
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
