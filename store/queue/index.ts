/** The distributed queue's public face. */
export * from './contract.js';
export { firstIdAt, isQueueId } from './ids.js';
export { createQueue, type QueueDependencies } from './queue.js';
export { allShards, type QueueShare, shardOf, shardOwners, shardsOf } from './shards.js';
