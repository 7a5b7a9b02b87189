/**
 * One node's membership: it sends heartbeats, looks at the others', has the dead buried, and knows how it stands itself. A round is a heartbeat and then a look;
 * only when both came through does the time count against the others, so a node that can't write judges nobody.
 */
import type { Timer } from '../../ops/telemetry/index.js';
import { Burials, freeClaims } from './burials.js';
import {
  type FailureTiming,
  failureTimings,
  NodeFenced,
  type NodeRow,
  type NodeState,
  type NodeView,
  type Share,
  type Standing,
} from './contract.js';
import { Deadline } from './deadline.js';
import { GossipLink } from './gossip-link.js';
import { Judge } from './judge.js';
import { healthOf, KnownNodes } from './known-nodes.js';
import { freeEverything, Leftovers } from './leftovers.js';
import { Listeners } from './listeners.js';
import { doubtRounds, heartbeatFailures, type Shown, showInMetrics } from './metrics.js';
import type { MembershipOptions } from './options.js';
import { askToDrain, beat, enter, forget, readNodes, retire } from './records.js';
import { Rounds } from './rounds.js';
import { SelfJudgement } from './self-judgement.js';
import { Shares } from './shares.js';

/** After a round that failed the next one is tried sooner. */
const retryMs = 500;
/** Between two rounds that other nodes have asked for. */
const hurryMs = 50;

export function createMembership(options: MembershipOptions): Shown {
  return new ClusterMembership(options);
}

class ClusterMembership implements Shown {
  readonly nodeId: string;
  readonly #o: MembershipOptions;
  readonly #timing: FailureTiming;
  readonly #link: GossipLink | undefined;
  readonly #judge: Judge;
  readonly #self: SelfJudgement;
  readonly #known: KnownNodes;
  readonly #burials: Burials;
  readonly #deadline: Deadline;
  /** Beside the rounds: burials, leaving. */
  readonly #patience: Deadline;
  readonly #leftovers: Leftovers;
  readonly #rounds: Rounds;
  readonly #shares = new Shares();
  readonly #stopping = new AbortController();
  /** As last written, or being written. */
  #row: NodeRow;
  #state: NodeState = 'starting';
  #phase: Exclude<Standing, 'storeless'> = 'new';
  #failedRounds = 0;
  #told: Standing = 'new';
  #storelessTimer: Timer | undefined;
  #isDrainWanted = false;
  /** From when on the others in this process are told that it has stepped down. */
  #tellAtMs: number | undefined;
  #hide = () => {};
  readonly #onChange: Listeners;
  readonly #onStanding: Listeners<[Standing]>;
  readonly #onDrain: Listeners;
  readonly #stateWaiters = new Set<{ state: NodeState; resolve: () => void }>();

