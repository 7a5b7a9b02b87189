export type * from './contract.js';
export { SystemResolver, type SystemResolverOptions } from './resolver.js';
