/**
 * Works the queue on this node: takes what the receiving side hands over, looks for what is due in this node's shards, and delivers it side by
 * side. Outages of the store make it pause, never stop; a claim stays ours as long as the node lives, so nothing is given up for being slow.
 */
import { type Clock, gauge, type Logger, type Random } from '../../ops/telemetry/index.js';
import {
  type Admission,
  allShards,
  type ClaimedDestination,
  ClaimLost,
  type Destinations,
  type NodeIdentity,
  NotAttempted,
  type Queue,
  type QueueShare,
  shardsOf,
} from '../../store/queue/index.js';
import { createBackoff } from '../mailflow/persist.js';
import type { DeliveryDesk, DeliveryJob } from '../mailflow/types.js';
import { DeliveryLanes, type LaneLimits, refOf } from './delivery-lanes.js';
import { queueLine, senderLine } from './holdings.js';
import { LateEntries } from './late-entries.js';
import { beginProbes } from './probes.js';
import { watchQueue } from './queue-gauges.js';
import { obstacleOf, Sorting } from './sorting.js';
import { Strangers } from './strangers.js';
import { WaitingLines } from './waiting-lines.js';

export interface RunnerLimits extends LaneLimits {
  /**
   * Destinations that this node claims at one time. What it accepts itself may add as many again, so that neither a crowd of slow remote
   * hosts nor a crowd of local mail keeps the other from being taken.
   */
  maxClaims: number;
  /** Due entries that one look takes. */
  claimBatch: number;
  /** Shortest pause between two looks that found nothing more to do: many wakes in a row make one look. */
  minScanGapMs: number;
  /** Longest pause between two looks at the own shards. */
  scanIntervalMs: number;
  /** Entries of others' shards are only taken when they have waited this long, and are still there half as long later. */
  lateAfterSeconds: number;
  /** Between two pages of the names of lines, which find what nobody told. */
  lineSweepMs: number;
  /** How often the claims in the store are compared with those known here. */
  compareIntervalMs: number;
}

export const defaultRunnerLimits: RunnerLimits = {
  maxLocalDeliveries: 64,
  maxRemoteDeliveries: 64,
  maxDeliveriesPerDomain: 10,
  maxInFlightBytes: 256 * 1024 * 1024,
  maxUnsavedDeliveries: 64,
  maxFreshBytes: 32 * 1024 * 1024,
  maxClaims: 2000,
  maxClaimsPerDomain: 100,
  maxClaimsPerSender: 1000,
  queues: [],
  claimBatch: 200,
  minScanGapMs: 5,
  scanIntervalMs: 5000,
  lateAfterSeconds: 30,
  lineSweepMs: 5000,
  compareIntervalMs: 60_000,
};

const shardsGauge = gauge('starling_queue_shards', 'Shards of the queue that this node works, as of its last look.');

/** For the store, when the time of a drain is over. */
const partingMs = 500;

export interface QueueRunnerDependencies {
  queue: Queue;
  node: NodeIdentity;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Delivers to the end and saves (node/mailflow `createDelivery`). */
  deliver(job: DeliveryJob, signal: AbortSignal): Promise<void>;
  /** Gives up an attempt that failed in a way nobody foresaw; with a `NotAttempted`, settles one that was not made. */
  putOff(job: DeliveryJob, error: unknown): Promise<void>;
  /** What is known of destinations in the whole cluster. Started and stopped by whoever made it. Default: all are attempted. */
  destinations?: Destinations;
  /** When something must happen to a waiting destination (its next notice). Wall clock, seconds. Default: at the end of the message's time. */
  deadlineSecondsOf?: Admission['deadlineSecondsOf'];
  /** How many deliveries to this domain may run at present, where that is less than the limit. */
  maxConcurrentTo?: (domain: string) => number;
  /** The nodes that shards are shared among, this one included. Default: this node alone. `wake` tells that they may have changed. */
  shares?: () => readonly QueueShare[];
  /**
   * False while this node may have been declared dead without knowing: nothing is claimed then and no delivery begun; what runs goes on, and its save
   * is decided by the fence. `wake` tells that it may be true again. Default: always true.
   */
  mayWork?: () => boolean;
  limits?: Partial<RunnerLimits>;
  /** Another node has declared this one dead: the process should leave. Called at most once. */
  onFenced?: () => void;
}