  constructor(options: MembershipOptions) {
    const { kv, clock, random, logger, nodeId, incarnation, self, claims, gossip, timing = failureTimings.normal } = options;
    const { termMs } = timing;
    if (termMs < 3 * timing.heartbeatMs) throw new RangeError('a term must have room for three heartbeats');
    this.#o = options;
    this.nodeId = nodeId;
    this.#timing = timing;
    this.#onChange = new Listeners(logger);
    this.#onStanding = new Listeners(logger);
    this.#onDrain = new Listeners(logger);
    const link = gossip && { gossip, clock, random, logger, timing, nodeId, incarnation };
    this.#link =
      link &&
      new GossipLink({
        ...link,
        // Asked before news comes in that could make this node look better than it stood (see `SelfJudgement`).
        beforeNews: () => void this.#self.isStoreless(clock.monotonicMs()),
        afterNews: () => {
          this.#tellOfTime();
          this.#rounds.retime();
        },
        onHearing: () => this.#share(),
        onHurry: () => this.#rounds.hurry(),
      });
    this.#judge = new Judge(timing, this.#link?.detector);
    this.#self = new SelfJudgement(timing, this.#link?.detector);
    this.#known = new KnownNodes(this.#judge, timing, clock, logger);
    this.#deadline = new Deadline(clock, termMs / 2);
    this.#patience = new Deadline(clock, termMs);
    this.#leftovers = new Leftovers(claims, clock, logger, termMs);
    this.#rounds = new Rounds({
      clock,
      round: () => this.#round(),
      intervalMs: () => this.#intervalMs(),
      retryMs,
      hurryMs,
      sustainedMs: timing.doubtRoundMs,
    });
    const startToken = random.bytes(16).toString('hex');
    const nowMs = clock.nowMs();
    const state = 'starting';
    this.#row = { ...self, nodeId, incarnation, startToken, state, startedAtMs: nowMs, heartbeat: 0, sentAtMs: nowMs };
    this.#burials = new Burials({
      kv,
      claims,
      logger,
      nodeId,
      signal: this.#stopping.signal,
      deadline: this.#patience,
      onFenceBroken: (dead) => this.#fenceBroken(dead),
      onFenced: (error) => this.#fenced(error),
    });
  }

  get standing(): Standing {
    return this.#phase === 'joined' && this.#self.isStoreless(this.#o.clock.monotonicMs()) ? 'storeless' : this.#phase;
  }

  get heartbeatAgeMs(): number {
    return this.#o.clock.monotonicMs() - this.#self.lastBeatMs;
  }

  get localHealthStretch(): number {
    return this.#link?.detector.stretch ?? 1;
  }

  async join(options: { isStoreExclusive?: boolean } = {}): Promise<void> {
    if (this.#phase !== 'new') throw new Error('a node joins once');
    const { kv, clock, claims, gossip } = this.#o;
    // Its addresses are known since it listens.
    if (gossip) this.#row = { ...this.#row, gossip: gossip.identity };
    const startMs = clock.monotonicMs();
    await enter(kv, this.#row, this.#o.precondition);
    try {
      // Stopped, or told to leave, before there was anything to take back.
      this.#stopping.signal.throwIfAborted();
      this.#phase = 'joined';
      this.#beaten(startMs);
      if (options.isStoreExclusive) await freeEverything(kv, claims, this.#burials, this.nodeId);
      this.#link?.start();
      await this.#look();
      this.#stopping.signal.throwIfAborted();
    } catch (error) {
      await this.#undoJoin();
      throw error;
    }
    this.#hide = showInMetrics(this);
    this.#rounds.start();
  }

  setState(state: 'ready' | 'draining'): Promise<void> {
    this.#state = state;
    this.#share();
    // What was wanted before will not come any more.
    for (const waiter of this.#stateWaiters) if (waiter.state !== state) this.#settle(waiter);
    if (this.#phase !== 'joined' || this.#stopping.signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      this.#stateWaiters.add({ state, resolve });
      this.#rounds.wake();
    });
  }

  members(role?: string): readonly string[] {
    return role === undefined ? this.#shares.members : this.#shares.membersOf(role);
  }

  shares(role?: string): readonly Share[] {
    return this.#shares.of(role);
  }

  async requestDrain(nodeId: string): Promise<boolean> {
    if (!(await askToDrain(this.#o.kv, nodeId))) return false;
    if (nodeId === this.nodeId) this.#rounds.wake();
    else this.#link?.announceDrainWish(nodeId);
    return true;
  }

  onDrainRequested(listener: () => void): () => void {
    if (this.#isDrainWanted) this.#onDrain.tellOne(listener);
    return this.#onDrain.add(listener);
  }

  nodes(): NodeView[] {
    const isFenced = this.#phase === 'fenced';
    const self: NodeView = {
      nodeId: this.nodeId,
      isSelf: true,
      health: healthOf(isFenced, this.heartbeatAgeMs, this.#timing),
      verdict: isFenced ? 'dead' : this.standing === 'storeless' ? 'store-less' : 'alive',
      row: { ...this.#row, state: this.#state },
      heartbeatAgeMs: this.heartbeatAgeMs,
    };
    return [self, ...this.#known.views()];
  }

  commonFormat(kind: string): number {
    const rows = [this.#row, ...this.#known.rows()];
    return Math.min(...rows.map((row) => row?.formats[kind] ?? 0));
  }

  onChange(listener: () => void): () => void {
    return this.#onChange.add(listener);
  }

  onStanding(listener: (standing: Standing) => void): () => void {
    return this.#onStanding.add(listener);
  }

  async leave(): Promise<void> {
    if (this.#phase === 'left') return;
    const wasJoined = this.#phase === 'joined';
    await this.stop();
    if (!wasJoined) return;
    const { kv, claims, logger } = this.#o;
    try {
      if (!(await this.#patience.bound((signal) => retire(kv, this.#row, { signal })))) return;
      this.#link?.announce('leaving', this.nodeId);
      const freed = await freeClaims(claims, this.nodeId, this.#patience);
      await this.#patience.bound((signal) => forget(kv, this.nodeId, { signal }));
      logger.info({ claims: freed }, 'this node has left the cluster');
    } catch (error) {
      logger.warn({ err: error }, 'this node could not leave in good order: the others will find what is left of it');
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the node leaves the cluster'));
    this.#end('left');
    await this.#rounds.stop();
  }

  /** The phases after which nothing comes. */
  #end(phase: 'fenced' | 'left'): void {
    this.#storelessTimer?.cancel();
    this.#link?.stop();
    if (phase === 'left' || this.#phase === 'joined') this.#phase = phase;
    for (const waiter of this.#stateWaiters) this.#settle(waiter);
    if (phase === 'left') this.#hide();
    this.#tell();
  }

  /** Joining broke off after the row was written: a row that nobody raises would be declared dead by the others. */
  async #undoJoin(): Promise<void> {
    this.#end('left');
    try {
      if (await retire(this.#o.kv, this.#row)) await forget(this.#o.kv, this.nodeId);
    } catch (error) {
      this.#o.logger.warn({ err: error }, 'this node could not take back its row: the others will find it');
    }
  }

  #intervalMs(): number {
    const nowMs = this.#o.clock.monotonicMs();
    // A look a moment after somebody may be found dead, not up to an interval later.
    return Math.min(this.#judge.roundMs(nowMs), this.#judge.nextVerdictMs(nowMs) + 1 - this.#rounds.startedMs);
  }

  async #round(): Promise<boolean> {
    const { logger, clock } = this.#o;
    if (this.#phase !== 'joined') return false;
    if (this.#judge.isDoubting(clock.monotonicMs())) doubtRounds.inc();
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
    const before = this.#row.state;
    const row = { ...this.#row, state: this.#state, heartbeat: this.#row.heartbeat + 1, sentAtMs: clock.nowMs() };
    this.#row = row;
    const { isDrainWanted } = await this.#deadline.bound((signal) => beat(kv, row, { signal }));
    this.#beaten(startMs);
    if (row.state !== before) this.#link?.announce('changed', this.nodeId);
    for (const waiter of this.#stateWaiters) if (waiter.state === row.state) this.#settle(waiter);
    if (!isDrainWanted || this.#isDrainWanted) return;
    this.#isDrainWanted = true;
    this.#o.logger.info('this node is wanted to drain');
    this.#onDrain.tell();
  }

  #settle(waiter: { state: NodeState; resolve: () => void }): void {
    this.#stateWaiters.delete(waiter);
    waiter.resolve();
  }

  /** A heartbeat that was begun at `startMs` has come through: until a term after that at least, nobody can have found this node dead who can't hear it. */
  #beaten(startMs: number): void {
    if (this.#phase !== 'joined') return;
    this.#self.beaten(startMs);
    this.#link?.detector.storeBeaten(startMs);
    this.#storelessTimer?.cancel();
    const leftMs = startMs + this.#timing.termMs - this.#o.clock.monotonicMs();
    this.#storelessTimer = this.#o.clock.setTimer(Math.max(leftMs, 0), () => this.#tell(), { background: true });
    this.#tell();
  }

  #tell(): void {
    const { standing } = this;
    if (standing === this.#told) return;
    const { logger } = this.#o;
    if (standing === 'storeless')
      logger.error(
        { heartbeatAgeMs: this.heartbeatAgeMs },
        'no heartbeat comes through: this node takes on nothing until the store answers',
      );
    else if (this.#told === 'storeless' && standing === 'joined') logger.info('the store answers, and this node still stands');
    this.#told = standing;
    this.#onStanding.tell(standing);
  }

  /**
   * That this node has had to step down is told a moment later than it is so, with a round in between: one that was only paused for a moment has its next
   * heartbeat through before anybody hangs up on its clients.
   */
  #tellOfTime(): void {
    const nowMs = this.#o.clock.monotonicMs();
    if (this.standing !== 'storeless' || this.#told === 'storeless') this.#tellAtMs = undefined;
    else if (this.#tellAtMs === undefined) {
      this.#tellAtMs = nowMs + this.#timing.gossipHeartbeatMs / 2;
      this.#rounds.hurry();
    } else if (nowMs >= this.#tellAtMs) this.#tell();
  }

  #fenced(error: NodeFenced): void {
    if (this.#phase !== 'joined') return;
    this.#o.logger.error({ err: error }, 'this node has been fenced: it can save nothing any more');
    this.#stopping.abort(error);
    this.#end('fenced');
    void this.#rounds.stop();
    this.#onDrain.tellOne(() => this.#o.onFenced?.());
  }

  #fenceBroken(dead: string): void {
    this.#known.fenceBroken(dead);
    this.#link?.announce('fenced', dead);
    this.#tellGossip();
    this.#share();
  }

  async #look(): Promise<void> {
    const { kv, clock } = this.#o;
    const startMs = clock.monotonicMs();
    const found = await this.#deadline.bound((signal) => readNodes(kv, { signal }));
    const endMs = clock.monotonicMs();
    found.delete(this.nodeId);
    this.#known.look(found, startMs, endMs);
    this.#tellGossip();
    this.#share();
    // What was not heard while this process stood still is not held against anybody.
    this.#link?.poll();
    for (const evidence of this.#known.dead()) this.#burials.begin(evidence);
    await this.#leftovers.look((nodeId) => nodeId === this.nodeId || this.#known.has(nodeId), this.#deadline, this.#burials);
  }

  #tellGossip(): void {
    if (!this.#link || this.#stopping.signal.aborted) return;
    this.#link.setRows(this.#known.standing());
  }

  /** Works out who shares the work, and tells when that has changed. */
  #share(): void {
    const self = this.#state === 'draining' ? undefined : { nodeId: this.nodeId, roles: this.#row.roles };
    if (this.#shares.update(this.#known.candidates(), self, this.nodeId)) this.#onChange.tell();
  }
}
