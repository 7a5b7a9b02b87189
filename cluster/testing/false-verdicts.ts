/**
 * Hunts false verdicts: failure detectors of a few nodes that all live, for many simulated hours, over a network that loses messages, with pauses and cuts. The
 * detector, the judge and the judgement on oneself are the real ones; the store is a number per node and everything is synchronous, so that an hour takes about a second.
 */
import { type FailureTiming, failureTimings } from '../membership/contract.js';
import { Detector } from '../membership/detector.js';
import { Judge, type Looked } from '../membership/judge.js';
import { decodeAnnouncement } from '../membership/messages.js';
import { SelfJudgement } from '../membership/self-judgement.js';
import { EventHeap, type HeapEvent } from './event-heap.js';

export interface HuntOptions {
  hours: number;
  seed: number;
  /** Default 5. */
  nodes?: number;
  timing?: FailureTiming;
  /** Of each message. Default 0.01. */
  loss?: number;
  /** Of the nodes' processes, one at a time: how long, and how often in an hour. Default 2 000 and 30. */
  pauseMs?: number;
  pausesPerHour?: number;
  /** Of one node from all others, by gossip alone, every other one in one direction only. Default 5 000 and 30. */
  cutMs?: number;
  cutsPerHour?: number;
  /** A pause may come while a node is cut off, and shortly after: nothing is promised then. Default false. */
  doTroublesOverlap?: boolean;
  /** Heartbeats in the store take up to so long. Default 30. */
  storeMs?: number;
}

export interface HuntReport {
  hours: number;
  messages: number;
  rounds: number;
  pauses: number;
  cuts: number;
  /** Nodes that another would have declared dead: all of them lived. */
  falseVerdicts: number;
  /** Of them, those that did not know at that moment that they might be dead. */
  unforeseen: number;
  /** Times that a node had to step down. */
  stepDowns: number;
  /** What happened at each false verdict. */
  story: string[];
}

interface Event extends HeapEvent {
  /** Waits while the node is paused; undefined for what happens to it. */
  node: HuntedNode | undefined;
  happen: () => void;
}

class HuntedNode {
  pausedUntilMs = 0;
  isKilled = false;
  heartbeat = 0;
  isCutOff: 'no' | 'mute' | 'both' = 'no';
  isDown = false;
  tickAtMs = Number.POSITIVE_INFINITY;
  /** The next round, as planned; an event for another moment is no longer wanted. */
  roundAtMs = 0;
  roundStartedMs = 0;
  isInRound = false;

  constructor(
    readonly nodeId: string,
    readonly detector: Detector,
    readonly judge: Judge,
    readonly self: SelfJudgement,
  ) {}
}

/** Small and fast; good enough for losses and delays (xorshift32). */
function randomNumbers(seed: number): () => number {
  let state = (seed * 2_654_435_761) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 4_294_967_296;
  };
}

const recoveryMs = 5_000;

class Hunt {
  readonly report: HuntReport;
  readonly #o: Required<HuntOptions>;
  readonly #float: () => number;
  readonly #events = new EventHeap<Event>();
  readonly #nodes: HuntedNode[] = [];
  readonly #byId = new Map<string, HuntedNode>();
  #order = 0;
  #nowMs = 0;
  #troubledUntilMs = Number.NEGATIVE_INFINITY;
  /** Whose death would be no mistake, and when each of the others has found it. */
  #expected: HuntedNode | undefined;
  readonly #foundMs = new Map<string, number>();

