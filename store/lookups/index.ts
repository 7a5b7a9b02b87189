export * from './contract.js';
export { createLookups } from './lookups.js';
