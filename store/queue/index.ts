/** The distributed queue's public face. */
export * from './contract.js';
export { createDestinations, type DestinationsDependencies, destinationLimits } from './destinations.js';
export type * from './destinations-contract.js';
export { clearExpansionMark, type ExpansionMark, readExpansionMark, setExpansionMark } from './expansions.js';
export * from './history.js';
export type * from './history-contract.js';
export { firstIdAt, isQueueId } from './ids.js';
export { createQueue, type QueueDependencies } from './queue.js';
export { allShards, hash32, type QueueShare, shardOf, shardOwners, shardsOf } from './shards.js';