export interface QueueRunner extends DeliveryDesk {
  /** Begins to work. The node has joined the cluster: its fence stands. */
  start(): void;
  /** Looks again at once, e.g. after the members changed. */
  wake(): void;
  /** From now on; what runs already is let finish. */
  setLimits(limits: Partial<RunnerLimits>): void;
  /**
   * Stops claiming, hands back what has not begun, lets the rest finish until `deadlineMs` (monotonic clock), then cuts it off. Claims of what was cut
   * off go back when the node leaves the cluster.
   */
  drain(deadlineMs: number): Promise<void>;
  /** Stops at once and leaves the claims to whoever takes the node over. */
  stop(): Promise<void>;
  /** Destinations in hand. */
  readonly size: number;
}

export function createQueueRunner(dependencies: QueueRunnerDependencies): QueueRunner {
  return new Runner(dependencies);
}

type State = 'new' | 'running' | 'draining' | 'stopped';

class Runner implements QueueRunner {
  readonly node: NodeIdentity;
  readonly #d: QueueRunnerDependencies;
  readonly #limits: RunnerLimits;
  readonly #lanes: DeliveryLanes;
  readonly #stopping = new AbortController();
  #state: State = 'new';
  #loop: Promise<void> = Promise.resolve();
  #wakeUp: (() => void) | undefined;
  #isWoken = false;
  /** The last look stopped because this node held enough. */
  #isHungry = false;
  /** Where the next look begins among the shards: what one look can take may not reach the last ones. */
  #firstShard = 0;
  readonly #late: LateEntries;
  readonly #strangers: Strangers;
  readonly #sorting: Sorting;
  readonly #lines: WaitingLines;
  #unsubscribe: (() => void)[] = [];

