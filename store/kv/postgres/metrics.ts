/** What the PostgreSQL backend counts. */
import { counter, gauge, histogram } from '../../../ops/telemetry/index.js';

/** `begin`: a snapshot with its first reads; `read`: further reads of one; `commit`: a batch; `poll`, `connect`: upkeep. */
export type Flight = 'begin' | 'read' | 'commit' | 'poll' | 'connect';

const roundTripsTotal = counter(
  'starling_postgres_round_trips_total',
  'Flights of statements to PostgreSQL that somebody waited for.',
  ['kind'],
);

/** Flights so far in this process, by kind; for tests that count what a transaction costs. */
export const roundTrips: Record<Flight, number> = { begin: 0, read: 0, commit: 0, poll: 0, connect: 0 };

const children = Object.fromEntries(Object.keys(roundTrips).map((kind) => [kind, roundTripsTotal.labels(kind)])) as Record<
  Flight,
  { inc(): void }
>;

export function countFlight(kind: Flight): void {
  roundTrips[kind]++;
  children[kind].inc();
}

export const batchTransactions = histogram(
  'starling_postgres_batch_transactions',
  'Transactions that were committed by one call.',
  [],
  [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
);
export const batchBytes = histogram(
  'starling_postgres_batch_bytes',
  'Size of the arguments of one commit call.',
  [],
  [256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216],
);
export const batchSeconds = histogram('starling_postgres_batch_seconds', 'From sending a batch to its answer.');
export const snapshotPassengers = histogram(
  'starling_postgres_snapshot_transactions',
  'Transactions that shared one snapshot.',
  [],
  [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
);
/** `where`: found by the server, or by the node among its own commits that are on their way. */
export const conflictsTotal = counter('starling_postgres_conflicts_total', 'Transactions refused for a conflict.', ['where']);
/** `role`: reader, committer, listener, view. */
export const connectsTotal = counter('starling_postgres_connects_total', 'Connections made to the server.', ['role']);
export const connectFailuresTotal = counter('starling_postgres_connect_failures_total', 'Connections that could not be made.', [
  'role',
]);
export const connectionsOpen = gauge('starling_postgres_connections', 'Open connections to the server.', ['role']);
export const resentTotal = counter('starling_postgres_resent_batches_total', 'Batches sent again because their answer was lost.');
export const unknownTotal = counter('starling_postgres_unknown_batches_total', 'Batches given up without an answer.');
export const lostCommitsTotal = counter(
  'starling_postgres_lost_commits_total',
  'Times that the server stood at an older version than this node had seen: an asynchronous failover lost commits.',
);
/** `cause`: gap, reconnect, poll, unlisted. */
export const watchSweepsTotal = counter('starling_postgres_watch_sweeps_total', 'Times that all watches were woken.', ['cause']);
