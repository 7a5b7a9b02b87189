/** One run's world: its time, its randomness, its store, its network, its nodes, and everything that watches them. */
import { type FailureTiming, failureTimings } from '../../cluster/membership/contract.js';
import { SimulatedNetwork } from '../../cluster/testing/network.js';
import { type NodeClock, VirtualTime } from '../../cluster/testing/virtual-time.js';
import type { RunnerLimits } from '../../node/services/index.js';
import { silentLogger } from '../../ops/telemetry/index.js';
import { type BlobStore, createBlobStore } from '../../store/blobs/index.js';
import { createDirectory } from '../../store/directory/index.js';
import type { MemoryStore } from '../../store/kv/index.js';
import type { MemoryOperation } from '../../store/kv/memory/faults.js';
import { createMailStore, type OpenMailStore } from '../../store/mail/index.js';
import { type BrokenParts, type Mistake, partsWith } from './broken.js';
import { CommitWatch } from './commit-watch.js';
import { FaultBoard } from './fault-board.js';
import { Ledger, placeOf } from './ledger.js';
import { SimulatedNode } from './node.js';
import { observedBlobs } from './observed-blobs.js';
import { type CommitFate, ObservedDatabase } from './observed-database.js';
import { SeededRandom } from './random.js';
import { politeHabits, RemoteHosts } from './remote-hosts.js';
import { localDomain, users } from './settings.js';
import { describe, Story } from './story.js';
import type { Surroundings } from './surroundings.js';

export interface WorldOptions {
  seed: number;
  mistake?: Mistake;
}

export class World implements Surroundings {
  readonly random: SeededRandom;
  readonly time = new VirtualTime();
  /** The outside world's: never wrong, never paused. */
  readonly clock: NodeClock;
  readonly database: ObservedDatabase;
  /** Looks at the store, and no fault touches it. */
  readonly eye: { kv: MemoryStore; blobs: BlobStore; mail: OpenMailStore };
  readonly story: Story;
  readonly watch: CommitWatch;
  readonly network: SimulatedNetwork;
  readonly remote: RemoteHosts;
  readonly faults: FaultBoard;
  readonly ledger = new Ledger();
  readonly failureDetection: 'fast' | 'normal';
  readonly timing: FailureTiming;
  readonly limits: Partial<RunnerLimits>;
  readonly broken: BrokenParts;
  readonly nodes: SimulatedNode[] = [];
  /** In the order of `users`. */
  accounts: string[] = [];
  /** Content to token, of what must be readable at the end. */
  readonly toBeRead = new Map<string, string>();
  /** Clients come to their end. */
  isClosing = false;
  /** Of the clock of a node that starts. */
  wallShiftMs = 0;
  /** Names of nodes whose next commit is their last. */
  readonly doomed = new Map<string, CommitFate>();
  /** What happens when a node's fence is broken, by its id. */
  readonly whenFenced = new Map<string, (by: string) => void>();
  /** Commits that a node still makes before it is doomed. */
  readonly #spared = new Map<string, { fate: CommitFate; commits: number }>();
  #count = 0;

