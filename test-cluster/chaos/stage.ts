/** What a scenario can do to a running cluster. Everything is written down as it is done, and undone at the end where the scenario has not. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { FaultKind } from '../checker/history.js';
import type { ChaosCluster, ChaosClusterOptions } from '../harness/chaos-cluster.js';
import type { ChaosNode } from '../harness/chaos-node.js';
import type { Cut, Heal } from '../harness/network.js';
import type { Recorder } from './recorder.js';

/** What not every machine or harness can do. */
export type Need = 'cut-peers' | 'wrong-clock' | 'small-disk';

export interface Scenario {
  name: string;
  /** One line for people. */
  summary: string;
  needs?: readonly Need[];
  /** Nodes start from `--from` rather than from this checkout. */
  startsOld?: boolean;
  /** What the cluster must have from the start. */
  cluster?(ways: { clockEnv(offset: string): NodeJS.ProcessEnv }): Pick<ChaosClusterOptions, 'envOf' | 'smallDisk'>;
  /** Strikes and heals, in about `stage.strikeMs`. */
  run(stage: Stage): Promise<void>;
}

/** Over this, a paused node may be declared dead (2 s must not be enough). */
const longPauseMs = 2_200;
const restartPauseMs = 500;

export interface StageOptions {
  cluster: ChaosCluster;
  recorder: Recorder;
  /** How long the faults may take, together. */
  strikeMs: number;
  random(): number;
  signal: AbortSignal;
  /** Root of the checkout that upgraded nodes run. */
  checkout: string;
  /** Told of a node that has joined. */
  onJoin(node: ChaosNode): void;
}

export class Stage {
  readonly cluster: ChaosCluster;
  readonly recorder: Recorder;
  readonly strikeMs: number;
  readonly checkout: string;
  readonly random: () => number;
  readonly #undo = new Set<() => Promise<void>>();
  /** Nodes that are down because we want it so. */
  readonly #down = new Set<number>();

  constructor(private readonly options: StageOptions) {
    ({
      cluster: this.cluster,
      recorder: this.recorder,
      strikeMs: this.strikeMs,
      random: this.random,
      checkout: this.checkout,
    } = options);
  }

  get nodes(): readonly ChaosNode[] {
    return this.cluster.nodes;
  }

  get indexes(): number[] {
    return this.nodes.map(({ index }) => index);
  }

  /** Another node than the first, which reads and counts are often asked of. */
  get victim(): number {
    return Math.min(1, this.nodes.length - 1);
  }

  /** Rejects when the run is broken off. */
  async pause(milliseconds: number): Promise<void> {
    await sleep(milliseconds, undefined, { signal: this.options.signal });
  }

  isWantedDown(index: number): boolean {
    return this.#down.has(index);
  }

  note(what: string): void {
    this.recorder.note(what);
  }

  /** A fault that is over when the answer is called, or at the end of the run. */
  #begin(kind: FaultKind, index: number | undefined, heal: () => Promise<void>): () => Promise<void> {
    const end = this.recorder.begin(kind, index, index === undefined ? undefined : this.nodes[index]?.nodeId);
    const undo = async () => {
      if (!this.#undo.delete(undo)) return;
      await heal();
      end();
    };
    this.#undo.add(undo);
    return undo;
  }

  /** SIGKILL. Answers the way to start it again. */
  async kill(index: number): Promise<() => Promise<void>> {
    const node = this.cluster.node(index);
    this.#down.add(index);
    const again = this.#begin('kill', index, () => this.#startAgain(node));
    this.note(`kill -9 node ${index}`);
    await node.kill();
    return again;
  }

