/**
 * What a long queue costs, on one store: the rate of enqueues and the time of a claim (a look at what is due and the claim of what it found) with 10,000 and with
 * `--messages` messages waiting, half of them for their next attempt, half in the lines of domains that are paused; and the memory of a node that has such a queue.
 * Both stores are there at the same time and measured in turns, so that whatever else the machine does meets both.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { NodeProcess } from '../harness/node-process.js';
import { median, percentile, residentBytes, round } from './figures.js';
import type { BenchOptions } from './options.js';
import type { Cost, FromStore, ToStore } from './queue-scale-store.js';

const smallQueue = 10_000;
/** Measurements of each store; one before them is for the compiler. */
const rounds = 5;
const perRound = { enqueues: 4_000, claims: 2_000 };
/** A node begins its work and its first metrics are asked for. */
const settleMs = 20_000;

type Measured = Extract<FromStore, { did: 'measure' }>;

class StoreProcess {
  readonly #process: ChildProcess = fork(fileURLToPath(new URL('./queue-scale-store.js', import.meta.url)), {
    execArgv: ['--expose-gc'],
  });
  readonly measured: Measured[] = [];
  filledPerSecond = 0;

  /** Rejects when the process ends instead. */
  async tell<D extends FromStore['did']>(order: ToStore & { do: D }): Promise<Extract<FromStore, { did: D }>> {
    const answered = new AbortController();
    const ended = once(this.#process, 'exit', { signal: answered.signal }).then(([code]) => {
      throw new Error(`a store of the benchmark ended with ${code}`);
    });
    const answer = once(this.#process, 'message', { signal: answered.signal });
    this.#process.send(order);
    try {
      const [message] = await Promise.race([answer, ended]);
      return message as Extract<FromStore, { did: D }>;
    } finally {
      answered.abort();
      void Promise.allSettled([ended, answer]);
    }
  }

  async fill(messages: number): Promise<void> {
    this.filledPerSecond = (await this.tell({ do: 'fill', messages })).perSecond;
  }

  async measure(): Promise<void> {
    this.measured.push(await this.tell({ do: 'measure', ...perRound }));
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = once(this.#process, 'exit');
    if (this.#process.connected) this.#process.send({ do: 'stop' } satisfies ToStore);
    await ended;
  }
}

/** Memory of a node with this queue, once it runs quietly; where the store has a node. */
async function nodeMib(node: NodeProcess): Promise<{ resident: number; own: number }> {
  await node.start();
  for (let looks = 0; looks < 4; looks++) {
    await sleep(settleMs / 4);
    // As Prometheus does, so that what its gauges need is in it.
    await node.metrics();
  }
  const status = readFileSync(`/proc/${node.pid}/status`, 'utf8');
  await node.stop();
  return { resident: round(residentBytes(status, 'VmRSS') / 2 ** 20), own: round(residentBytes(status, 'RssAnon') / 2 ** 20) };
}

const ratio = (large: number, small: number) => Math.round((large / small) * 100) / 100;

/** Medians over the rounds, the first left out. */
function figures({ measured, filledPerSecond }: StoreProcess, waiting: number) {
  const counted = measured.slice(1);
  const perSecond = (which: 'enqueue' | 'claim') => median(counted.map((one) => one[which].count / one[which].seconds));
  const cpuMicros = ({ cpuSeconds, count }: Cost) => (cpuSeconds / count) * 1e6;
  const claimMs = counted.flatMap((one) => one.claimMs);
  return {
    waiting,
    filledPerSecond,
    enqueuesPerSecond: perSecond('enqueue'),
    enqueueCpuMicros: median(counted.map((one) => cpuMicros(one.enqueue))),
    claimsPerSecond: perSecond('claim'),
    claimMsMedian: median(claimMs),
    claimMsP99: percentile(claimMs, 0.99),
    claimCpuMicros: median(counted.map((one) => cpuMicros(one.claim))),
  };
}

const rounded = <T extends Record<string, number>>(all: T) =>
  Object.fromEntries(Object.entries(all).map(([name, value]) => [name, name === 'waiting' ? value : round(value)]));

/** A store with so many waiting, and the node that it belongs to. */
async function filled(store: 'embedded' | 'memory', messages: number) {
  const node = store === 'embedded' ? await NodeProcess.start({ settings: '[log]\nlevel = "error"\n' }) : undefined;
  const process = new StoreProcess();
  try {
    await node?.stop();
    const directory = join(node?.data ?? '', 'store');
    await process.tell({ do: 'open', store, directory });
    await process.fill(messages);
    return { node, process };
  } catch (error) {
    await process.stop();
    await node?.remove();
    throw error;
  }
}

export async function run({ messages = 1_000_000, store = 'embedded' }: BenchOptions = {}): Promise<Record<string, unknown>> {
  if (store !== 'embedded' && store !== 'memory')
    return { skipped: `it is for the embedded and the memory store, not for ${store}` };
  const startMs = performance.now();
  const all: Awaited<ReturnType<typeof filled>>[] = [];
  try {
    for (const waiting of [smallQueue, messages]) all.push(await filled(store, waiting));
    const [small, large] = all.map((one) => one.process) as [StoreProcess, StoreProcess];
    for (let at = 0; at <= rounds; at++) {
      // Whoever comes second finds the machine as the first has left it: in turns.
      for (const one of at % 2 === 0 ? [small, large] : [large, small]) await one.measure();
    }
    const [ofSmall, ofLarge] = [figures(small, smallQueue), figures(large, messages)];
    const memory = await Promise.all([small, large].map((one) => one.tell({ do: 'memory' })));
    await Promise.all([small.stop(), large.stop()]);
    const mib: { resident: number; own: number }[] = [];
    for (const { node } of all) if (node) mib.push(await nodeMib(node));
    return {
      store,
      messages,
      seconds: Math.round((performance.now() - startMs) / 1000),
      small: { ...rounded(ofSmall), processMib: round(memory[0]!.residentBytes / 2 ** 20), nodeMib: mib[0] },
      large: { ...rounded(ofLarge), processMib: round(memory[1]!.residentBytes / 2 ** 20), nodeMib: mib[1] },
      ratios: {
        enqueueTime: ratio(ofSmall.enqueuesPerSecond, ofLarge.enqueuesPerSecond),
        enqueueCpu: ratio(ofLarge.enqueueCpuMicros, ofSmall.enqueueCpuMicros),
        claimTime: ratio(ofLarge.claimMsMedian, ofSmall.claimMsMedian),
        claimTimeP99: ratio(ofLarge.claimMsP99, ofSmall.claimMsP99),
        claimCpu: ratio(ofLarge.claimCpuMicros, ofSmall.claimCpuMicros),
        ...(mib.length === 2 && { nodeMemory: ratio(mib[1]!.resident, mib[0]!.resident) }),
      },
    };
  } finally {
    for (const { process, node } of all) {
      await process.stop();
      await node?.remove();
    }
  }
}
