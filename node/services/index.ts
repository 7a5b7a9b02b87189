/** Background work of a node. */
export { createPurger, defaultPurgeSettings, type Purger, type PurgerDependencies, type PurgeSettings } from './purge.js';
export {
  createQueueRunner,
  defaultRunnerLimits,
  type QueueRunner,
  type QueueRunnerDependencies,
  type RunnerLimits,
} from './queue-runner.js';
