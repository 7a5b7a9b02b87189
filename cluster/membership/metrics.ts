/** What membership counts. The gauges are read when metrics are asked for. */
import { counter, gauge } from '../../ops/telemetry/index.js';
import type { Membership } from './contract.js';

/** `cause`: dead (its heartbeat stood still for a term), leftover (claims, a row or a fence without the rest; what an earlier process on the same exclusive store had). */
export const takeovers = counter<'cause'>('starling_cluster_takeovers_total', 'Nodes whose work this node has freed.', ['cause']);
export const claimsFreed = counter('starling_cluster_claims_freed_total', 'Claims of dead nodes that this node has freed.');
export const heartbeatFailures = counter(
  'starling_cluster_heartbeat_failures_total',
  'Rounds of heartbeat and look that the store did not take.',
);

const watched = new Set<Membership>();

/** `state`: as in the rows; `late`, `freeing` and `unreadable` instead where that is so. */
const membersGauge = gauge('starling_cluster_members', 'Nodes that the store knows, by state.', ['state'], (self) => {
  const counts = { starting: 0, ready: 0, draining: 0, late: 0, freeing: 0, unreadable: 0 };
  for (const one of watched) {
    for (const { health, row } of one.nodes()) counts[health !== 'alive' ? health : (row?.state ?? 'unreadable')]++;
  }
  for (const [state, count] of Object.entries(counts)) self.set({ state }, count);
});

const ageGauge = gauge(
  'starling_cluster_heartbeat_age_seconds',
  'How long ago the last successful heartbeat of this node began.',
  [],
  (self) => {
    for (const one of watched) if (one.standing !== 'new') self.set(one.heartbeatAgeMs / 1000);
  },
);

const skewGauge = gauge(
  'starling_cluster_clock_skew_seconds',
  'The largest difference between the wall clock of this node and that of a peer, to about half the interval of heartbeats.',
  [],
  (self) => {
    for (const one of watched) {
      const skews = one.nodes().map(({ clockSkewMs = 0 }) => Math.abs(clockSkewMs));
      self.set(Math.max(0, ...skews) / 1000);
    }
  },
);

const standingGauge = gauge('starling_cluster_storeless', '1 while no heartbeat of this node comes through.', [], (self) => {
  for (const one of watched) self.set(one.standing === 'storeless' || one.standing === 'fenced' ? 1 : 0);
});

/** For tests: the gauges of this file. */
export const clusterGauges = [membersGauge, ageGauge, skewGauge, standingGauge] as const;

/** Shows this membership in the metrics. Answers the way to stop it. */
export function showInMetrics(membership: Membership): () => void {
  watched.add(membership);
  return () => void watched.delete(membership);
}
