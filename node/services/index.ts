/** Background work of a node. */

export { createIndexer, eventLoopLoad, type Indexer, type IndexerDependencies, type IndexingSettings } from './indexing/index.js';
export type { VirtualQueue } from './lane-turns.js';
export { createPurger, defaultPurgeSettings, type Purger, type PurgerDependencies, type PurgeSettings } from './purge.js';
export {
  createQueueRunner,
  defaultRunnerLimits,
  type QueueRunner,
  type QueueRunnerDependencies,
  type RunnerLimits,
} from './queue-runner.js';
