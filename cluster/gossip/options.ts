/** What a node's gossip is made with. */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { HostAndPort } from './contract.js';

export interface GossipOptions {
  nodeId: string;
  /** Of this process, until `setIncarnation` says otherwise. */
  incarnation: number;
  /** 32 bytes that all nodes of the cluster share, and nobody else. The network's keys and names are derived from it. */
  secret: Buffer;
  /** Port 0 takes a free one. */
  listen: readonly HostAndPort[];
  /** Where others reach this node, when that is not where it listens (NAT, containers). */
  advertise?: readonly HostAndPort[];
  /** Dialed for ever beside the members, whoever answers there. This node's own address may be among them. */
  bootstrap?: readonly HostAndPort[];
  /** Looks for nodes of the same cluster on the local network. Default: no. */
  isMdnsEnabled?: boolean;
  clock: Clock;
  random: Random;
  logger: Logger;
}

/** Times of the room, milliseconds. */
export const gossipTimes = {
  /** Between two looks at what is due. */
  tickMs: 250,
  /** Between two pings on one connection that carries nothing else. */
  pingIntervalMs: 3_000,
  /** A peer that has said nothing for so long is to be pinged. */
  quietMs: 1_000,
  /** Between two pings where something comes all the time. */
  roundTripIntervalMs: 15_000,
  /** A connection is given up when a ping has gone unanswered, and nothing else has come, for so long. */
  silenceMs: 3_500,
  /** The same for an older connection, once a newer one can carry messages. */
  supersededSilenceMs: 1_500,
  /** A ping that has gone unanswered for so long, when nothing else has come, makes a connection doubtful: what must reach the peer goes other ways too. */
  doubtMs: 1_000,
  /** From a message that may not have reached a peer until the peer is doubtful, at the longest: a ping was just answered when the connection died. */
  recentMs: 5_000,
  /** From a message that may not have gone out until its connection is closed. */
  lossMs: 1_000,
  /** Between two times that such messages are published again: an overloaded cluster, where pings are late all the time, must not get more to do. */
  againPauseMs: 10_000,
  /** Until a peer that has refused the stream for published messages is asked again. */
  laneRetryMs: 30_000,
  /** Until TCP is open. Two SYNs go out in it, and the third would come late. */
  connectTimeoutMs: 1_250,
  /** For the handshakes that follow: a peer may be slow. */
  handshakeTimeoutMs: 5_000,
  /** A peer that is not a member by then is hung up on. */
  strangerMs: 10_000,
  /** For so long no connection is accepted from a stranger that was hung up on. */
  strangerRefusalMs: 2_000,
  /** For so long no connection is made with a peer that was cut off for what it sent. */
  cutOffMs: 10_000,
  /** Of a member: hardly a pause, so that a healed network carries again within two seconds. */
  memberRedialMs: 300,
  /** Of addresses that nobody has to stand behind: from the first to the last, growing. */
  addressRedialMs: { first: 1_000, last: 5_000 },
  /** The node with the higher id leaves the other one the first dial, so that there are seldom two connections. */
  secondDialerDelayMs: 1_000,
  /** A second connection that has carried nothing for so long is closed. */
  duplicateMs: 10_000,
  /** A peer whose gossip streams are missing for so long gets them anew. */
  streamRepairMs: 1_000,
  /**
   * A peer that has not told its subscriptions by then gets a new connection. Longer than a dead connection lives: gossipsub opens its streams one after
   * the other, and one that hangs holds up the others until its connection is given up.
   */
  subscriptionMs: 10_000,
} as const;
