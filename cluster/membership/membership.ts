/**
 * One node's membership: it sends heartbeats, looks at the others', finds the dead and has them buried, and knows how it stands itself. A round is a
 * heartbeat and then a look; only when both came through does the time count against the others, so a node that can't write judges nobody.
 */
import type { Clock, Logger, Random, Timer } from '../../ops/telemetry/index.js';
import type { KvReads, KvStore } from '../../store/kv/contract.js';
import { StandstillWatch } from '../standstill.js';
import { Burials, freeClaims } from './burials.js';
import { ClockSkews } from './clock-skew.js';
import {
  type ClaimTable,
  type Membership,
  type NodeDescription,
  NodeFenced,
  type NodeRow,
  type NodeState,
  type NodeView,
  type Standing,
} from './contract.js';
import { Deadline } from './deadline.js';
import { heartbeatFailures, showInMetrics } from './metrics.js';
import { beat, enter, type FoundNode, forget, readNodes, retire } from './records.js';
import { decodeRow } from './rows.js';

export interface MembershipOptions {
  kv: KvStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** 32 lower-case hex digits, random per process start. */
  nodeId: string;
  incarnation: number;
  self: NodeDescription;
  claims: ClaimTable;
  /** Asked in the transaction that makes this process a member: throws when no node may run on this store. */
  precondition?: (reads: KvReads) => Promise<void>;
  /** Another node has declared this one dead: the process should leave. Called at most once. */
  onFenced?: () => void;
  /** From the beginning of one round to that of the next. Default 2 000. */
  heartbeatMs?: number;
  /** Without news for so long a node is dead, or takes itself for it. The same on all nodes of a cluster. Default 10 000. */
  termMs?: number;
}

interface KnownNode extends FoundNode {
  row?: NodeRow;
}

/** After a round that failed the next one is tried sooner. */
const retryMs = 500;

export function createMembership(options: MembershipOptions): Membership {
  return new ClusterMembership(options);
}

class ClusterMembership implements Membership {
  readonly nodeId: string;
  readonly #o: MembershipOptions;
  readonly #heartbeatMs: number;
  readonly #termMs: number;
  readonly #watch: StandstillWatch;
  readonly #skews: ClockSkews;
  readonly #burials: Burials;
  readonly #deadline: Deadline;
  readonly #stopping = new AbortController();
  /** As last written, or being written. */
  #row: NodeRow;
  #state: NodeState = 'starting';
  #phase: Exclude<Standing, 'storeless'> = 'new';
  /** Monotonic; beginning of the last heartbeat that came through. */
  #lastBeatMs = 0;
  #failedRounds = 0;
  #known = new Map<string, KnownNode>();
  /** Nodes that hold claims and have neither row nor fence, and since when (monotonic) that has been seen. */
  #strangers = new Map<string, number>();
  #strangersAtMs: number;
  #members: readonly string[] = [];
  #told: Standing = 'new';
  #storelessTimer: Timer | undefined;
  #loop: Promise<void> = Promise.resolve();
  #wakeUp: (() => void) | undefined;
  #isWoken = false;
  #hide = () => {};
  readonly #changeListeners = new Set<() => void>();
  readonly #standingListeners = new Set<(standing: Standing) => void>();
  readonly #stateWaiters = new Set<{ state: NodeState; resolve: () => void }>();

