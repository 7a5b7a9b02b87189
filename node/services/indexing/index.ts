/** Filling the full-text index. */
export { eventLoopLoad } from './event-loop.js';
export {
  createIndexer,
  defaultIndexerTimings,
  type Indexer,
  type IndexerDependencies,
  type IndexerTimings,
  type IndexingSettings,
} from './indexer.js';
