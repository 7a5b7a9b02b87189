/** What one node has changed, told to the others. */
export { type BusOptions, createBus } from './bus.js';
export * from './contract.js';
