/**
 * Nodes on this machine on one shared store: started (the first alone, so that it makes the schema, the domain and the accounts), watched, started again
 * where that is wanted, and drained. `cluster.json` follows every change.
 */
import { randomBytes } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ClusterArguments, portStep } from './arguments.js';
import { type ClusterState, writeClusterFile } from './cluster-file.js';
import { describeEnding, type Ending, NodeRunner } from './node-runner.js';
import { openSharedStore, type SharedStore } from './shared-store.js';

/** A drain has 30 s, and a little for its last words. */
const stopTimeoutMs = 45_000;
const clusterKeyBytes = 32;

export class LocalCluster {
  #store: SharedStore | undefined;
  #runners: NodeRunner[] = [];
  #isStopping = false;
  #starting: Promise<void> = Promise.resolve();
  readonly #restarts = new Set<NodeJS.Timeout>();
  #giveUp!: () => void;

  /** Resolves when nothing runs any more and nothing will be started again. */
  readonly abandoned = new Promise<void>((resolve) => {
    this.#giveUp = resolve;
  });

  /** `report` gets one sentence for every event that an operator should hear of. */
  constructor(
    private readonly args: ClusterArguments,
    private readonly report: (sentence: string) => void,
  ) {}

  get state(): ClusterState {
    return { store: this.#store?.shown ?? '', nodes: this.#runners.map((runner) => runner.describe()) };
  }

  /** Resolves when all nodes are ready, or `stop` came first. Throws a sentence; `stop` then takes down what runs. */
  start(): Promise<void> {
    this.#starting = this.#start();
    return this.#starting;
  }

  async #start(): Promise<void> {
    const { args } = this;
    mkdirSync(args.data, { recursive: true });
    const keyFile = join(args.data, 'cluster.key');
    if (!existsSync(keyFile))
      writeFileSync(keyFile, `${randomBytes(clusterKeyBytes).toString('base64')}\n`, { mode: 0o600, flag: 'wx' });
    this.#store = await openSharedStore(args, this.report);
    this.#watchServer();
    if (this.#isStopping) return;
    const quickstartArguments = ['--cluster-key-file', keyFile];
    if (args.password !== undefined) quickstartArguments.push('--password', args.password);
    this.#runners = Array.from({ length: args.nodes }, (_, index) => {
      return new NodeRunner({
        index,
        portOffset: args.portOffset + portStep * index,
        data: this.#dataOf(index),
        logFile: join(args.data, `node-${index}.log`),
        quickstartArguments,
        // Not as an argument, which every user of the machine could read: it may hold a password.
        env: { STARLING_STORE: this.#store!.address },
        onChange: () => this.#write(),
      });
    });
    this.#write();
    const [first, ...others] = this.#runners;
    await this.#startNode(first!);
    for (const [at, runner] of others.entries()) if (!this.#isStopping) this.#sharePasswords(at + 1, runner);
    await Promise.all(others.map((runner) => this.#startNode(runner)));
  }

  /** Drains all nodes side by side, then ends the server that was started here. Whatever doesn't end in time is killed. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    for (const timer of this.#restarts) clearTimeout(timer);
    for (const runner of this.#runners) runner.signal('SIGTERM');
    // A server may be on its way up.
    await this.#starting.catch(() => undefined);
    const late = setTimeout(() => this.killNodes(), stopTimeoutMs);
    await Promise.all(this.#runners.map((runner) => runner.ended));
    clearTimeout(late);
    await this.#store?.server?.stop('fast');
    if (this.#runners.length > 0) this.#write();
  }

  /** Ends all nodes at once. */
  killNodes(): void {
    for (const runner of this.#runners) runner.signal('SIGKILL');
  }

  #dataOf(index: number): string {
    return join(this.args.data, `node-${index}`);
  }

  #write(): void {
    writeClusterFile(this.args.data, this.state);
  }

  /** The accounts are the cluster's: the passwords that the first node made up must not be replaced by those of the next. */
  #sharePasswords(index: number, runner: NodeRunner): void {
    const made = join(this.#dataOf(0), 'quickstart.json');
    if (!existsSync(made)) return;
    mkdirSync(runner.describe().data, { recursive: true, mode: 0o700 });
    copyFileSync(made, join(this.#dataOf(index), 'quickstart.json'));
  }

  async #startNode(runner: NodeRunner): Promise<void> {
    if (this.#isStopping) return;
    await runner.start();
    void runner.ended!.then((ending) => this.#ended(runner, ending));
  }

  #ended(runner: NodeRunner, ending: Ending): void {
    if (this.#isStopping) return;
    const { index } = runner.describe();
    const isDeath = ending.code !== 0;
    const pauseSeconds = isDeath ? this.args.restartAfterSeconds : undefined;
    const outcome = isDeath ? `died: ${describeEnding(ending)}` : 'was drained and has ended';
    if (pauseSeconds === undefined) {
      this.report(`node ${index} ${outcome}`);
      if (this.#runners.every((one) => one.describe().state === 'stopped') && this.#restarts.size === 0) this.#giveUp();
      return;
    }
    this.report(`node ${index} ${outcome}; it is started again after ${pauseSeconds} s`);
    this.#later(pauseSeconds, () => this.#restart(runner));
  }

  async #restart(runner: NodeRunner): Promise<void> {
    const { index } = runner.describe();
    try {
      await this.#startNode(runner);
      if (!this.#isStopping) this.report(`node ${index} is ready again (pid ${runner.describe().pid})`);
    } catch (error) {
      if (this.#isStopping) return;
      this.report(`${(error as Error).message}; tried again after ${this.args.restartAfterSeconds} s`);
      runner.signal('SIGKILL');
      this.#later(this.args.restartAfterSeconds!, () => this.#restart(runner));
    }
  }

  #later(seconds: number, work: () => Promise<void>): void {
    const timer = setTimeout(() => {
      this.#restarts.delete(timer);
      void work();
    }, seconds * 1000);
    this.#restarts.add(timer);
  }

  /** The server is part of the cluster: it is started again like a node. */
  #watchServer(): void {
    const server = this.#store?.server;
    void server?.ended.then(() => {
      if (this.#isStopping) return;
      const pauseSeconds = this.args.restartAfterSeconds;
      this.report(`PostgreSQL has ended${pauseSeconds === undefined ? '' : `; it is started again after ${pauseSeconds} s`}`);
      if (pauseSeconds !== undefined) this.#later(pauseSeconds, () => this.#restartServer());
    });
  }

  async #restartServer(): Promise<void> {
    try {
      await this.#store!.server!.start();
      this.#watchServer();
      this.report('PostgreSQL answers again');
    } catch (error) {
      if (this.#isStopping) return;
      this.report(`PostgreSQL did not start: ${(error as Error).message}`);
      this.#later(this.args.restartAfterSeconds!, () => this.#restartServer());
    }
  }
}
