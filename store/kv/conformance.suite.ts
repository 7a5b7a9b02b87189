/**
 * What every backend must do, as one suite: `describeConformance` registers it for a backend with the given test runner. Each case
 * works below a prefix of its own, so that a shared database may serve; the cases that need a store for themselves open one.
 */
import { anomalyCases } from './conformance-anomalies.suite.js';
import { atomicCases } from './conformance-atomic.suite.js';
import { concurrencyCases } from './conformance-concurrency.suite.js';
import { conflictCases } from './conformance-conflicts.suite.js';
import { edgeCases } from './conformance-edges.suite.js';
import { endCases, type StoreCase, slowCases, timeCases } from './conformance-end.suite.js';
import { limitCases } from './conformance-limits.suite.js';
import { orderCases } from './conformance-order.suite.js';
import { readWriteCases } from './conformance-ranges.suite.js';
import { type ConformanceBackend, type ConformanceCase, roomIn, type TestRunner } from './conformance-room.suite.js';
import { unknownCases } from './conformance-unknown.suite.js';
import { watchCases } from './conformance-watches.suite.js';
import type { KvStore } from './contract.js';

export { type CommitFaults, type ConformanceBackend, ShiftedClock, type TestRunner } from './conformance-room.suite.js';

/** One store shows these. */
const soloCases: readonly ConformanceCase[] = [...readWriteCases, ...atomicCases, ...limitCases];
/** These are about one transaction against another: on one store, and between two nodes on the same data. */
const sharedCases: readonly ConformanceCase[] = [
  ...conflictCases,
  ...edgeCases,
  ...anomalyCases,
  ...concurrencyCases,
  ...orderCases,
  ...watchCases,
];

/** Registers all cases for `backend`. */
export function describeConformance(runner: TestRunner, backend: ConformanceBackend): void {
  const stores: KvStore[] = [];
  let rooms = 0;
  const register = (cases: readonly ConformanceCase[], count: number) => {
    for (const [name, run] of cases) {
      const index = rooms++;
      runner.it(name, async () => {
        const room = roomIn(stores.slice(0, count), index);
        // A database that outlives the tests may hold what an earlier run has left.
        await room.store.transact(async (tx) => tx.clearRange(room.begin, room.end));
        await run(room);
      });
    }
  };
  const registerOwn = (cases: readonly StoreCase[]) => {
    for (const [name, run, timeoutMs] of cases) runner.it(name, () => run(backend), timeoutMs);
  };

  runner.describe(`key-value contract: ${backend.name}`, () => {
    runner.beforeAll(async () => {
      stores.push(await backend.open());
      if (backend.openAnother) stores.push(await backend.openAnother(stores[0]!));
    });
    runner.afterAll(async () => {
      for (const store of stores.reverse()) await store.close();
    });
    register([...soloCases, ...sharedCases], 1);
    registerOwn(endCases);
    if (backend.takesClock) registerOwn(timeCases);
    if (process.env['STARLING_KV_SLOW'] === '1') registerOwn(slowCases);
    const { faults } = backend;
    if (faults) {
      runner.describe('commits whose answer is lost', () => {
        register(
          unknownCases.map(([name, run]) => [name, (room) => run(room, faults)] as const),
          1,
        );
      });
    }
    if (backend.openAnother) runner.describe('two stores on the same data', () => register(sharedCases, 2));
  });
}
