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

/** `event`: raised (a peer has gone silent), cleared (news of it has come), refuted (this node was suspected and has said that it lives). */
export const suspicions = counter<'event'>(
  'starling_cluster_suspicions_total',
  'Suspicions among nodes, by what became of them.',
  ['event'],
);
/** `result`: sent, answered, failed (nobody has answered in time). */
export const probes = counter<'result'>('starling_cluster_probes_total', 'Questions to silent nodes, through others too.', [
  'result',
]);
export const falseAlarms = counter(
  'starling_cluster_false_alarms_total',
  'Times that a node that had not been heard for all of the time allowed was heard again.',
);
export const doubtRounds = counter(
  'starling_cluster_doubt_rounds_total',
  'Rounds of heartbeat and look at the faster pace, for doubt about a node or about being heard.',
);

/** What the gauges show of one node's membership. */
export interface Shown extends Membership {
  /** By what this node stretches silences for want of trust in itself: 1 to 4. */
  readonly localHealthStretch: number;
}

const watched = new Set<Shown>();

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

const verdictsGauge = gauge('starling_cluster_verdicts', 'Other nodes, by what this one makes of them.', ['verdict'], (self) => {
  const counts = { alive: 0, isolated: 0, 'store-less': 0, suspect: 0, dead: 0 };
  for (const one of watched) for (const { isSelf, verdict } of one.nodes()) if (!isSelf) counts[verdict]++;
  for (const [verdict, count] of Object.entries(counts)) self.set({ verdict }, count);
});

const phiGauge = gauge('starling_cluster_phi_max', 'The highest phi of all nodes that gossip has heard.', [], (self) => {
  for (const one of watched) self.set(Math.max(0, ...one.nodes().map(({ phi = 0 }) => phi)));
});

const stretchGauge = gauge(
  'starling_cluster_local_health',
  'By what this node stretches silences because it runs late or is not answered: 1 (well) to 4.',
  [],
  (self) => {
    for (const one of watched) self.set(one.localHealthStretch);
  },
);

/** For tests: the gauges of this file. */
export const clusterGauges = [membersGauge, ageGauge, skewGauge, standingGauge, verdictsGauge, phiGauge, stretchGauge] as const;

/** Shows this membership in the metrics. Answers the way to stop it. */
export function showInMetrics(membership: Shown): () => void {
  watched.add(membership);
  return () => void watched.delete(membership);
}