  constructor(dependencies: QueueRunnerDependencies) {
    this.#d = dependencies;
    this.node = dependencies.node;
    this.#limits = { ...defaultRunnerLimits, ...dependencies.limits };
    const { queue, node, clock, random, logger, deliver, putOff, destinations, maxConcurrentTo } = dependencies;
    this.#late = new LateEntries(queue, clock, this.#limits);
    this.#lanes = new DeliveryLanes({
      clock,
      random,
      logger,
      limits: this.#limits,
      deliver: (job, signal) => {
        const untried = untriedOf(job.claimed);
        return untried ? putOff(job, untried) : deliver(job, signal);
      },
      onFault: putOff,
      maxConcurrentTo,
      mayStart: () => this.#mayWork,
      onDone: (claimed) => this.#madeRoom(claimed),
    });
    const take = (claimed: readonly ClaimedDestination[]) => this.take(claimed.map((one) => ({ claimed: one })));
    const onParked = (line: string) => this.#lines.note(line);
    this.#sorting = new Sorting({ queue, node, lanes: this.#lanes, destinations, take, onParked });
    const { holdings } = this.#lanes;
    this.#lines = new WaitingLines({ queue, clock, sorting: this.#sorting, holdings, limits: this.#limits, destinations });
    this.#strangers = new Strangers({ queue, node, clock, logger, lanes: this.#lanes, limits: this.#limits });
  }

  get size(): number {
    return this.#lanes.size;
  }

  get #hasStopped(): boolean {
    return this.#state === 'stopped';
  }

  get #mayWork(): boolean {
    return this.#d.mayWork?.() ?? true;
  }

  start(): void {
    if (this.#state !== 'new') throw new Error('a queue runner is started once');
    const { queue, clock, destinations } = this.#d;
    this.#state = 'running';
    this.#unsubscribe = [queue.onDue(() => this.wake()), watchQueue(queue, clock, () => this.#lanes)];
    if (destinations) this.#unsubscribe.push(destinations.onChanged((line) => this.#destinationsChanged(line)));
    queue.admitBy({
      lineFor: (domain, traits) => {
        const line = obstacleOf(destinations, domain, traits)?.line ?? this.#lanes.holdings.lineFor(domain, traits);
        if (line !== undefined) this.#lines.note(line);
        return line;
      },
      deadlineSecondsOf: this.#d.deadlineSecondsOf ?? (() => Number.POSITIVE_INFINITY),
    });
    this.#unsubscribe.push(() => queue.admitBy(undefined));
    this.#loop = this.#run();
  }

  setLimits(limits: Partial<RunnerLimits>): void {
    // The lanes look at the same object.
    Object.assign(this.#limits, limits);
    this.#lanes.pump();
    this.wake();
  }

  wake(): void {
    this.#isWoken = true;
    this.#wakeUp?.();
    this.#lanes.pump();
  }

  hasRoom(_sizeBytes: number): boolean {
    const localSize = this.#lanes.size - this.#lanes.remoteSize;
    return this.#state === 'running' && this.#mayWork && localSize < this.#limits.maxClaims;
  }

  take(jobs: readonly DeliveryJob[]): void {
    const unwanted: ClaimedDestination[] = [];
    for (const job of jobs) {
      const { destination } = job.claimed;
      const hasRoom = destination.isLocal || this.#lanes.remoteSize < this.#limits.maxClaims;
      // What has gone down while it was being claimed is not attempted either.
      if (hasRoom && !this.#isBlocked(job.claimed)) this.#lanes.add(job);
      else if (!this.#lanes.has(refOf(destination))) unwanted.push(job.claimed);
    }
    this.#lanes.pump();
    if (unwanted.length > 0) void this.#handBack(unwanted);
  }

  #isBlocked({ destination, isForced, untried }: ClaimedDestination): boolean {
    const { domain, traits, cancelReply } = destination;
    const mustGoOn = untried !== undefined || cancelReply !== undefined;
    return !mustGoOn && obstacleOf(this.#d.destinations, domain, traits, isForced) !== undefined;
  }

  #madeRoom({ destination: { domain, traits } }: ClaimedDestination): void {
    if (this.#state !== 'running') return;
    const lines = traits && !traits.isLocal ? [domain, senderLine(traits.senderHash), queueLine(traits.queueName)] : [];
    const isHungry = this.#isHungry && this.#lanes.size <= this.#limits.maxClaims / 2;
    if (isHungry || lines.some((line) => this.#lines.isWanting(line))) this.wake();
  }

  /** What waits here for a destination that is down or paused now makes room; what waits in its line may be its turn. */
  #destinationsChanged(line: string | undefined): void {
    const blocked = this.#lanes.takeWaitingOf((claimed) => this.#isBlocked(claimed));
    if (line !== undefined) this.#lines.note(line);
    if (blocked.length > 0) void this.#handBack(blocked);
    this.wake();
  }

  async drain(deadlineMs: number): Promise<void> {
    if (this.#state === 'stopped') return;
    this.#state = 'draining';
    const { clock, logger } = this.#d;
    // A store that does not answer must not hold up the rest: what is claimed goes back when the node leaves, or is found by the others.
    const storeUntilMs = Math.max(deadlineMs, clock.monotonicMs() + partingMs);
    await this.#until(storeUntilMs, this.#endLoop());
    const waiting = this.#lanes.takeWaiting();
    await this.#until(storeUntilMs, this.#handBack(waiting));
    await this.#until(deadlineMs, this.#lanes.idle());
    const unfinished = this.#lanes.running;
    this.#lanes.abort();
    // What was cut off still saves what the peer has said.
    if (unfinished > 0) await this.#until(clock.monotonicMs() + partingMs, this.#lanes.idle());
    this.#state = 'stopped';
    logger.info({ handedBack: waiting.length, unfinished }, 'queue runner drained');
  }

  async stop(): Promise<void> {
    if (this.#state === 'stopped') return;
    this.#state = 'stopped';
    // First of all: whoever was fenced must not go on sending while a look hangs in the store.
    this.#lanes.abort();
    await this.#endLoop();
    this.#lanes.takeWaiting();
  }

  #handBack(claimed: readonly ClaimedDestination[]): Promise<void> {
    return this.#best('claims not handed back', () => this.#giveBack(claimed));
  }

  /** Due at once for whoever works the queue: as the earliest of them was, because this node's clock may be far ahead of the others'. */
  #giveBack(claimed: readonly ClaimedDestination[]): Promise<void> {
    const { queue, clock } = this.#d;
    const nowSeconds = Math.floor(clock.nowMs() / 1000);
    const dueAtSeconds = claimed.reduce((earliest, { destination }) => Math.min(earliest, destination.dueAtSeconds), nowSeconds);
    return queue.release(claimed, dueAtSeconds);
  }

  #leaveQueue(): void {
    for (const unsubscribe of this.#unsubscribe.splice(0)) unsubscribe();
  }

  async #endLoop(): Promise<void> {
    this.#leaveQueue();
    this.#stopping.abort(new Error('the queue runner is stopping'));
    this.wake();
    await this.#loop;
  }

  async #best(complaint: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#d.logger.warn({ err: error }, complaint);
    }
  }

  async #until(deadlineMs: number, work: Promise<void>): Promise<void> {
    const { clock } = this.#d;
    const over = new AbortController();
    const late = clock.sleep(Math.max(0, deadlineMs - clock.monotonicMs()), over.signal).catch(() => {});
    await Promise.race([work, late]);
    over.abort();
  }

  async #run(): Promise<void> {
    const { clock, logger, random } = this.#d;
    const backoff = createBackoff(random);
    while (this.#state === 'running') {
      let pauseMs: number;
      this.#isWoken = false;
      try {
        pauseMs = await this.#look();
        backoff.reset();
      } catch (error) {
        // Not of a look that outlasted a drain: the node has given up its fence itself by then.
        if (error instanceof ClaimLost && !this.#hasStopped) {
          logger.error({ err: error }, 'this node has been fenced: it works on nothing any more');
          this.#state = 'stopped';
          this.#leaveQueue();
          this.#lanes.abort();
          this.#lanes.takeWaiting();
          this.#d.onFenced?.();
          return;
        }
        pauseMs = backoff.next();
        logger.warn({ err: error, pauseMs }, 'the queue can not be read, trying again');
        this.#isWoken = false;
      }
      if (pauseMs === 0 || this.#state !== 'running') continue;
      if (this.#isWoken) await clock.sleep(this.#limits.minScanGapMs, this.#stopping.signal).catch(() => {});
      else await this.#pause(pauseMs, clock);
    }
  }

  #pause(pauseMs: number, clock: Clock): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        timer.cancel();
        this.#wakeUp = undefined;
        resolve();
      };
      const timer = clock.setTimer(pauseMs, done, { background: true });
      this.#wakeUp = done;
    });
  }

  /** One look at what is due. Answers how long to wait for the next (ms); 0 when there is more already. */
  async #look(): Promise<number> {
    const { queue, clock, shares } = this.#d;
    const { maxClaims, claimBatch, scanIntervalMs } = this.#limits;
    if (!this.#mayWork) return scanIntervalMs;
    await this.#strangers.giveBack((claimed) => this.#giveBack(claimed));
    const room = maxClaims - this.#lanes.size;
    this.#isHungry = room <= 0;
    if (room <= 0) return scanIntervalMs;
    const nowSeconds = Math.floor(clock.nowMs() / 1000);
    const among = shares?.() ?? [];
    // Alone, also while it drains or is not ready yet and has no share: nobody else would work them.
    const own = among.length > 1 ? shardsOf(this.node.nodeId, among) : allShards;
    shardsGauge.set(own.length);
    // Not only as many as there is room for: what can't be taken now must not hide what can.
    const { entries, nextDueAtSeconds } = await queue.due(this.#rotated(own), nowSeconds, claimBatch);
    if (own.length < allShards.length) {
      const others = allShards.filter((shard) => !own.includes(shard));
      entries.push(...(await this.#late.look(this.#rotated(others), nowSeconds)));
    }
    const { won, parked } = await this.#sorting.work(entries, room);
    const lines = await this.#lines.look(own, room - won);
    await this.#probe(among);
    const mayHaveMore = nextDueAtSeconds !== undefined && nextDueAtSeconds <= nowSeconds;
    // Without a win there is nothing to hurry for: others are at work on these.
    if ((mayHaveMore && won + parked > 0) || lines.hasMore) return 0;
    if (nextDueAtSeconds === undefined) return scanIntervalMs;
    const untilNextMs = nextDueAtSeconds * 1000 - clock.nowMs();
    return Math.min(scanIntervalMs, Math.max(untilNextMs, 50));
  }

  async #probe(among: readonly QueueShare[]): Promise<void> {
    const { destinations, queue, clock, logger, node } = this.#d;
    if (!destinations) return;
    const take = (claimed: readonly ClaimedDestination[]) => this.take(claimed.map((one) => ({ claimed: one })));
    const nodeIds = among.map(({ nodeId }) => nodeId);
    await beginProbes({ queue, destinations, node, clock, logger, take }, nodeIds);
  }

  /** The shards in turn: each is first once in as many looks as there are. */
  #rotated(shards: readonly number[]): number[] {
    const at = this.#firstShard++ % Math.max(shards.length, 1);
    return [...shards.slice(at), ...shards.slice(0, at)];
  }
}

/** What is to be settled without an attempt. */
function untriedOf({ untried, destination: { cancelReply } }: ClaimedDestination): NotAttempted | undefined {
  return cancelReply ? new NotAttempted('failed', cancelReply) : untried;
}
