/** Jobs that one node does for all. */
export * from './contract.js';
export { createLeaderLeases, type LeaseOptions } from './leases.js';