  constructor(readonly options: WorldOptions) {
    const { seed } = options;
    this.random = new SeededRandom(seed);
    this.clock = this.time.clock();
    this.story = new Story(seed, () => this.time.nowMs);
    this.failureDetection = this.random.fork('timing').chance(0.5) ? 'fast' : 'normal';
    this.timing = failureTimings[this.failureDetection];
    this.broken = partsWith(options.mistake);
    this.network = new SimulatedNetwork({ random: this.random.fork('network') });
    this.faults = new FaultBoard(this);
    this.watch = new CommitWatch({
      story: this.story,
      nameOf: (nodeId) => this.node(nodeId)?.name ?? nodeId.slice(0, 8),
      idOf: (author) => this.nodes.find(({ name }) => name === author)?.nodeId,
      onVerdict: (deadId, by) => {
        this.faults.judgeVerdict(deadId, by);
        this.whenFenced.get(deadId)?.(by);
        this.whenFenced.delete(deadId);
      },
    });
    this.watch.mail.mayVanish = (accountId, mailboxId, uid) => this.ledger.unwanted.has(placeOf(accountId, mailboxId, uid));
    this.database = new ObservedDatabase({ clock: this.clock });
    this.database.observer = {
      fateOf: (author) => this.doomed.get(author) ?? 'done',
      committed: (commit) => {
        this.#approachDoom(commit.author);
        this.watch.committed(commit);
      },
    };
    const kv = this.database.storeOf('eye', this.clock, this.random.fork('eye'));
    const parts = { kv, clock: this.clock, random: this.random.fork('eye-parts'), logger: silentLogger };
    const blobs = createBlobStore(parts);
    this.eye = { kv, blobs, mail: createMailStore({ ...parts, blobs }) };
    this.remote = new RemoteHosts(this.clock, this.random.fork('remote'), this.story);
    const habits = this.random.fork('habits');
    // Slow peers keep claims in hand for long, eager nodes look into one another's shards, small ones leave what they accept to all.
    this.remote.habits = { ...politeHabits, maxReplyMs: habits.pick([50, 1_000, 4_000]) };
    this.limits = {
      scanIntervalMs: 2_000,
      compareIntervalMs: 10_000,
      lateAfterSeconds: habits.pick([0, 8]),
      maxClaims: habits.pick([2, 2_000]),
    };
  }

  /** Domain and accounts, as an administrator makes them before the first mail comes. */
  async settle(): Promise<void> {
    const parts = { kv: this.eye.kv, clock: this.clock, random: this.random.fork('directory'), logger: silentLogger };
    const directory = createDirectory(parts);
    await directory.createDomain(localDomain);
    for (const address of users) {
      const { id } = await directory.createPrincipal({ kind: 'account', address });
      await this.eye.mail.ensureAccount(id);
      this.accounts.push(id);
    }
  }

  node(nodeId: string): SimulatedNode | undefined {
    return this.nodes.find((node) => node.nodeId === nodeId);
  }

  /** Another process, with an id of its own. It is among the nodes at once and begins to serve when it has joined. */
  async startNode(): Promise<SimulatedNode> {
    const name = `n${++this.#count}`;
    const node = new SimulatedNode(this, name, this.random.fork(name), this.broken);
    this.nodes.push(node);
    this.faults.greet(node);
    this.story.tell('node', name, `starts, id ${node.nodeId.slice(0, 8)}`);
    await node.start();
    return node;
  }

  /** Starts another node, in whatever state the cluster is; what keeps it from joining is told. */
  async bringUp(): Promise<void> {
    if (this.isClosing && this.alive.length >= 3) return;
    try {
      await this.startNode();
    } catch (error) {
      const node = this.nodes.at(-1)!;
      this.story.tell('node', node.name, `could not join: ${describe(error)}`);
      node.die();
      await this.clock.sleep(2_000);
      await this.bringUp();
    }
  }

  /** The node dies at one of its commits, after `commits` more. */
  doom(node: SimulatedNode, fate: CommitFate, commits: number): void {
    if (commits === 0) this.doomed.set(node.name, fate);
    else this.#spared.set(node.name, { fate, commits });
  }

  #approachDoom(author: string): void {
    const spared = this.#spared.get(author);
    if (!spared || --spared.commits > 0) return;
    this.#spared.delete(author);
    this.doomed.set(author, spared.fate);
  }

  get alive(): SimulatedNode[] {
    return this.nodes.filter(({ isAlive }) => isAlive);
  }

  /** Nodes that would let a client in. */
  get open(): SimulatedNode[] {
    return this.nodes.filter(({ isOpen }) => isOpen);
  }

  storeDelayMs(name: string, operation: MemoryOperation): number {
    return this.faults.storeDelayMs(name, operation);
  }

  observedBlobs(blobs: BlobStore): BlobStore {
    return observedBlobs(blobs, (blobId, token) => this.ledger.named(blobId, token));
  }

  /** `work`, or nothing when it takes longer than a client waits. */
  heard<T>(work: Promise<T>, limitMs: number): Promise<{ value: T } | { error: unknown } | undefined> {
    return new Promise((resolve) => {
      const late = this.clock.setTimer(limitMs, () => resolve(undefined));
      work.then(
        (value) => {
          late.cancel();
          resolve({ value });
        },
        (error: unknown) => {
          late.cancel();
          resolve({ error });
        },
      );
    });
  }
}