  constructor(options: MembershipOptions) {
    const { kv, clock, random, logger, nodeId, incarnation, self, claims, heartbeatMs = 2_000, termMs = 10_000 } = options;
    if (termMs < 3 * heartbeatMs) throw new RangeError('a term must have room for three heartbeats');
    this.#o = options;
    this.nodeId = nodeId;
    this.#heartbeatMs = heartbeatMs;
    this.#termMs = termMs;
    this.#watch = new StandstillWatch(2 * heartbeatMs);
    this.#skews = new ClockSkews(logger, heartbeatMs);
    this.#deadline = new Deadline(clock, termMs / 2);
    this.#strangersAtMs = clock.monotonicMs();
    const startToken = random.bytes(16).toString('hex');
    const nowMs = clock.nowMs();
    this.#row = {
      ...self,
      nodeId,
      incarnation,
      startToken,
      state: 'starting',
      startedAtMs: nowMs,
      heartbeat: 0,
      sentAtMs: nowMs,
    };
    this.#burials = new Burials({
      kv,
      claims,
      logger,
      nodeId,
      signal: this.#stopping.signal,
      onFenceBroken: (dead) => {
        const known = this.#known.get(dead);
        if (known) known.hasFence = false;
        this.#share();
      },
      onFenced: (error) => this.#fenced(error),
    });
  }

  get standing(): Standing {
    const isLate = this.#phase === 'joined' && this.heartbeatAgeMs >= this.#termMs;
    return isLate ? 'storeless' : this.#phase;
  }

  get heartbeatAgeMs(): number {
    return this.#o.clock.monotonicMs() - this.#lastBeatMs;
  }

  async join(options: { isStoreExclusive?: boolean } = {}): Promise<void> {
    if (this.#phase !== 'new') throw new Error('a node joins once');
    const { kv, clock } = this.#o;
    const startMs = clock.monotonicMs();
    await enter(kv, this.#row, this.#o.precondition);
    this.#phase = 'joined';
    this.#beaten(startMs);
    if (options.isStoreExclusive) await this.#freeAll();
    await this.#look();
    this.#hide = showInMetrics(this);
    this.#loop = this.#run();
  }

  setState(state: 'ready' | 'draining'): Promise<void> {
    this.#state = state;
    this.#share();
    if (this.#phase !== 'joined' || this.#stopping.signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      this.#stateWaiters.add({ state, resolve });
      this.#wake();
    });
  }

  members(role?: string): readonly string[] {
    if (role === undefined) return this.#members;
    const rowOf = (nodeId: string) => (nodeId === this.nodeId ? this.#row : this.#known.get(nodeId)?.row);
    return this.#members.filter((nodeId) => rowOf(nodeId)?.roles.includes(role));
  }

  nodes(): NodeView[] {
    const self: NodeView = {
      nodeId: this.nodeId,
      isSelf: true,
      health: this.#phase === 'fenced' ? 'freeing' : this.heartbeatAgeMs > this.#termMs / 2 ? 'late' : 'alive',
      row: { ...this.#row, state: this.#state },
      heartbeatAgeMs: this.heartbeatAgeMs,
    };
    const nowMs = this.#o.clock.monotonicMs();
    const others = [...this.#known].map(([nodeId, { row, hasFence }]): NodeView => {
      const heartbeatAgeMs = nowMs - (this.#watch.sinceMs(nodeId) ?? nowMs);
      const health = !hasFence ? 'freeing' : heartbeatAgeMs > this.#termMs / 2 ? 'late' : 'alive';
      return { nodeId, isSelf: false, health, row, heartbeatAgeMs, clockSkewMs: this.#skews.of(nodeId) };
    });
    return [self, ...others.sort((a, b) => (a.nodeId < b.nodeId ? -1 : 1))];
  }

  commonFormat(kind: string): number {
    const rows = [this.#row, ...[...this.#known.values()].map(({ row }) => row)];
    return Math.min(...rows.map((row) => row?.formats[kind] ?? 0));
  }

  onChange(listener: () => void): () => void {
    this.#changeListeners.add(listener);
    return () => this.#changeListeners.delete(listener);
  }

  onStanding(listener: (standing: Standing) => void): () => void {
    this.#standingListeners.add(listener);
    return () => this.#standingListeners.delete(listener);
  }

  async leave(): Promise<void> {
    if (this.#phase === 'left') return;
    const wasJoined = this.#phase === 'joined';
    await this.stop();
    if (!wasJoined) return;
    const { kv, claims, logger } = this.#o;
    try {
      if (!(await retire(kv, this.#row))) return;
      const freed = await freeClaims(claims, this.nodeId);
      await forget(kv, this.nodeId);
      logger.info({ claims: freed }, 'this node has left the cluster');
    } catch (error) {
      logger.warn({ err: error }, 'this node could not leave in good order: the others will find what is left of it');
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the node leaves the cluster'));
    this.#end('left');
    this.#wake();
    await this.#loop;
  }

  /** The phases after which nothing comes. */
  #end(phase: 'fenced' | 'left'): void {
    this.#storelessTimer?.cancel();
    if (phase === 'left' || this.#phase === 'joined') this.#phase = phase;
    for (const { resolve } of this.#stateWaiters) resolve();
    this.#stateWaiters.clear();
    if (phase === 'left') this.#hide();
    this.#tell();
  }

  async #run(): Promise<void> {
    const { clock } = this.#o;
    // Joining was the first round.
    let pauseMs = this.#heartbeatMs;
    for (;;) {
      if (!this.#isWoken && this.#phase === 'joined') await this.#pause(Math.max(pauseMs, 1));
      if (this.#phase !== 'joined') return;
      const startMs = clock.monotonicMs();
      this.#isWoken = false;
      const isDone = await this.#round();
      pauseMs = isDone ? startMs + this.#heartbeatMs - clock.monotonicMs() : retryMs;
    }
  }

  #pause(pauseMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        timer.cancel();
        this.#wakeUp = undefined;
        resolve();
      };
      const timer = this.#o.clock.setTimer(pauseMs, done, { background: true });
      this.#wakeUp = done;
    });
  }

  #wake(): void {
    this.#isWoken = true;
    this.#wakeUp?.();
  }

  async #round(): Promise<boolean> {
    const { logger } = this.#o;
    try {
      await this.#beat();
      await this.#look();
      if (this.#failedRounds > 0) logger.info({ failedRounds: this.#failedRounds }, 'heartbeats come through again');
      this.#failedRounds = 0;
      return true;
    } catch (error) {
      if (this.#stopping.signal.aborted) return false;
      if (error instanceof NodeFenced) {
        this.#fenced(error);
        return false;
      }
      heartbeatFailures.inc();
      if (this.#failedRounds++ === 0) logger.warn({ err: error }, 'a heartbeat did not come through, trying again');
      return false;
    }
  }

  async #beat(): Promise<void> {
    const { kv, clock } = this.#o;
    const startMs = clock.monotonicMs();
    // A heartbeat that was given up may still arrive: no two are alike.
    const row = { ...this.#row, state: this.#state, heartbeat: this.#row.heartbeat + 1, sentAtMs: clock.nowMs() };
    this.#row = row;
    await this.#deadline.bound((signal) => beat(kv, row, { signal }));
    this.#beaten(startMs);
    for (const waiter of this.#stateWaiters) {
      if (waiter.state !== row.state) continue;
      this.#stateWaiters.delete(waiter);
      waiter.resolve();
    }
  }

  /** A heartbeat that was begun at `startMs` has come through: until a term after that, nobody can have found this node dead. */
  #beaten(startMs: number): void {
    if (this.#phase !== 'joined') return;
    this.#lastBeatMs = startMs;
    this.#storelessTimer?.cancel();
    const leftMs = startMs + this.#termMs - this.#o.clock.monotonicMs();
    this.#storelessTimer = this.#o.clock.setTimer(Math.max(leftMs, 0), () => this.#tell(), { background: true });
    this.#tell();
  }

  #tell(): void {
    const { standing } = this;
    if (standing === this.#told) return;
    const { logger } = this.#o;
    if (standing === 'storeless') logger.error('no heartbeat for a term: this node takes on nothing until the store answers');
    else if (this.#told === 'storeless' && standing === 'joined') logger.info('the store answers, and this node still stands');
    this.#told = standing;
    for (const listener of [...this.#standingListeners]) this.#guarded(() => listener(standing));
  }

  #fenced(error: NodeFenced): void {
    if (this.#phase !== 'joined') return;
    this.#o.logger.error({ err: error }, 'this node has been fenced: it can save nothing any more');
    this.#stopping.abort(error);
    this.#end('fenced');
    this.#wake();
    this.#guarded(() => this.#o.onFenced?.());
  }

  #guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#o.logger.error({ err: error }, 'a listener of the membership failed');
    }
  }

  async #look(): Promise<void> {
    const { kv, clock } = this.#o;
    const startMs = clock.monotonicMs();
    const found = await this.#deadline.bound((signal) => readNodes(kv, { signal }));
    const endMs = clock.monotonicMs();
    found.delete(this.nodeId);
    const states = new Map([...found].map(([id, { bytes, hasFence }]) => [id, `${hasFence}${bytes?.toString('latin1') ?? ''}`]));
    const changed = this.#watch.look(states, startMs, endMs);
    this.#remember(found, new Set(changed));
    this.#judge();
    await this.#lookForStrangers();
  }

  #remember(found: ReadonlyMap<string, FoundNode>, changed: ReadonlySet<string>): void {
    const before = this.#known;
    this.#known = new Map();
    for (const [nodeId, { bytes, hasFence }] of found) {
      const known = before.get(nodeId);
      const row = changed.has(nodeId) || !known ? bytes && decodeRow(nodeId, bytes) : known.row;
      this.#known.set(nodeId, { bytes, hasFence, row });
      // The first sight of a row, ever or since an outage, says nothing about clocks: it may be old.
      const isFresh = known !== undefined && changed.has(nodeId) && !this.#watch.isInterrupted;
      if (isFresh && row && hasFence) this.#skews.sample(nodeId, row.sentAtMs, this.#o.clock.nowMs());
    }
    this.#skews.keep(this.#known);
    this.#share();
  }

  /** Has buried whoever has stood still for a term. */
  #judge(): void {
    for (const [nodeId, { bytes, hasFence }] of this.#known) {
      if (this.#watch.stoodStillMs(nodeId) >= this.#termMs) this.#burials.begin({ nodeId, bytes, hasFence });
    }
  }

  /** Claims without row and fence, as a restored store has them: nobody can save under them, and nobody's heartbeat would stop for them. */
  async #lookForStrangers(): Promise<void> {
    const { clock, claims, logger } = this.#o;
    const nowMs = clock.monotonicMs();
    if (nowMs - this.#strangersAtMs < this.#termMs) return;
    this.#strangersAtMs = nowMs;
    try {
      const holders = await this.#deadline.bound(() => claims.holders());
      const strangers = holders.filter((nodeId) => nodeId !== this.nodeId && !this.#known.has(nodeId));
      this.#strangers = new Map(strangers.map((nodeId) => [nodeId, this.#strangers.get(nodeId) ?? nowMs]));
    } catch (error) {
      logger.debug({ err: error }, 'the holders of claims could not be read');
      return;
    }
    for (const [nodeId, sinceMs] of this.#strangers) {
      if (nowMs - sinceMs >= this.#termMs) this.#burials.begin({ nodeId, hasFence: false });
    }
  }

  /** Frees whatever anybody else has left, at once. Only where no other process can be using the store. */
  async #freeAll(): Promise<void> {
    const { kv, claims } = this.#o;
    const found = await readNodes(kv);
    for (const nodeId of await claims.holders()) if (!found.has(nodeId)) found.set(nodeId, { hasFence: false });
    found.delete(this.nodeId);
    for (const [nodeId, node] of found) await this.#burials.bury({ nodeId, ...node }, true);
  }

  /** Works out who shares the work, and tells when that has changed. */
  #share(): void {
    const members = [...this.#known].filter(([, { row, hasFence }]) => hasFence && row?.state === 'ready').map(([id]) => id);
    if (this.#state !== 'draining') members.push(this.nodeId);
    members.sort();
    if (members.length === this.#members.length && members.every((id, i) => id === this.#members[i])) return;
    this.#members = members;
    for (const listener of [...this.#changeListeners]) this.#guarded(listener);
  }
}
