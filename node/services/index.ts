/** Background work of a node. */
export { createPurger, defaultPurgeSettings, type Purger, type PurgerDependencies, type PurgeSettings } from './purge.js';
export {
  createQueueRunner,
  defaultRunnerLimits,
  type QueueRunner,
  type QueueRunnerDependencies,
  type RunnerLimits,
  takeOverAll,
} from './queue-runner.js';