  constructor(options: HuntOptions) {
    this.#o = {
      nodes: 5,
      timing: failureTimings.normal,
      loss: 0.01,
      pauseMs: 2_000,
      pausesPerHour: 30,
      cutMs: 5_000,
      cutsPerHour: 30,
      doTroublesOverlap: false,
      storeMs: 30,
      ...options,
    };
    this.#float = randomNumbers(options.seed);
    const { hours } = options;
    this.report = { hours, messages: 0, rounds: 0, pauses: 0, cuts: 0, falseVerdicts: 0, unforeseen: 0, stepDowns: 0, story: [] };
    const ids = Array.from({ length: this.#o.nodes }, (_, i) => `node${String(i).padStart(3, '0')}`);
    for (const id of ids) this.#add(id);
    for (const node of this.#nodes) {
      const others = ids.filter((id) => id !== node.nodeId).map((nodeId) => ({ nodeId, incarnation: 1 }));
      node.detector.setPeers(others, 0);
      node.detector.start(0);
      this.#arm(node);
      this.#plan(node, this.#float() * this.#o.timing.heartbeatMs);
    }
  }

  run(): HuntReport {
    const endMs = this.#o.hours * 3_600_000;
    this.#trouble(this.#o.pausesPerHour, (node) => this.#pause(node));
    this.#trouble(this.#o.cutsPerHour, (node) => this.#cut(node));
    for (;;) {
      const event = this.#events.pop();
      if (!event || event.atMs > endMs) return this.report;
      this.#nowMs = event.atMs;
      const { node } = event;
      if (node?.isKilled) continue;
      if (node && node.pausedUntilMs > event.atMs) this.#at(node.pausedUntilMs, node, event.happen);
      else event.happen();
    }
  }

  /**
   * Kills a node at some moment, so that the others see its connections close (`isNoticed`) or just hear nothing more. Answers after how many milliseconds the
   * last of the others would have declared it dead, and the first.
   */
  measureDetection(isNoticed: boolean): { firstMs: number; lastMs: number } {
    const killMs = 10_000 + this.#float() * 10_000;
    const victim = this.#nodes[Math.floor(this.#float() * this.#nodes.length)]!;
    this.#at(killMs, undefined, () => {
      victim.isKilled = true;
      for (const node of this.#nodes) {
        if (!isNoticed || node === victim) continue;
        this.#carry(victim, node, () => {
          this.#catchUp(node);
          node.detector.connection(victim.nodeId, false, this.#nowMs);
          this.#arm(node);
          this.#plan(node, this.#nowMs + 1);
        });
      }
    });
    this.#expected = victim;
    this.run();
    const times = [...this.#foundMs.values()].map((atMs) => atMs - killMs);
    return {
      firstMs: Math.min(...times),
      lastMs: times.length < this.#nodes.length - 1 ? Number.POSITIVE_INFINITY : Math.max(...times),
    };
  }

  #add(nodeId: string): void {
    const { timing } = this.#o;
    const detector = new Detector({
      nodeId,
      incarnation: 1,
      timing,
      float: this.#float,
      voice: {
        send: (to, body) => this.#send(node, this.#byId.get(to)!, body),
        announce: (body) => {
          for (const other of this.#nodes) if (other !== node) this.#carry(node, other, () => this.#announced(other, node, body));
        },
        setIncarnation: () => {},
        hurry: () => this.#plan(node, this.#nowMs + 1),
        onHearing: () => {},
      },
    });
    const node = new HuntedNode(nodeId, detector, new Judge(timing, detector), new SelfJudgement(timing, detector));
    this.#nodes.push(node);
    this.#byId.set(nodeId, node);
  }

  #at(atMs: number, node: HuntedNode | undefined, happen: () => void): void {
    this.#events.push({ atMs, order: this.#order++, node, happen });
  }

  /** Something that happens so often in an hour, to anybody. */
  #trouble(perHour: number, befall: (node: HuntedNode) => void): void {
    if (perHour <= 0) return;
    const waitMs = -Math.log(1 - this.#float()) * (3_600_000 / perHour);
    this.#at(this.#nowMs + waitMs, undefined, () => {
      befall(this.#nodes[Math.floor(this.#float() * this.#nodes.length)]!);
      this.#trouble(perHour, befall);
    });
  }

  #pause(node: HuntedNode): void {
    if (!this.#mayTrouble(this.#o.pauseMs, this.#nodes)) return;
    this.report.pauses++;
    node.pausedUntilMs = this.#nowMs + this.#o.pauseMs;
  }

  #cut(node: HuntedNode): void {
    if (node.isCutOff !== 'no' || !this.#mayTrouble(this.#o.cutMs, [node])) return;
    node.isCutOff = this.report.cuts++ % 2 === 0 ? 'both' : 'mute';
    this.#at(this.#nowMs + this.#o.cutMs, undefined, () => {
      node.isCutOff = 'no';
    });
  }

  /** One trouble after the other, with time to recover: two pauses in a row are one long one. */
  #mayTrouble(forMs: number, nodes: readonly HuntedNode[]): boolean {
    const isPaused = nodes.some(({ pausedUntilMs }) => pausedUntilMs > this.#nowMs - recoveryMs);
    if (isPaused || (!this.#o.doTroublesOverlap && this.#troubledUntilMs > this.#nowMs - recoveryMs)) return false;
    this.#troubledUntilMs = this.#nowMs + forMs;
    return true;
  }

  #send(from: HuntedNode, to: HuntedNode, body: unknown): boolean {
    this.#carry(from, to, () => {
      this.#catchUp(to);
      to.detector.received(from.nodeId, from.detector.incarnation, body, this.#nowMs);
      this.#arm(to);
    });
    return true;
  }

  #announced(to: HuntedNode, from: HuntedNode, body: unknown): void {
    this.#catchUp(to);
    to.detector.told(from.nodeId, decodeAnnouncement(body)!, this.#nowMs);
    this.#arm(to);
  }

  #carry(from: HuntedNode, to: HuntedNode, arrive: () => void): void {
    this.report.messages++;
    if (this.#float() < this.#o.loss || from.isCutOff !== 'no' || to.isCutOff === 'both') return;
    this.#at(this.#nowMs + 0.2 + this.#float() * 2, to, arrive);
  }

  /** As the link between detector and network does before it takes anything in. */
  #catchUp(node: HuntedNode): void {
    if (node.detector.dueMs <= this.#nowMs) this.#tick(node);
    this.#lookAtSelf(node);
  }

  #tick(node: HuntedNode): void {
    node.detector.tick(this.#nowMs);
    this.#plan(node, this.#roundDueMs(node));
  }

  #arm(node: HuntedNode): void {
    const { dueMs } = node.detector;
    if (node.tickAtMs <= dueMs) return;
    node.tickAtMs = dueMs;
    this.#at(dueMs, node, () => {
      if (node.tickAtMs === dueMs) node.tickAtMs = Number.POSITIVE_INFINITY;
      this.#catchUp(node);
      this.#arm(node);
    });
  }

  #lookAtSelf(node: HuntedNode): void {
    const isDown = node.self.isStoreless(this.#nowMs);
    if (isDown && !node.isDown) this.report.stepDowns++;
    node.isDown = isDown;
  }

  #roundDueMs(node: HuntedNode): number {
    const { judge, roundStartedMs } = node;
    return Math.min(roundStartedMs + judge.roundMs(this.#nowMs), judge.nextVerdictMs(this.#nowMs) + 1);
  }

  /** A round at `atMs`, unless one comes sooner. */
  #plan(node: HuntedNode, atMs: number): void {
    if (node.isInRound || (node.roundAtMs > this.#nowMs && node.roundAtMs <= atMs)) return;
    const planMs = Math.max(atMs, this.#nowMs + 1);
    node.roundAtMs = planMs;
    this.#at(planMs, node, () => {
      if (node.roundAtMs === planMs && !node.isInRound) this.#round(node);
    });
  }

  #round(node: HuntedNode): void {
    this.report.rounds++;
    node.isInRound = true;
    node.roundStartedMs = this.#nowMs;
    const startedMs = this.#nowMs;
    this.#at(this.#nowMs + this.#float() * this.#o.storeMs, node, () => {
      node.heartbeat++;
      node.self.beaten(startedMs);
      node.detector.storeBeaten(startedMs);
      this.#look(node);
      node.isInRound = false;
      this.#plan(node, this.#roundDueMs(node));
    });
  }

  #look(node: HuntedNode): void {
    const found = new Map<string, Looked>();
    for (const other of this.#nodes) if (other !== node) found.set(other.nodeId, { state: `${other.heartbeat}`, hasFence: true });
    node.judge.look(found, this.#nowMs, this.#nowMs);
    this.#catchUp(node);
    for (const nodeId of node.judge.dead(this.#nowMs)) {
      const victim = this.#byId.get(nodeId)!;
      if (victim === this.#expected && victim.isKilled) {
        if (!this.#foundMs.has(node.nodeId)) this.#foundMs.set(node.nodeId, this.#nowMs);
        continue;
      }
      const isForeseen = victim.self.isStoreless(this.#nowMs);
      this.report.falseVerdicts++;
      if (!isForeseen) this.report.unforeseen++;
      this.report.story.push(
        `${Math.round(this.#nowMs)} ms: ${node.nodeId} on ${nodeId}, last heard ${Math.round(node.detector.newsAgeMs(nodeId, this.#nowMs) ?? -1)} ms ago; ` +
          `${victim.isCutOff !== 'no' ? 'cut off, ' : ''}${isForeseen ? 'foreseen' : 'not foreseen'}`,
      );
    }
  }
}

/** Lets nodes that all live watch one another for so many hours, and reports who would have been declared dead. */
export function huntFalseVerdicts(options: HuntOptions): HuntReport {
  return new Hunt(options).run();
}

/** How long it takes until a killed node is declared dead by the first and by the last of the others (milliseconds), over `runs` seeds. */
export function measureDetection(
  runs: number,
  isNoticed: boolean,
  options: Omit<HuntOptions, 'hours' | 'seed'>,
): { firstMs: number[]; lastMs: number[] } {
  const firstMs: number[] = [];
  const lastMs: number[] = [];
  for (let seed = 1; seed <= runs; seed++) {
    const hours = (20_000 + 2 * (options.timing ?? failureTimings.normal).termMs) / 3_600_000;
    const found = new Hunt({ pausesPerHour: 0, cutsPerHour: 0, ...options, hours, seed }).measureDetection(isNoticed);
    firstMs.push(found.firstMs);
    lastMs.push(found.lastMs);
  }
  return { firstMs, lastMs };
}
