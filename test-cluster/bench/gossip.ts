/**
 * The gossip network alone: nodes as processes on this machine, a full mesh. What it costs when nothing happens, without and with heartbeats, and how long
 * published messages take to reach the others while each node publishes 50 a second.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { percentile, round } from './figures.js';
import type { FromNode, ToNode } from './gossip-node.js';
import type { BenchOptions } from './options.js';

const perSecond = 50;
const bytes = 200;
const idleMs = 10_000;
const loadMs = 10_000;
const settleMs = 3_000;
const beats = { peers: 4, everyMs: 300 };

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

class BenchNode {
  readonly #process: ChildProcess;

  constructor() {
    this.#process = fork(fileURLToPath(new URL('./gossip-node.js', import.meta.url)), { stdio: 'inherit' });
  }

  /** Rejects when the process ends instead. */
  async tell<D extends FromNode['did']>(order: ToNode & { do: D }): Promise<Extract<FromNode, { did: D }>> {
    const answered = new AbortController();
    const ended = once(this.#process, 'exit', { signal: answered.signal }).then(([code]) => {
      throw new Error(`a node of the benchmark ended with ${code}`);
    });
    const answer = once(this.#process, 'message', { signal: answered.signal });
    this.#process.send(order);
    try {
      const [message] = await Promise.race([answer, ended]);
      return message as Extract<FromNode, { did: D }>;
    } finally {
      answered.abort();
      void Promise.allSettled([ended, answer]);
    }
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = once(this.#process, 'exit');
    const timer = setTimeout(() => this.#process.kill('SIGKILL'), 5_000);
    if (this.#process.connected) this.#process.send({ do: 'stop' } satisfies ToNode);
    await ended;
    clearTimeout(timer);
  }
}

const largest = (values: readonly number[]) => Math.max(...values);
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Starts the nodes (5, or `--nodes`), measures, stops them. */
export async function run({ nodes: count = 5 }: BenchOptions): Promise<Record<string, unknown>> {
  const secret = randomBytes(32).toString('hex');
  const nodes = Array.from({ length: count }, () => new BenchNode());
  const all = <T>(tell: (node: BenchNode, index: number) => Promise<T>) => Promise.all(nodes.map(tell));
  try {
    const started = await all((node) => node.tell({ do: 'start', nodeId: randomBytes(16).toString('hex'), secret }));
    const members = started.map(({ member }) => member);
    const met = await all((node) => node.tell({ do: 'meet', members }));
    await pause(settleMs);
    const idle = await all((node) => node.tell({ do: 'idle', forMs: idleMs }));
    const beating = await all((node) => node.tell({ do: 'idle', forMs: idleMs, beats }));
    // Code is compiled once before it is measured.
    await all((node) => node.tell({ do: 'publish', forMs: settleMs, perSecond, bytes }));
    await pause(500);
    await all((node) => node.tell({ do: 'report' }));
    const published = await all((node) => node.tell({ do: 'publish', forMs: loadMs, perSecond, bytes }));
    await pause(1_000);
    const reports = await all((node) => node.tell({ do: 'report' }));
    const delaysMs = reports.flatMap((report) => report.delaysMs);
    const expected = published.reduce((sum, { sent }) => sum + sent, 0) * (count - 1);
    return {
      nodes: count,
      perSecond,
      bytes,
      startMs: round(largest(started.map(({ startMs }) => startMs))),
      meshMs: round(largest(met.map(({ meshMs }) => meshMs))),
      idleCpuPercent: {
        mean: round(mean(idle.map((one) => one.cpuPercent))),
        max: round(largest(idle.map((one) => one.cpuPercent))),
      },
      heartbeatCpuPercent: {
        mean: round(mean(beating.map((one) => one.cpuPercent))),
        max: round(largest(beating.map((one) => one.cpuPercent))),
      },
      loadCpuPercent: round(mean(published.map((one) => one.cpuPercent))),
      // Tells the price also where the machine is too busy for the rate to be kept.
      cpuMsPerDelivery: round((mean(published.map((one) => one.cpuPercent)) * (loadMs / 100) * count) / delaysMs.length),
      delivered: delaysMs.length,
      lost: expected - delaysMs.length,
      deliveryMs: {
        p50: round(percentile(delaysMs, 0.5)),
        p99: round(percentile(delaysMs, 0.99)),
        max: round(largest(delaysMs)),
      },
      residentMib: round(mean(reports.map((report) => report.residentBytes)) / 2 ** 20),
    };
  } finally {
    await Promise.all(nodes.map((node) => node.stop()));
  }
}
