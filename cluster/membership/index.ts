/** Who is in the cluster, as one node sees it. */
export * from './contract.js';
export { createMembership } from './membership.js';
export type { MembershipOptions } from './options.js';
