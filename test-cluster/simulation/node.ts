/**
 * One simulated node: the production parts put together as `node/main.ts` does it, on a store, a clock, a network and randomness of the run. What is not
 * here has sockets: listeners, HTTP, the control socket.
 */
import type { LeaderLeases } from '../../cluster/leases/index.js';
import type { Membership } from '../../cluster/membership/index.js';
import type { SimulatedGossip } from '../../cluster/testing/network.js';
import type { NodeClock } from '../../cluster/testing/virtual-time.js';
import { NodeCluster } from '../../node/cluster.js';
import { ClusterClock } from '../../node/cluster-clock.js';
import { createDelivery, createDirectDelivery, createReceiver, type Delivery, type Receiver } from '../../node/mailflow/index.js';
import { reasonToRefuse } from '../../node/membership.js';
import { createPurger, createQueueRunner, type Purger, type QueueRunner } from '../../node/services/index.js';
import type { Stores } from '../../node/stores.js';
import { silentLogger } from '../../ops/telemetry/index.js';
import { createBlobStore } from '../../store/blobs/index.js';
import { createDirectory } from '../../store/directory/index.js';
import { createMailStore } from '../../store/mail/index.js';
import { createDestinations, createQueue, type Destinations, NotAttempted } from '../../store/queue/index.js';
import type { BrokenParts } from './broken.js';
import { startJobs } from './jobs.js';
import type { NodeParts } from './node-parts.js';
import type { SeededRandom } from './random.js';
import { simulatedSettings } from './settings.js';
import { describe } from './story.js';
import type { Surroundings } from './surroundings.js';

/** `starting` until it has joined; `serving`; `draining` until it has left; `gone`. */
export type NodeStage = 'starting' | 'serving' | 'draining' | 'gone';

/** As in production, but with less of it: a drain that fits a run. */
const drainMs = 8_000;
const leaveMs = 5_000;
const partingMs = 500;

export class SimulatedNode {
  /** The machine's. */
  readonly clock: NodeClock;
  readonly nodeId: string;
  readonly gossip: SimulatedGossip;
  readonly parts: NodeParts;
  readonly cluster: NodeCluster;
  readonly runner: QueueRunner;
  readonly receiver: Receiver;
  stage: NodeStage = 'starting';
  /** The process is gone: nothing that it still seems to do may count. */
  isDead = false;
  isFenced = false;
  /** Deliveries of this process were cut off in the middle, so that others do them again. */
  hasBeenCutOff = false;
  /** As the cluster corrects it. */
  readonly #date: ClusterClock;
  readonly #delivery: Delivery;
  readonly #destinations: Destinations;
  readonly #purger: Purger;
  readonly stopped: Promise<void>;
  #finish!: () => void;

