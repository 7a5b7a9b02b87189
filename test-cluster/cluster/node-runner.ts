/** One node of the cluster as a child process: started, waited for until it is ready, named by its own id, ended. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, fstatSync, mkdirSync, openSync, readSync } from 'node:fs';
import { basePorts, repositoryRoot, starlingCommand } from '../harness/node-process.js';
import { runCommand } from '../harness/processes.js';
import type { NodeState } from './cluster-file.js';

const startTimeoutMs = 120_000;
const probePauseMs = 100;
const maxQuotedBytes = 16_384;

/** How a process ended. */
export interface Ending {
  code: number | null;
  signal: NodeJS.Signals | null;
}

export interface NodeRunnerOptions {
  index: number;
  portOffset: number;
  /** Its data directory; made when absent. */
  data: string;
  logFile: string;
  /** After `starling quickstart --data … --port-offset …`. */
  quickstartArguments: readonly string[];
  env: NodeJS.ProcessEnv;
  /** Told of every change of what `describe` answers. */
  onChange(): void;
}

export class NodeRunner {
  #child: ChildProcess | undefined;
  #id: string | undefined;
  #isReady = false;
  #ended: Promise<Ending> | undefined;

  constructor(private readonly options: NodeRunnerOptions) {}

  describe(): NodeState {
    const { index, portOffset, data } = this.options;
    const state = this.#child === undefined ? 'stopped' : this.#isReady ? 'ready' : 'starting';
    return { index, id: this.#id ?? null, pid: this.#child?.pid ?? null, portOffset, data, state };
  }

  /** Of the present process, or the last one. */
  get ended(): Promise<Ending> | undefined {
    return this.#ended;
  }

  port(name: keyof typeof basePorts): number {
    return basePorts[name] + this.options.portOffset;
  }

  /** Resolves when the node says that it is ready and its id is known. Throws a sentence when it ends before. */
  async start(): Promise<void> {
    const { data, portOffset, logFile, quickstartArguments, env, onChange } = this.options;
    mkdirSync(data, { recursive: true, mode: 0o700 });
    const log = openSync(logFile, 'a', 0o600);
    const logStart = fstatSync(log).size;
    const args = [starlingCommand, 'quickstart', '--data', data, '--port-offset', String(portOffset), ...quickstartArguments];
    // A group of its own: Ctrl-C in a terminal is for the cluster command, which drains its nodes in good order.
    const child = spawn(process.execPath, args, {
      cwd: repositoryRoot,
      env: { ...process.env, ...env },
      stdio: ['ignore', log, log],
      detached: true,
    });
    closeSync(log);
    this.#child = child;
    this.#id = undefined;
    this.#isReady = false;
    let ending: Ending | undefined;
    this.#ended = new Promise((resolve) => {
      const end = (code: number | null, signal: NodeJS.Signals | null) => {
        ending = { code, signal };
        if (this.#child === child) {
          this.#child = undefined;
          this.#id = undefined;
          this.#isReady = false;
          onChange();
        }
        resolve(ending);
      };
      child.once('error', () => end(null, null));
      child.once('exit', end);
    });
    onChange();
    const deadline = performance.now() + startTimeoutMs;
    while (!(await this.#answers())) {
      if (ending)
        throw new Error(`node ${this.options.index} did not start: ${lastWords(logFile, logStart) ?? describeEnding(ending)}`);
      if (performance.now() > deadline)
        throw new Error(`node ${this.options.index} was not ready within ${startTimeoutMs / 1000} s; see ${logFile}`);
      await new Promise((resolve) => setTimeout(resolve, probePauseMs));
    }
    if (this.#child !== child) throw new Error(`node ${this.options.index} ended as it became ready; see ${logFile}`);
    this.#isReady = true;
    onChange();
  }

  /** Ready, and its id known. */
  async #answers(): Promise<boolean> {
    try {
      const response = await fetch(`http://127.0.0.1:${this.port('http')}/health/ready`, { signal: AbortSignal.timeout(2_000) });
      await response.arrayBuffer();
      if (response.status !== 200) return false;
    } catch {
      return false; // it does not listen yet
    }
    const args = [starlingCommand, 'node', 'show', '--data', this.options.data, '--json'];
    const { code, stdout } = await runCommand(process.execPath, args, { timeoutMs: 10_000 });
    if (code !== 0) return false;
    const shown = JSON.parse(stdout) as { id: string; pid: number };
    // What answers must be this process, not one that has had these ports before.
    if (shown.pid !== this.#child?.pid) return false;
    this.#id = shown.id;
    return true;
  }

  /** Harmless when nothing runs. */
  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }
}

export function describeEnding({ code, signal }: Ending): string {
  return signal ? `it was ended by ${signal}` : code === null ? 'it could not be run' : `it ended with ${code}`;
}

/** The sentence with which the `starling` command gave up, or the last line that it wrote. */
function lastWords(logFile: string, from: number): string | undefined {
  const log = openSync(logFile, 'r');
  try {
    const { size } = fstatSync(log);
    const begin = Math.max(from, size - maxQuotedBytes);
    const bytes = Buffer.alloc(Math.max(0, size - begin));
    readSync(log, bytes, 0, bytes.length, begin);
    const lines = bytes.toString('utf8').split('\n').filter(Boolean);
    return lines.findLast((line) => line.startsWith('starling: '))?.slice('starling: '.length) ?? lines.at(-1);
  } finally {
    closeSync(log);
  }
}
