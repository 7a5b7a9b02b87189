/** Contends for jobs: looks at all rows from time to time, takes what is free and this node's share, renews, and gives back what another should have. */
import type { Clock, Logger, Timer } from '../../ops/telemetry/index.js';
import { counter, gauge } from '../../ops/telemetry/index.js';
import { nodeKeys } from '../../store/keyspace.js';
import type { KvReads, KvStore } from '../../store/kv/contract.js';
import type { GenerationSource } from '../bus/contract.js';
import { Deadline } from '../membership/deadline.js';
import { StandstillWatch } from '../standstill.js';
import type { LeaderLease, LeaderLeases, LeaderWork, LeaderWorkOptions, LeaseHolder } from './contract.js';
import { Lease } from './lease.js';
import { decodeRow, encodeRow, type LeaseRow } from './rows.js';
import { heedMs, LeaderRuns } from './runs.js';
import { Share } from './share.js';

const heldGauge = gauge('starling_cluster_leases_held', 'Jobs that this node does for all: 1 while it holds the lease.', ['job']);
const acquiredTotal = counter('starling_cluster_leases_acquired_total', 'Leases that this node has taken.', ['job']);
/** `reason`: `share` (another node should have it), `overdue` (the work did not heed its signal), `end` (this node does not do it any more). */
const givenBackTotal = counter('starling_cluster_leases_given_back_total', 'Leases that this node has given back.', ['reason']);

/** Between the beginnings of two looks, however often it is woken. */
const minLookGapMs = 50;

export interface LeaseOptions {
  kv: KvStore;
  clock: Clock;
  logger: Logger;
  nodeId: string;
  /**
   * Ids of the nodes that share the jobs, this one among them when it may take any; jobs are spread evenly over them. Every node of them should contend
   * for the same jobs. Without it a node takes whatever is free.
   */
  members?: () => readonly string[];
  /** Between two renewals. Default 2 000. */
  renewMs?: number;
  /** A row that has stood still for so long is free. The same on all nodes. Default 10 000. */
  termMs?: number;
  /** A free job of another member's share is left alone for so long. Default 3 000. */
  graceMs?: number;
  /** The members must have been the same for so long before a job is handed over to the one that should have it. Default 30 000. */
  settleMs?: number;
}

/** A change that a look wants to make, if the row is still as it was seen. `gaveBack`: why. */
interface Move {
  lease: Lease;
  seen: Buffer | undefined;
  row: LeaseRow;
  bytes: Buffer;
  gaveBack?: 'share' | 'overdue' | 'end';
}

export function createLeaderLeases(options: LeaseOptions): LeaderLeases {
  return new Contender(options);
}

class Contender implements LeaderLeases {
  readonly source: GenerationSource;
  readonly #o: Required<Omit<LeaseOptions, 'members'>> & Pick<LeaseOptions, 'members'>;
  readonly #deadline: Deadline;
  readonly #watch: StandstillWatch;
  readonly #share: Share;
  readonly #leases = new Map<string, Lease>();
  readonly #listeners = new Set<() => void>();
  #holders: LeaseHolder[] = [];
  #state: 'new' | 'running' | 'releasing' | 'stopped' = 'new';
  #failedLooks = 0;
  #timer: Timer | undefined;
  #isLooking = false;
  #isWoken = false;
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  /** A moment (monotonic) before the next renewal at which something becomes free for this node. */
  #soonerMs = Number.POSITIVE_INFINITY;
  #looking: Promise<void> = Promise.resolve();

