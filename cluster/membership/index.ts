/** Who is in the cluster, as one node sees it. */
export * from './contract.js';
export { createMembership, type MembershipOptions } from './membership.js';