  constructor(
    readonly world: Surroundings,
    /** In the story. */
    readonly name: string,
    readonly random: SeededRandom,
    broken: BrokenParts,
  ) {
    const { settings, shared } = { settings: simulatedSettings, shared: { logger: silentLogger, random } };
    this.stopped = new Promise((resolve) => {
      this.#finish = resolve;
    });
    this.clock = world.time.clock();
    this.clock.wallShiftMs = world.wallShiftMs;
    this.nodeId = random.fork('id').bytes(16).toString('hex');
    const { nodeId } = this;
    const clock = new ClusterClock(this.clock);
    this.#date = clock;
    const kv = world.database.storeOf(name, this.clock, random.fork('store'), () => this.die());
    kv.faults.delayMs = (operation) => world.storeDelayMs(name, operation);
    const ids = random.fork('blob-ids');
    const blobs = createBlobStore({ ...shared, kv, clock, mayUseTimeIds: () => ids.chance(0.6) });
    // Some changes of flags go by range, others do not, and both meet in one mailbox; rows are brought up to date while clients go on.
    const ways = random.fork('flags');
    const mail = createMailStore({
      ...shared,
      kv,
      clock,
      blobs,
      flagRanges: { minUids: 1, maxRanges: 4, settleDelayMs: 3_000, settlePauseMs: 20 },
      mayWriteFlagRanges: () => ways.chance(0.6),
    });
    const directory = createDirectory({ ...shared, kv, clock, lookupFreshMs: 50 });
    const queue = createQueue({ ...shared, kv: broken.queueStore(kv), clock, blobs });
    this.parts = { kv, blobs, mail, directory, queue };
    this.gossip = world.network.node(nodeId, this.clock);
    const all = { ...shared, ...this.parts, clock, settings: () => settings };
    this.cluster = new NodeCluster(
      {
        config: { hostname: name, listeners: [], roles: ['queue'], store: { backend: 'memory' }, gossip: {} } as never,
        stores: this.#storesFor(broken),
        logger: silentLogger,
      },
      { nodeId, incarnation: 1 },
      this.gossip,
    );
    const mayWork = () => this.membership.standing === 'joined';
    const destinations = createDestinations({ ...shared, kv, clock, nodeId, random: random.fork('destinations') });
    this.#destinations = destinations;
    this.#delivery = createDelivery({
      ...all,
      destinations,
      kv: broken.deliveryStore(kv),
      resolver: world.remote.resolver,
      connect: (options) => world.remote.connect(this, options),
      maySend: mayWork,
    });
    this.runner = createQueueRunner({
      ...shared,
      queue,
      clock,
      node: this.cluster.node,
      deliver: (job, signal) => this.#delivery.deliver(job, signal),
      putOff: (job, error) => {
        // Deliveries fail in foreseen ways only, whatever the store and the peers do.
        if (!this.isDead && !(error instanceof NotAttempted))
          world.story.violate('unforeseen', `${this.name}: a delivery failed: ${describe(error)}`, [this.name]);
        return this.#delivery.putOff(job, error);
      },
      destinations,
      shares: () => this.membership.shares('queue'),
      mayWork,
      onFenced: () => this.cluster.fenced(),
      limits: world.limits,
    });
    this.receiver = createReceiver({
      ...all,
      blobs: world.observedBlobs(blobs),
      desk: this.runner,
      direct: createDirectDelivery({ ...all, blobs: broken.directBlobs(blobs) }),
    });
    this.#purger = createPurger({ ...all, settings: { intervalMs: 5_000, accountIntervalMs: 15_000, keptModseqs: 40 } });
    this.cluster.onFenced(() => this.#fenced());
    this.cluster.onWork(() => this.runner.wake());
    this.membership.onDrainRequested(() => this.drain('it was asked to'));
  }

  get membership(): Membership {
    return this.cluster.membership;
  }

  get leases(): LeaderLeases {
    return this.cluster.leases;
  }

  /** What the cluster's side of a node asks of its stores. */
  #storesFor(broken: BrokenParts): Stores {
    const { world, random, parts } = this;
    const clock = this.#date;
    const { releaseClaimsOf } = broken.takeoverQueue(parts, clock, random);
    const asked = {
      ...parts,
      kv: broken.membershipStore(parts.kv),
      queue: { ...parts.queue, releaseClaimsOf },
      clock,
      random: random.fork('cluster'),
      settings: { current: { cluster: { failureDetection: world.failureDetection } }, refresh: async () => {} },
      onChanged: () => () => {},
    };
    return asked as unknown as Stores;
  }

  /** Whether a client that knocks would be let in. */
  get isOpen(): boolean {
    return this.stage === 'serving' && !this.isDead && !this.isFenced && reasonToRefuse(this.membership) === undefined;
  }

  get isAlive(): boolean {
    return !this.isDead && this.stage !== 'gone';
  }

  async start(): Promise<void> {
    await this.gossip.start();
    await this.cluster.join();
    if (this.isDead || this.stage !== 'starting') return;
    this.runner.start();
    void this.#destinations.start();
    this.receiver.start();
    startJobs(this, this.#purger);
    this.stage = 'serving';
    this.world.story.tell('node', this.name, `serves, id ${this.nodeId.slice(0, 8)}`);
    void this.membership.setState('ready');
  }

  /** As after kill -9. */
  die(): void {
    if (this.isDead) return;
    this.isDead = true;
    this.stage = 'gone';
    this.hasBeenCutOff = true;
    this.clock.isPaused = true;
    this.world.network.kill(this.nodeId);
    this.world.story.tell('node', this.name, 'is dead');
    this.#finish();
  }

  /** As after SIGTERM. */
  drain(reason: string): void {
    if (this.stage !== 'serving') return;
    this.stage = 'draining';
    this.world.story.tell('node', this.name, `drains: ${reason}`);
    void this.#stop().then(
      () => this.#gone(),
      (error: unknown) => {
        this.world.story.violate('stop-failed', `${this.name} could not stop: ${describe(error)}`, [this.name]);
        this.#gone();
      },
    );
  }

  #gone(): void {
    if (this.isDead) return;
    this.stage = 'gone';
    this.world.story.tell('node', this.name, 'has stopped');
    this.#finish();
  }

  #fenced(): void {
    if (this.isFenced || this.isDead) return;
    this.isFenced = true;
    this.hasBeenCutOff = true;
    this.world.story.tell('node', this.name, 'learns that it has been declared dead');
    void this.runner.stop();
    this.drain('it is fenced');
  }

  async #stop(): Promise<void> {
    const deadlineMs = this.clock.monotonicMs() + drainMs;
    await Promise.all([
      this.#within(deadlineMs, this.membership.setState('draining')),
      this.receiver.drain(deadlineMs),
      this.runner.drain(deadlineMs),
      this.#within(deadlineMs, this.leases.release()),
    ]);
    // Whatever ran then was cut off; what the peer has taken meanwhile is sent again.
    this.hasBeenCutOff = true;
    this.#delivery.close();
    void this.#destinations.stop();
    await this.#within(this.clock.monotonicMs() + leaveMs, this.cluster.leave());
    await this.#within(this.clock.monotonicMs() + partingMs, this.cluster.close());
    await this.parts.mail.close();
    await this.parts.kv.close();
  }

  async #within(deadlineMs: number, work: Promise<unknown>): Promise<void> {
    const over = new AbortController();
    const late = this.clock.sleep(Math.max(0, deadlineMs - this.clock.monotonicMs()), over.signal).catch(() => undefined);
    await Promise.race([work, late]);
    over.abort();
  }
}
