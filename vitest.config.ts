import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

/** Vitest itself would leave one core free, which is half of a small machine. */
const unitWorkers = Math.max(2, availableParallelism());
/** Each file of these starts several processes of its own, which wait much of the time. */
const clusterWorkers = Math.max(2, Math.min(4, availableParallelism()));

const scenarios = 'test-cluster/scenarios';
/** What says something of times, memory or round trips, or strikes at nodes that must be heard of in time: nothing else runs beside it. */
const alone = ['chaos', 'cluster-gossip', 'large-message', 'round-trips', 'wrong-clock'].map(
  (name) => `${scenarios}/${name}.e2e.ts`,
);
const patience = { testTimeout: 900_000, hookTimeout: 600_000, teardownTimeout: 60_000 };

export default defineConfig({
  resolve: {
    alias: [{ find: /^fast-check$/, replacement: fileURLToPath(new URL('test-cluster/harness/fast-check.ts', import.meta.url)) }],
  },
  test: {
    pool: 'forks',
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['{node,cluster,store,protocols,ops,test-cluster}/**/*.test.ts'],
          // Nothing measures itself by these: they end what hangs, also on a machine that has lost most of its processor to others.
          testTimeout: 600_000,
          hookTimeout: 600_000,
          maxWorkers: unitWorkers,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'e2e',
          include: ['test-cluster/**/*.e2e.ts'],
          exclude: alone,
          ...patience,
          maxWorkers: clusterWorkers,
          sequence: { groupOrder: 2 },
        },
      },
      {
        extends: true,
        test: { name: 'e2e-alone', include: alone, ...patience, maxWorkers: 1, sequence: { groupOrder: 3 } },
      },
    ],
  },
});
