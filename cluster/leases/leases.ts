/** Contends for leader leases, renews them, and gives them back. */
import { Packr } from 'msgpackr';
import type { Clock, Logger, Timer } from '../../ops/telemetry/index.js';
import { counter, gauge } from '../../ops/telemetry/index.js';
import { nodeKeys } from '../../store/keyspace.js';
import type { KvStore, KvTransaction } from '../../store/kv/contract.js';
import { StandstillWatch } from '../standstill.js';
import { type LeaderLease, type LeaderLeases, LeaseLost } from './contract.js';

const heldGauge = gauge('starling_cluster_leases_held', 'Jobs that this node does for all: 1 while it holds the lease.', ['job']);
const acquiredTotal = counter('starling_cluster_leases_acquired_total', 'Leases that this node has taken.', ['job']);

const rowFormat = 1;
const packr = new Packr({ useRecords: false });

export interface LeaseOptions {
  kv: KvStore;
  clock: Clock;
  logger: Logger;
  nodeId: string;
  /** Between two renewals. Default 2 000. */
  renewMs?: number;
  /** A row that has stood still for so long is free. The same on all nodes. Default 10 000. */
  termMs?: number;
}

interface LeaseRow {
  /** '' when it was given back. */
  holder: string;
  epoch: number;
  renewals: number;
}

/** A change that a tick wants to make, if the row is still as it was seen. */
interface Move {
  lease: Lease;
  seen: Buffer | undefined;
  row: LeaseRow;
  bytes: Buffer;
}

const encode = ({ holder, epoch, renewals }: LeaseRow): Buffer => packr.pack([rowFormat, holder, epoch, renewals]);

function decode(value: Buffer | undefined): LeaseRow | undefined {
  if (!value) return undefined;
  const f: unknown = packr.unpack(value);
  if (!Array.isArray(f) || f[0] !== rowFormat) throw new Error('a lease row has an unknown format');
  return { holder: f[1] as string, epoch: f[2] as number, renewals: f[3] as number };
}

class Lease implements LeaderLease {
  heldEpoch: number | undefined;
  heldUntilMs = Number.NEGATIVE_INFINITY;

  constructor(
    readonly job: string,
    readonly nodeId: string,
    readonly clock: Clock,
  ) {}

  get isHeld(): boolean {
    return this.heldEpoch !== undefined && this.clock.monotonicMs() < this.heldUntilMs;
  }

  get epoch(): number | undefined {
    return this.isHeld ? this.heldEpoch : undefined;
  }

  async assert(tx: Pick<KvTransaction, 'get'>): Promise<void> {
    const { epoch } = this;
    if (epoch === undefined) throw new LeaseLost(`this node does not hold ${this.job}`);
    const row = decode(await tx.get(nodeKeys.lease(this.job)));
    if (row?.holder !== this.nodeId || row.epoch !== epoch) throw new LeaseLost(`${this.job} has passed to another node`);
  }
}

export function createLeaderLeases(options: LeaseOptions): LeaderLeases {
  return new Contender(options);
}

class Contender implements LeaderLeases {
  readonly #o: LeaseOptions;
  readonly #renewMs: number;
  readonly #termMs: number;
  readonly #watch: StandstillWatch;
  readonly #leases = new Map<string, Lease>();
  #isStopping = false;
  #failedTicks = 0;
  #timer: Timer | undefined;
  #ticking: Promise<void> = Promise.resolve();

  constructor(options: LeaseOptions) {
    this.#o = options;
    this.#renewMs = options.renewMs ?? 2_000;
    this.#termMs = options.termMs ?? 10_000;
    this.#watch = new StandstillWatch(2 * this.#renewMs);
  }

  contend(job: string): LeaderLease {
    let lease = this.#leases.get(job);
    if (!lease) this.#leases.set(job, (lease = new Lease(job, this.#o.nodeId, this.#o.clock)));
    return lease;
  }

