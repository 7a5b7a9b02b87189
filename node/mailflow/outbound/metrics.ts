/** Counted at the place where mail leaves. */
import { counter } from '../../../ops/telemetry/index.js';

/** `opened`, `reused`, `failed` (to connect), `plain` (TLS was wished and did not work). */
export const connectionsTotal = counter(
  'starling_outbound_connections_total',
  'Connections to other mail servers, by what became of them.',
  ['result'],
);
