/**
 * The key-value store by itself: transactions per second, commit latency, and what the event loop feels meanwhile, on each backend.
 * Two loads: one get and one set; and a delivery-like transaction (4 gets, 14 sets, about 2.5 kB). Beside PostgreSQL runs pgbench, in turns.
 */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { createLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { type KvStore, type KvTransaction, openEmbeddedStore, openMemoryStore } from '../../store/kv/index.js';
import { PostgresServer } from '../harness/postgres-server.js';
import { median } from './figures.js';
import type { BenchOptions } from './options.js';
import { findPgbench, type PlainLoad, preparePlainTable, runPgbench } from './pgbench.js';

const clientCounts = [1, 16, 64];
const accounts = 1000;
/** Before each measurement, so that compilation and growing buffers are not measured. */
const warmUpMs = 150;

/** Of the comparison with pgbench: the middle one counts. */
const rounds = 3;
const pgbenchSeconds = 2;

export interface KvBenchOptions extends BenchOptions {
  /** Where the embedded store is made (and removed). Default: below the system's temporary directory. */
  directory?: string;
  /** Length of each measurement. */
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

const plainLoads: Record<string, PlainLoad> = {
  getSet: { overwritten: [small.length], added: [], accounts, keysPerAccount: 10 },
  delivery: {
    overwritten: values.slice(0, 4).map(({ length }) => length),
    added: values.slice(4).map(({ length }) => length),
    accounts,
    keysPerAccount: 1,
  },
};

const surroundings = () => ({ logger: createLogger({ level: 'warn' }), clock: systemClock, random: systemRandom });

/** Our transactions and pgbench's in turns on one server, whose durability is as it comes. */
async function measurePostgres(directory: string): Promise<Record<string, unknown>> {
  const { openPostgresStore } = await import('../../store/kv/postgres/index.js');
  const pgbench = findPgbench();
  const server = await PostgresServer.start({ folder: directory, settings: { max_connections: '200' } });
  try {
    const store = await openPostgresStore({ connectionString: server.url(), ...surroundings() });
    const [shown] = await server.query(
      "select current_setting('server_version') as version, current_setting('fsync') as fsync, current_setting('synchronous_commit') as commit",
    );
    await preparePlainTable(server, Object.values(plainLoads));
    const results: Record<string, unknown> = { server: shown, pgbench: pgbench ?? 'not found' };
    for (const [name, load] of Object.entries(loads)) {
      for (const clients of clientCounts) {
        const ours: Awaited<ReturnType<typeof measure>>[] = [];
        const theirs: number[] = [];
        for (let round = 0; round < rounds; round++) {
          ours.push(await measure(store, load, clients, pgbenchSeconds * 1000));
          if (pgbench) theirs.push(await runPgbench(pgbench, server, plainLoads[name]!, clients, pgbenchSeconds));
        }
        const middle = median(ours.map(({ transactionsPerSecond }) => transactionsPerSecond));
        results[`${name}.${clients}`] = {
          ...ours.find(({ transactionsPerSecond }) => transactionsPerSecond === middle),
          ...(pgbench ? { pgbenchPerSecond: Math.round(median(theirs)), ratio: round(middle / median(theirs)) } : {}),
        };
      }
    }
    await store.close();
    return results;
  } finally {
    await server.remove();
  }
}

/** The FoundationDB of the cluster file in FDB_CLUSTER_FILE, under keys that nothing else uses, and that stay there. */
async function measureFoundationDb(measureMs: number): Promise<Record<string, unknown>> {
  const clusterFile = process.env['FDB_CLUSTER_FILE'];
  if (!clusterFile) return { skipped: 'needs a FoundationDB: FDB_CLUSTER_FILE' };
  const { openFoundationDbStore } = await import('../../store/kv/foundationdb/index.js');
  const store = await openFoundationDbStore({ clusterFile, ...surroundings() });
  try {
    return await measureStore(store, measureMs);
  } finally {
    await store.close();
  }
}

/** Measures the embedded and the memory backend (about 15 seconds), or the one that is named. Keys of the result: backend, then `load.clients`. */
export async function run(options: KvBenchOptions = {}): Promise<Record<string, unknown>> {
  const measureMs = options.measureMs ?? 900;
  const wanted = options.store === undefined ? ['embedded', 'memory'] : [options.store];
  const results: Record<string, unknown> = {};
  const directory = await mkdtemp(join(options.directory ?? tmpdir(), 'starling-bench-kv-'));
  try {
    for (const backend of wanted) {
      if (backend === 'postgres') {
        // The server's user must be able to enter.
        await chmod(directory, 0o755);
        results[backend] = await measurePostgres(directory);
      } else if (backend === 'foundationdb') results[backend] = await measureFoundationDb(measureMs);
      else {
        const store = backend === 'embedded' ? await openEmbeddedStore({ directory }) : openMemoryStore();
        results[backend] = await measureStore(store, measureMs);
        await store.close();
      }
    }
    return results;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