  start(): Promise<void> {
    this.#ticking = this.#tick();
    return this.#ticking;
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#timer?.cancel();
    await this.#ticking;
    for (const lease of this.#leases.values()) lease.heldEpoch = undefined;
    this.#show();
  }

  async release(): Promise<void> {
    this.#isStopping = true;
    this.#timer?.cancel();
    await this.#ticking;
    const held = [...this.#leases.values()].filter(({ heldEpoch }) => heldEpoch !== undefined);
    const { kv, nodeId, logger } = this.#o;
    try {
      if (held.length > 0) {
        await kv.transact(
          async (tx) => {
            const rows = await tx.getMany(held.map(({ job }) => nodeKeys.lease(job)));
            for (const [i, { job, heldEpoch }] of held.entries()) {
              const row = decode(rows[i]);
              if (row?.holder === nodeId && row.epoch === heldEpoch) tx.set(nodeKeys.lease(job), encode({ ...row, holder: '' }));
            }
          },
          { label: 'lease-release' },
        );
      }
    } catch (error) {
      logger.warn({ err: error }, 'leases could not be given back: they will run out');
    }
    await this.stop();
  }

  async #tick(): Promise<void> {
    const { clock, logger } = this.#o;
    const startMs = clock.monotonicMs();
    try {
      const moves = await this.#look(startMs);
      if (moves.length > 0) await this.#make(moves, startMs);
      this.#failedTicks = 0;
    } catch (error) {
      if (this.#failedTicks++ === 0) logger.warn({ err: error }, 'leases could not be renewed, trying again');
    }
    this.#show();
    if (this.#isStopping) return;
    const pauseMs = Math.max(startMs + this.#renewMs - clock.monotonicMs(), this.#renewMs / 4);
    this.#timer = clock.setTimer(
      pauseMs,
      () => {
        this.#ticking = this.#tick();
      },
      { background: true },
    );
  }

  /** Reads all rows, without conflicts, and works out which of them this node wants to write. */
  async #look(startMs: number): Promise<Move[]> {
    const { kv, clock, nodeId } = this.#o;
    const leases = [...this.#leases.values()];
    const { values, rows, fences } = await kv.read(
      async (reads) => {
        const values = await reads.getMany(leases.map(({ job }) => nodeKeys.lease(job)));
        const rows = values.map(decode);
        const fences = await reads.getMany(rows.map((row) => nodeKeys.fence(row?.holder || nodeId)));
        return { values, rows, fences };
      },
      { label: 'lease-look', maxAttempts: 3 },
    );
    this.#watch.look(
      new Map(leases.map(({ job }, i) => [job, values[i]?.toString('latin1') ?? ''])),
      startMs,
      clock.monotonicMs(),
    );
    const moves: Move[] = [];
    for (const [i, lease] of leases.entries()) {
      const row = rows[i];
      const isMine = row?.holder === nodeId;
      const isFree = !row || row.holder === '' || !fences[i] || this.#watch.stoodStillMs(lease.job) >= this.#termMs;
      if (!isMine && lease.heldEpoch !== undefined) this.#lose(lease);
      if (!isMine && !isFree) continue;
      const next = isMine
        ? { ...row, renewals: row.renewals + 1 }
        : { holder: nodeId, epoch: (row?.epoch ?? 0) + 1, renewals: 0 };
      moves.push({ lease, seen: values[i], row: next, bytes: encode(next) });
    }
    return moves;
  }

  /** Writes them, as far as the rows are still as they were seen and this node's fence stands. */
  async #make(moves: readonly Move[], startMs: number): Promise<void> {
    const { kv, nodeId, logger } = this.#o;
    const made = await kv.transact(
      async (tx) => {
        const [fence, ...values] = await tx.getMany([
          nodeKeys.fence(nodeId),
          ...moves.map(({ lease }) => nodeKeys.lease(lease.job)),
        ]);
        if (!fence) return [];
        return moves.filter(({ lease, seen, bytes }, i) => {
          const now = values[i];
          // An earlier run of this body whose commit was unknown.
          if (now?.equals(bytes)) return true;
          if (now ? !seen || !now.equals(seen) : seen !== undefined) return false;
          tx.set(nodeKeys.lease(lease.job), bytes);
          return true;
        });
      },
      { label: 'lease-renew', maxAttempts: 5 },
    );
    for (const { lease, row } of made) {
      if (lease.heldEpoch !== row.epoch) {
        acquiredTotal.inc({ job: lease.job });
        logger.info({ job: lease.job, epoch: row.epoch }, 'this node does the job for all');
      }
      lease.heldEpoch = row.epoch;
      lease.heldUntilMs = startMs + this.#termMs;
    }
  }

  #lose(lease: Lease): void {
    lease.heldEpoch = undefined;
    this.#o.logger.warn({ job: lease.job }, 'the job has passed to another node');
  }

  #show(): void {
    for (const lease of this.#leases.values()) heldGauge.set({ job: lease.job }, lease.isHeld ? 1 : 0);
  }
}
