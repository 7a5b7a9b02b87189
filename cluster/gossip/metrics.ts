/** What gossip counts. */
import { counter, gauge, histogram } from '../../ops/telemetry/index.js';
import type { Topic } from './contract.js';

export type Channel = Topic | 'direct';

/**
 * Why a message was dropped. Sending: `too-large`, `unpackable`, `not-connected`, `full` (more waits for the peer than is allowed), `stopped`. Receiving:
 * `not-a-member`, `rate`, `newer` (of a later version), `stale` (a replay, or of an old incarnation), `garbage`, `oversized`, `unknown-topic`, `listener` (one of ours threw).
 */
export type DropReason =
  | 'too-large'
  | 'unpackable'
  | 'not-connected'
  | 'full'
  | 'stopped'
  | 'not-a-member'
  | 'rate'
  | 'newer'
  | 'stale'
  | 'garbage'
  | 'oversized'
  | 'unknown-topic'
  | 'listener';

const messagesSent = counter<'topic'>('starling_gossip_messages_sent_total', 'Messages that this node has sent.', ['topic']);
const messagesReceived = counter<'topic'>('starling_gossip_messages_received_total', 'Messages handed up.', ['topic']);
const bytesSent = counter<'topic'>('starling_gossip_sent_bytes_total', 'Bytes of messages sent, each counted once.', ['topic']);
const bytesReceived = counter<'topic'>('starling_gossip_received_bytes_total', 'Bytes of messages received, doubles included.', [
  'topic',
]);
export const messagesDropped = counter<'topic' | 'reason'>(
  'starling_gossip_messages_dropped_total',
  'Messages not sent or not handed up, by reason.',
  ['topic', 'reason'],
);
/** The same message by several ways. */
export const duplicates = counter<'topic'>('starling_gossip_duplicates_total', 'Messages that had come before.', ['topic']);

/** `straight`: a frame to everybody. `gossipsub`: somebody is out of reach, or of an older release. `again`: straight before, and then by gossipsub. */
type Way = 'straight' | 'gossipsub' | 'again';
const publishedBy = counter<'way'>('starling_gossip_published_total', 'Messages published, by the way that they went.', ['way']);

/**
 * What is counted with every message: taken over when somebody reads the counter, because finding a label costs more than a cipher does. `key` is the value
 * of the counter's only label.
 */
function tallied<K extends string, L extends string>(
  of: ReturnType<typeof counter<L>>,
  label: L,
): (key: K, add?: number) => void {
  const counts = new Map<K, number>();
  const takeOver = () => {
    for (const [key, count] of counts) of.inc({ [label]: key } as unknown as Record<L, string>, count);
    counts.clear();
  };
  Object.assign(of, { collect: takeOver });
  return (key, add = 1) => void counts.set(key, (counts.get(key) ?? 0) + add);
}

export const countSent = tallied<Channel, 'topic'>(messagesSent, 'topic');
export const countSentBytes = tallied<Channel, 'topic'>(bytesSent, 'topic');
export const countReceived = tallied<Channel, 'topic'>(messagesReceived, 'topic');
export const countReceivedBytes = tallied<Channel, 'topic'>(bytesReceived, 'topic');
export const countPublished = tallied<Way, 'way'>(publishedBy, 'way');

/** `cause`: closed (by either side), silence, superseded, duplicate, stranger, garbage, oversized, subscriptions. */
export const connectionsClosed = counter<'cause'>('starling_gossip_connections_closed_total', 'Connections closed, by cause.', [
  'cause',
]);
export const connectionsOpened = counter<'direction'>('starling_gossip_connections_opened_total', 'Connections opened.', [
  'direction',
]);
/** `reason`: key (it does not know the cluster's secret), handshake (it never began one), penalty (it was cut off a moment ago), crowded (too many from one address). */
export const connectionsRefused = counter<'reason'>(
  'starling_gossip_connections_refused_total',
  'Connections that came to nothing.',
  ['reason'],
);
export const dialFailures = counter('starling_gossip_dial_failures_total', 'Dials that ended without a connection.');
export const streamRepairs = counter('starling_gossip_stream_repairs_total', 'Gossip streams that had to be opened anew.');

/** `peer`: the first eight digits of the node id; removed when it is no member any more. */
export const roundTrip = gauge<'peer'>('starling_gossip_round_trip_seconds', 'Of the last ping that was answered.', ['peer']);
export const roundTrips = histogram('starling_gossip_ping_seconds', 'Round trips of pings.');

/** What the gauges read. */
export interface Watched {
  peerCounts(): { connected: number; disconnected: number; strangers: number };
  meshSizes(): [Topic, number][];
}

const watched = new Set<Watched>();

const peersGauge = gauge('starling_gossip_peers', 'Members by connection, and strangers.', ['state'], (self) => {
  for (const one of watched) for (const [state, count] of Object.entries(one.peerCounts())) self.set({ state }, count);
});
const meshGauge = gauge('starling_gossip_mesh_peers', 'Peers in the mesh of a topic.', ['topic'], (self) => {
  for (const one of watched) for (const [topic, size] of one.meshSizes()) self.set({ topic }, size);
});

/** For tests: the gauges that are read when metrics are asked for. */
export const gossipGauges = [peersGauge, meshGauge] as const;

/** Shows this node in the metrics. Answers the way to stop it. */
export function showInMetrics(one: Watched): () => void {
  watched.add(one);
  return () => void watched.delete(one);
}