  async #startAgain(node: ChaosNode): Promise<void> {
    this.note(`start node ${node.index} again`);
    if (!node.isRunning) await node.start();
    this.#down.delete(node.index);
    this.note(`node ${node.index} is ready`);
  }

  /** SIGSTOP for so long, then SIGCONT. */
  async freeze(index: number, milliseconds: number): Promise<void> {
    const node = this.cluster.node(index);
    const kind = milliseconds > longPauseMs ? 'pause' : 'short-pause';
    const wake = this.#begin(kind, index, async () => {
      this.note(`SIGCONT node ${index}`);
      node.signal('SIGCONT');
    });
    this.note(`SIGSTOP node ${index} for ${(milliseconds / 1000).toFixed(1)} s`);
    node.signal('SIGSTOP');
    await this.pause(milliseconds).finally(wake);
  }

  /** Stops and goes on in bursts, so that it has `share` of the time. */
  async slow(index: number, milliseconds: number, share: number, periodMs = 400): Promise<void> {
    const node = this.cluster.node(index);
    const wake = this.#begin('slow', index, async () => {
      node.signal('SIGCONT');
      this.note(`node ${index} runs freely again`);
    });
    this.note(`node ${index} has ${Math.round(share * 100)} % of its time for ${(milliseconds / 1000).toFixed(1)} s`);
    try {
      for (const untilMs = performance.now() + milliseconds; performance.now() < untilMs; ) {
        node.signal('SIGSTOP');
        await this.pause(periodMs * (1 - share));
        node.signal('SIGCONT');
        await this.pause(periodMs * share);
      }
    } finally {
      await wake();
    }
  }

  /** Cuts lines of nodes; `words` says which. Answers the way to heal them all. */
  async cut(kind: FaultKind, cuts: readonly Cut[], words: string): Promise<() => Promise<void>> {
    this.note(`cut ${words}`);
    const heals: Heal[] = [];
    const struck = [...new Set(cuts.map(({ node }) => node))];
    const healAll = async () => {
      await Promise.all(heals.map((heal) => heal()));
      this.note(`healed ${words}`);
    };
    // One fault for each node that is struck; the first one heals the lines.
    const ends = struck.map((index, number) => this.#begin(kind, index, number === 0 ? healAll : async () => undefined));
    for (const cut of cuts) heals.push(await this.cluster.network.cut(cut));
    return async () => {
      for (const end of ends) await end();
    };
  }

  /** The store's server goes away for so long. `immediate` is a crash. */
  async storeDown(milliseconds: number, mode: 'fast' | 'immediate'): Promise<void> {
    const { server } = this.cluster;
    const up = this.#begin('store-down', undefined, async () => {
      this.note('start the store again');
      await server.start();
      this.note('the store runs');
    });
    this.note(mode === 'immediate' ? 'crash the store' : 'stop the store');
    await server.stop(mode);
    await this.pause(milliseconds).finally(up);
  }

  /** Tells a node to stop, by signal or by command, waits until it has, and starts it again, from another checkout if wanted. */
  async restart(index: number, options: { checkout?: string; byCommand?: boolean } = {}): Promise<void> {
    const node = this.cluster.node(index);
    this.#down.add(index);
    const up = this.#begin('drain', index, () => this.#startAgain(node));
    const startedMs = this.recorder.nowMs();
    this.note(`${options.byCommand ? 'starling node drain' : 'SIGTERM'} node ${index}`);
    if (options.byCommand) {
      const { code, stdout, stderr } = await node.cli('node', 'drain', '--json');
      if (code !== 0) this.recorder.violate('drain', `node ${index}: ${stdout}${stderr}`);
      await node.ended();
    } else await node.stop();
    const seconds = ((this.recorder.nowMs() - startedMs) / 1000).toFixed(1);
    const end = node.lives.at(-1)?.end;
    this.note(`node ${index} has ended with ${end?.signal ?? end?.code} after ${seconds} s`);
    if (end?.code !== 0) this.recorder.violate('drain', `node ${index} ended with ${end?.signal ?? end?.code}`);
    if (options.checkout !== undefined) node.checkout = options.checkout;
    await this.pause(restartPauseMs).finally(up);
  }

  /** One more node. */
  async join(): Promise<ChaosNode> {
    const startedMs = this.recorder.nowMs();
    const end = this.recorder.begin('join', this.nodes.length);
    this.note(`a node joins: node ${this.nodes.length}`);
    const node = await this.cluster.addNode();
    end();
    this.note(`node ${node.index} is ready after ${((this.recorder.nowMs() - startedMs) / 1000).toFixed(1)} s`);
    this.options.onJoin(node);
    return node;
  }

  /** A fault of another kind, written down from now until the answer is called. */
  mark(kind: FaultKind, index: number, heal: () => Promise<void> = async () => undefined): () => Promise<void> {
    return this.#begin(kind, index, heal);
  }

  /** Ends every fault that still lasts. */
  async undoAll(): Promise<void> {
    for (const undo of [...this.#undo].reverse()) await undo();
  }
}