  constructor(options: LeaseOptions) {
    this.#o = { renewMs: 2_000, termMs: 10_000, graceMs: 3_000, settleMs: 30_000, ...options };
    this.#deadline = new Deadline(options.clock, this.#o.termMs);
    this.#watch = new StandstillWatch(2 * this.#o.renewMs);
    this.#share = new Share(this.#o);
    this.source = { name: 'leases', read: (reads) => this.#readSource(reads), onChanged: () => this.wake() };
  }

  contend(job: string): LeaderLease {
    const lease = this.#lease(job);
    lease.isContended = true;
    this.wake();
    return lease;
  }

  whileLeader(job: string, work: LeaderWork, options: LeaderWorkOptions = {}): () => Promise<void> {
    const lease = this.#lease(job);
    if (lease.runs) throw new Error(`${job} is done by this node already`);
    const { clock, logger } = this.#o;
    const onTurn = () => this.wake();
    const runs = new LeaderRuns({ lease, work, pauseMs: options.pauseMs ?? 1_000, clock, logger, onTurn });
    lease.runs = runs;
    runs.update();
    this.wake();
    return async () => {
      await runs.end();
      if (lease.runs !== runs) return;
      lease.runs = undefined;
      if (lease.isContended || this.#state === 'stopped' || this.#state === 'releasing') return;
      this.#leases.delete(job);
      await this.#looking;
      await this.#giveBack([lease]);
    };
  }

  holders(): LeaseHolder[] {
    return this.#holders.map((holder) => ({ ...holder }));
  }

  onChange(listener: () => void): () => void {
    const own = () => listener();
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  start(): Promise<void> {
    if (this.#state !== 'new') return this.#looking;
    this.#state = 'running';
    this.#look();
    return this.#looking;
  }

  wake(): void {
    if (this.#state !== 'running' && this.#state !== 'releasing') return;
    this.#isWoken = true;
    if (!this.#isLooking) this.#lookIn(this.#lookedAtMs + minLookGapMs - this.#o.clock.monotonicMs());
  }

  async stop(): Promise<void> {
    const ended = this.#endRuns();
    await this.#endLooks();
    for (const lease of this.#leases.values()) lease.drop();
    this.#show();
    await ended;
  }

  async release(): Promise<void> {
    if (this.#state === 'stopped') return;
    if (this.#state === 'running') this.#state = 'releasing';
    // Looks go on, and renew, as long as the work takes to end.
    await this.#endRuns();
    await this.#endLooks();
    await this.#giveBack([...this.#leases.values()]);
  }

  #endLooks(): Promise<void> {
    this.#state = 'stopped';
    this.#timer?.cancel();
    return this.#looking;
  }

  #lease(job: string): Lease {
    let lease = this.#leases.get(job);
    if (!lease) {
      lease = new Lease(job, this.#o.nodeId, this.#o.clock, () => this.#termOver(job));
      this.#leases.set(job, lease);
    }
    return lease;
  }

  #termOver(job: string): void {
    this.#o.logger.warn({ job }, 'no renewal has come through for a term: another node may do the job now');
    this.#leases.get(job)?.runs?.update();
    this.#show();
  }

  /** Aborts all work; resolves when it has ended, or has not heeded its signal for too long. */
  async #endRuns(): Promise<void> {
    const runs = [...this.#leases.values()].flatMap((lease) => lease.runs ?? []);
    const ended = Promise.all(runs.map((one) => one.end()));
    if (runs.every((one) => one.isIdle)) return;
    const over = new AbortController();
    await Promise.race([ended, this.#o.clock.sleep(heedMs, over.signal).catch(() => undefined)]);
    over.abort();
  }

  /** Gives back what the rows say is this node's. What fails is left to run out. */
  async #giveBack(leases: readonly Lease[]): Promise<void> {
    const { kv, nodeId, logger } = this.#o;
    if (leases.length === 0) return;
    try {
      const given = await this.#deadline.bound((signal) =>
        kv.transact(
          async (tx) => {
            const rows = (await tx.getMany(leases.map(({ job }) => nodeKeys.lease(job)))).map(decodeRow);
            return leases.filter(({ job }, i) => {
              const row = rows[i];
              if (row?.holder !== nodeId) return false;
              tx.set(nodeKeys.lease(job), encodeRow({ holder: '', epoch: row.epoch, renewals: row.renewals }));
              return true;
            });
          },
          { label: 'lease-release', signal },
        ),
      );
      if (given.length > 0) givenBackTotal.inc({ reason: 'end' }, given.length);
    } catch (error) {
      logger.warn({ err: error }, 'leases could not be given back: they will run out');
    }
    for (const lease of leases) {
      lease.drop();
      heldGauge.set({ job: lease.job }, 0);
    }
    this.#tell();
  }

  #lookIn(delayMs: number): void {
    this.#timer?.cancel();
    this.#timer = this.#o.clock.setTimer(Math.max(0, delayMs), () => this.#look(), { background: true });
  }

  #look(): void {
    this.#isLooking = true;
    this.#isWoken = false;
    this.#looking = this.#lookAndMove();
  }

  async #lookAndMove(): Promise<void> {
    const { clock, logger, renewMs } = this.#o;
    const startMs = clock.monotonicMs();
    this.#lookedAtMs = startMs;
    this.#soonerMs = Number.POSITIVE_INFINITY;
    try {
      const moves = await this.#deadline.bound((signal) => this.#read(startMs, signal));
      if (moves.length > 0) await this.#deadline.bound((signal) => this.#write(moves, startMs, signal));
      if (this.#failedLooks > 0) logger.info('leases can be renewed again');
      this.#failedLooks = 0;
    } catch (error) {
      if (this.#failedLooks++ === 0) logger.warn({ err: error }, 'leases could not be renewed, trying again');
    }
    for (const { runs } of this.#leases.values()) runs?.update();
    this.#show();
    this.#isLooking = false;
    if (this.#state === 'stopped') return;
    const nowMs = clock.monotonicMs();
    const floorMs = this.#isWoken || this.#soonerMs < startMs + renewMs ? minLookGapMs : renewMs / 4;
    this.#lookIn(Math.max(this.#isWoken ? 0 : Math.min(startMs + renewMs, this.#soonerMs) - nowMs, floorMs));
  }

  /** Reads all rows, without conflicts, and works out which of them this node wants to write. */
  async #read(startMs: number, signal: AbortSignal): Promise<Move[]> {
    const { kv, clock, nodeId } = this.#o;
    const leases = [...this.#leases.values()];
    const { values, rows, fences } = await kv.read(
      async (reads) => {
        const values = await reads.getMany(leases.map(({ job }) => nodeKeys.lease(job)));
        const rows = values.map(decodeRow);
        const fences = await reads.getMany(rows.map((row) => nodeKeys.fence(row?.holder || nodeId)));
        return { values, rows, fences };
      },
      { label: 'lease-look', maxAttempts: 3, signal },
    );
    // Given up on long ago: what it read is no news any more.
    if (signal.aborted) return [];
    const endMs = clock.monotonicMs();
    this.#watch.look(new Map(leases.map(({ job }, i) => [job, values[i]?.toString('latin1') ?? ''])), startMs, endMs);
    this.#noteHolders(leases, rows);
    this.#share.refresh([...this.#leases.keys()], endMs);
    const moves: Move[] = [];
    for (const [i, lease] of leases.entries()) {
      const row = rows[i];
      const isMine = row?.holder === nodeId;
      // With its own fence broken, a node may do nothing any more, whatever the row says.
      const isLost = !isMine || !fences[i];
      if (isLost && lease.heldEpoch !== undefined) this.#lose(lease);
      if (isMine && isLost) continue;
      const isFree = !row || row.holder === '' || !fences[i] || this.#watch.stoodStillMs(lease.job) >= this.#o.termMs;
      lease.freeSinceMs = isMine || !isFree ? undefined : (lease.freeSinceMs ?? endMs);
      const move = isMine ? this.#keep(lease, row, endMs) : isFree && this.#take(lease, row, endMs);
      if (move) moves.push({ lease, seen: values[i], bytes: encodeRow(move.row), ...move });
    }
    return moves;
  }

  /** Of a job that is this node's: renew it, or give it back once nothing runs. */
  #keep(lease: Lease, row: LeaseRow, nowMs: number): Pick<Move, 'row' | 'gaveBack'> {
    const { runs } = lease;
    const given = { holder: '', epoch: row.epoch, renewals: row.renewals };
    if (runs?.isOverdue) return { row: given, gaveBack: 'overdue' };
    const successor = this.#state === 'running' ? this.#share.successorOf(lease, nowMs) : undefined;
    if (successor === undefined) {
      if (this.#state === 'running') runs?.stay();
      return { row: { holder: row.holder, epoch: row.epoch, renewals: row.renewals + 1 } };
    }
    runs?.leave();
    if (!runs || runs.isIdle) return { row: { ...given, reservedFor: successor }, gaveBack: 'share' };
    return { row: { holder: row.holder, epoch: row.epoch, renewals: row.renewals + 1 } };
  }

  /** Of a job that is free: take it when it is this node's share, or when whose share it is lets it lie. */
  #take(lease: Lease, row: LeaseRow | undefined, nowMs: number): Pick<Move, 'row'> | undefined {
    if (this.#state !== 'running' || (lease.runs && !lease.runs.isIdle)) return undefined;
    const fromMs = this.#share.mayTakeFromMs(lease, row);
    if (nowMs < fromMs) {
      this.#soonerMs = Math.min(this.#soonerMs, fromMs);
      return undefined;
    }
    this.#share.noteTaken(lease, row, nowMs);
    return { row: { holder: this.#o.nodeId, epoch: (row?.epoch ?? 0) + 1, renewals: 0 } };
  }

  /** Writes them, as far as the rows are still as they were seen and this node's fence stands. */
  async #write(moves: readonly Move[], startMs: number, signal: AbortSignal): Promise<void> {
    const { kv, nodeId } = this.#o;
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
      { label: 'lease-renew', maxAttempts: 5, signal },
    );
    if (signal.aborted) return;
    for (const move of made) this.#moved(move, startMs);
  }

  #moved({ lease, row, gaveBack }: Move, startMs: number): void {
    const { logger, termMs } = this.#o;
    this.#noteHolders([lease], [row]);
    if (gaveBack) {
      givenBackTotal.inc({ reason: gaveBack });
      logger.info(
        { job: lease.job, epoch: row.epoch, to: row.reservedFor, reason: gaveBack },
        'this node has given the job back',
      );
      lease.drop();
      lease.runs?.stay();
      this.#tell();
      return;
    }
    const isNew = lease.heldEpoch !== row.epoch;
    lease.hold(row.epoch, startMs + termMs);
    if (!isNew) return;
    acquiredTotal.inc({ job: lease.job });
    logger.info({ job: lease.job, epoch: row.epoch }, 'this node does the job for all');
    this.#tell();
  }

  #lose(lease: Lease): void {
    lease.drop();
    lease.runs?.stay();
    this.#o.logger.warn({ job: lease.job }, 'the job has passed to another node');
    this.#tell();
  }

  #noteHolders(leases: readonly Lease[], rows: readonly (LeaseRow | undefined)[]): void {
    const known = new Map(this.#holders.map((holder) => [holder.job, holder]));
    for (const [i, { job }] of leases.entries()) {
      known.set(job, { job, nodeId: rows[i]?.holder ?? '', epoch: rows[i]?.epoch ?? 0 });
    }
    this.#holders = [...known.values()].filter(({ job }) => this.#leases.has(job)).sort((a, b) => (a.job < b.job ? -1 : 1));
  }

  async #readSource(reads: KvReads): Promise<string> {
    const jobs = [...this.#leases.keys()].sort();
    const rows = (await reads.getMany(jobs.map(nodeKeys.lease))).map(decodeRow);
    return jobs.map((job, i) => `${job}:${rows[i]?.epoch ?? 0}:${rows[i]?.holder ?? ''}`).join(' ');
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener();
      } catch (error) {
        this.#o.logger.error({ err: error }, 'a listener for leases failed');
      }
    }
  }

  #show(): void {
    for (const lease of this.#leases.values()) heldGauge.set({ job: lease.job }, lease.isHeld ? 1 : 0);
  }
}
