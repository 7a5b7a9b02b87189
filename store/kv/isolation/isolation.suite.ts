/**
 * The isolation checker as tests of a backend: rounds of random transactions on one store, on several at once, and under faults, each
 * judged for strict serialisability. `STARLING_ISOLATION_SECONDS` runs it for longer, `STARLING_ISOLATION_SEED` begins with that seed.
 */
import { systemClock } from '../../../ops/telemetry/index.js';
import { seededNumbers, type TestRunner } from '../conformance-room.suite.js';
import type { KvStore } from '../contract.js';
import { assertStrictlySerialisable } from './checker.js';
import type { Numbers } from './generator.js';
import type { ObservedTransaction } from './observed.js';
import { clearWorkload, runWorkload } from './workload.js';

/** Stores on the same data. */
export interface OpenedStores {
  readonly stores: readonly KvStore[];
  close(): Promise<void>;
}

export interface FaultRun {
  readonly stores: readonly KvStore[];
  /** Aborted when the clients have ended: put everything in order then, and resolve. */
  readonly signal: AbortSignal;
  readonly random: Numbers;
}

export interface IsolationBackend {
  readonly name: string;
  /** Called once for each test. */
  open(): Promise<OpenedStores>;
  /** Does harm (cuts connections, makes commits unknown, kills the server) while clients run. */
  faults?(run: FaultRun): Promise<void>;
  /** Clients over all stores together. Default 10. */
  readonly clients?: number;
}

/** What all tests of a backend take together, unless the environment says more. */
const defaultSeconds = 2;
const roundTransactions = 600;
const roundMs = 1_500;

/** Registers the checker's tests for `backend`. */
export function describeIsolation(runner: TestRunner, backend: IsolationBackend): void {
  const seconds = Number(process.env['STARLING_ISOLATION_SECONDS'] ?? defaultSeconds);
  const ways = backend.faults ? 3 : 2;
  const eachMs = (seconds * 1000) / ways;
  const timeoutMs = eachMs + 600_000;
  runner.describe(`isolation: ${backend.name}`, () => {
    runner.it('many clients of one store', () => isolationTest(backend, { eachMs, one: true, faulty: false }), timeoutMs);
    runner.it('clients of all stores', () => isolationTest(backend, { eachMs, one: false, faulty: false }), timeoutMs);
    if (!backend.faults) return;
    runner.it(
      'clients of all stores under faults',
      () => isolationTest(backend, { eachMs, one: false, faulty: true }),
      timeoutMs,
    );
  });
}

interface Way {
  readonly eachMs: number;
  readonly one: boolean;
  readonly faulty: boolean;
}

async function isolationTest(backend: IsolationBackend, way: Way): Promise<void> {
  const { stores, close } = await backend.open();
  const used = way.one ? stores.slice(0, 1) : stores;
  const firstSeed = Number(process.env['STARLING_ISOLATION_SEED'] ?? 1);
  const total = { ok: 0, reads: 0, appends: 0, other: 0 };
  const endMs = systemClock.monotonicMs() + way.eachMs;
  try {
    for (let seed = firstSeed; systemClock.monotonicMs() < endMs || !isEnough(total); seed++) {
      const faults = way.faulty ? backend.faults?.bind(backend) : undefined;
      const maxMs = Math.min(roundMs, Math.max(200, endMs - systemClock.monotonicMs()));
      const history = await isolationRound(used, { seed, clients: backend.clients ?? 10, maxMs, faults });
      count(history, total);
    }
  } finally {
    await close();
  }
}

/** Histories in which nothing happened prove nothing: a slow machine plays on until this holds. */
function isEnough({ ok, reads, appends }: { ok: number; reads: number; appends: number }): boolean {
  return ok >= 20 && reads >= 20 && appends >= 10;
}

export interface RoundOptions {
  readonly seed: number;
  readonly clients: number;
  readonly maxMs: number;
  readonly maxTransactions?: number;
  readonly faults?: ((run: FaultRun) => Promise<void>) | undefined;
}

/** One run with one seed, on a clean prefix; throws when its history is not strictly serialisable. */
export async function isolationRound(stores: readonly KvStore[], options: RoundOptions): Promise<ObservedTransaction[]> {
  const { seed, clients, maxMs, faults } = options;
  // Two processes may try one database at the same time.
  const prefix = Buffer.from(`isolation/${process.pid}/${seed}/`);
  await clearWorkload(stores[0]!, prefix);
  const stop = new AbortController();
  const harm = faults?.({ stores, signal: stop.signal, random: seededNumbers(seed + 1_000_003) });
  // Looked at when the clients have ended.
  harm?.catch(() => {});
  const history = await runWorkload(stores, {
    prefix,
    random: seededNumbers(seed),
    clients,
    maxMs,
    maxTransactions: options.maxTransactions ?? roundTransactions,
    onClientsDone: async () => {
      stop.abort();
      await harm;
    },
  });
  assertStrictlySerialisable(history, `seed ${seed}, ${clients} clients, ${stores.length} stores`);
  await clearWorkload(stores[0]!, prefix);
  return history;
}

function count(
  history: readonly ObservedTransaction[],
  total: { ok: number; reads: number; appends: number; other: number },
): void {
  for (const { outcome, operations } of history) {
    if (outcome !== 'ok') total.other++;
    else total.ok++;
    if (outcome !== 'ok') continue;
    if (operations.some((operation) => operation.kind !== 'append')) total.reads++;
    if (operations.some((operation) => operation.kind === 'append')) total.appends++;
  }
}
