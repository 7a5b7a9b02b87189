/**
 * The key-value store by itself: transactions per second, commit latency, and what the event loop feels meanwhile, on the memory and
 * the embedded backend. Two loads: one get and one set; and a delivery-like transaction (4 gets, 14 sets, about 2.5 kB).
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { type KvStore, type KvTransaction, openEmbeddedStore, openMemoryStore } from '../../store/kv/index.js';

const clientCounts = [1, 16, 64];
const accounts = 1000;
/** Before each measurement, so that compilation and growing buffers are not measured. */
const warmUpMs = 150;

export interface KvBenchOptions {
  /** Where the embedded store is made (and removed). Default: below the system's temporary directory. */
  directory?: string;
  /** Length of each of the 12 measurements. */
  measureMs?: number;
}

/** One transaction of a load; `serial` differs each time. */
type Load = (tx: KvTransaction, serial: number) => Promise<void>;

const small = Buffer.alloc(100, 0x61);
const values = [8, 40, 60, 90, 120, 150, 180, 200, 220, 240, 260, 280, 300, 350].map((length) => Buffer.alloc(length, 0x62));

function key(space: string, account: number, detail: string | number): Buffer {
  return Buffer.from(`${space}/${String(account).padStart(6, '0')}/${detail}`);
}

const loads: Record<string, Load> = {
  async getSet(tx, serial) {
    const place = key('s', (serial * 7919) % accounts, serial % 10);
    await tx.get(place);
    small.writeUInt32LE(serial >>> 0);
    tx.set(place, small);
  },
  /** Reads an account's counters, writes message, mailbox entry, change log, quota, thread, links and the like. */
  async delivery(tx, serial) {
    const account = (serial * 7919) % accounts;
    await Promise.all(['box', 'quota', 'modseq', 'thread'].map((name) => tx.get(key('c', account, name))));
    values.forEach((value, at) => {
      value.writeUInt32LE(serial >>> 0);
      const place = at < 4 ? key('c', account, ['box', 'quota', 'modseq', 'thread'][at]!) : key(`d${at}`, account, serial);
      tx.set(place, value);
    });
  },
};

let serial = 0;

/** Runs `load` with that many clients, each starting its next transaction when the last one is durable. */
async function measure(store: KvStore, load: Load, clients: number, measureMs: number) {
  const latenciesMs: number[] = [];
  let until = performance.now() + warmUpMs;
  const client = async () => {
    for (let begunMs = performance.now(); begunMs < until; ) {
      const mine = serial++;
      await store.transact((tx) => load(tx, mine), { label: 'bench' });
      const endedMs = performance.now();
      latenciesMs.push(endedMs - begunMs);
      begunMs = endedMs;
    }
  };
  const all = () => Promise.all(Array.from({ length: clients }, client));
  await all();
  latenciesMs.length = 0;
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const cpuBefore = process.cpuUsage();
  const begunMs = performance.now();
  until = begunMs + measureMs;
  await all();
  const seconds = (performance.now() - begunMs) / 1000;
  const cpu = process.cpuUsage(cpuBefore);
  delay.disable();
  latenciesMs.sort((a, b) => a - b);
  const quantile = (q: number) => round(latenciesMs[Math.min(latenciesMs.length - 1, Math.floor(latenciesMs.length * q))]!);
  return {
    transactionsPerSecond: Math.round(latenciesMs.length / seconds),
    p50Ms: quantile(0.5),
    p99Ms: quantile(0.99),
    cpuMicrosecondsPerTransaction: Math.round((cpu.user + cpu.system) / latenciesMs.length),
    // Nothing was sampled when the loop never turned: the memory store alone uses nothing but microtasks.
    loopDelayP99Ms: delay.max > 0 ? round(delay.percentile(99) / 1e6) : null,
    loopDelayMaxMs: delay.max > 0 ? round(delay.max / 1e6) : null,
  };
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

async function measureStore(store: KvStore, measureMs: number): Promise<Record<string, unknown>> {
  const results: Record<string, unknown> = {};
  for (const [name, load] of Object.entries(loads)) {
    for (const clients of clientCounts) results[`${name}.${clients}`] = await measure(store, load, clients, measureMs);
  }
  return results;
}

/** Measures both backends; about 15 seconds. Keys of the result: backend, then `load.clients`. */
export async function run(options: KvBenchOptions = {}): Promise<Record<string, unknown>> {
  const measureMs = options.measureMs ?? 900;
  const directory = await mkdtemp(join(options.directory ?? tmpdir(), 'starling-bench-kv-'));
  try {
    const embedded = await openEmbeddedStore({ directory });
    const embeddedResults = await measureStore(embedded, measureMs);
    await embedded.close();
    const memory = openMemoryStore();
    const memoryResults = await measureStore(memory, measureMs);
    await memory.close();
    return { embedded: embeddedResults, memory: memoryResults };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
