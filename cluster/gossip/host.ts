/** The libp2p node: what it is made of, and its limits. Addresses are never taken from libp2p's own address book. */
import './with-resolvers.js';
import { gossipsub } from '@chainsafe/libp2p-gossipsub';
import { noise } from '@chainsafe/libp2p-noise';
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys';
import { identify } from '@libp2p/identify';
import { mdns } from '@libp2p/mdns';
import { preSharedKey } from '@libp2p/pnet';
import { tcp } from '@libp2p/tcp';
import { createLibp2p, type Libp2pOptions } from 'libp2p';
import { addressText, multiaddrText, Names } from './addresses.js';
import { gossipLimits, topics } from './contract.js';
import type { Gatekeeper } from './gatekeeper.js';
import type { NetworkKeys, ProtocolNames } from './keys.js';
import type { Host } from './libp2p-types.js';
import { thriftyYamux } from './muxer.js';
import type { GossipOptions } from './options.js';

export { multiaddr } from '@multiformats/multiaddr';

type SilentLogger = ReturnType<NonNullable<Libp2pOptions['logger']>['forComponent']>;

const maxConnections = 1_024;
/** Connections that have not shown the key yet, all in all. */
const maxPendingInbound = 64;
/** Opened by one address in a second: a whole cluster may stand behind one (NAT, tests). */
const maxInboundPerSecond = 64;
const inboundHandshakeMs = 4_000;
/** Messages that one request for missed ones may name; with their size it bounds what comes in one piece. */
const maxWantedMessages = 64;

/** libp2p logs some thirty lines for a message. They cost something even when nobody reads them; what matters is told by this room itself. */
const silence = Object.assign(() => undefined, {
  enabled: false,
  error: () => undefined,
  trace: () => undefined,
  newScope: () => silence,
}) as unknown as SilentLogger;

export interface HostParts {
  keys: NetworkKeys;
  names: ProtocolNames;
  gatekeeper: Gatekeeper;
  /** mDNS has seen somebody at these addresses. */
  onFound(multiaddrs: readonly string[]): void;
  /** Of a published message, the same everywhere. */
  messageId(topic: string, bytes: Uint8Array): Uint8Array;
}

/** Makes the node without starting it. Throws an Error with a sentence when an address to listen on can't be resolved. */
export async function createHost(options: GossipOptions, parts: HostParts): Promise<Host> {
  const { keys, names, gatekeeper } = parts;
  const host = await createLibp2p({
    start: false,
    logger: { forComponent: () => silence },
    privateKey: await generateKeyPairFromSeed('Ed25519', options.random.bytes(32)),
    addresses: { listen: await listenMultiaddrs(options) },
    transports: [tcp({ inboundSocketInactivityTimeout: 60_000, outboundSocketInactivityTimeout: 60_000, backlog: 256 })],
    connectionEncrypters: [noise()],
    // Pings of ours keep connections alive and notice when they are not.
    streamMuxers: [thriftyYamux({ enableKeepAlive: false, maxInboundStreams: 32, maxOutboundStreams: 32 })],
    connectionMonitor: { enabled: false },
    connectionProtector: () => gatekeeper.guard(preSharedKey({ psk: keys.swarmKey })()),
    connectionGater: gatekeeper.gater,
    connectionManager: {
      maxConnections,
      maxIncomingPendingConnections: maxPendingInbound,
      inboundConnectionThreshold: maxInboundPerSecond,
      inboundUpgradeTimeout: inboundHandshakeMs,
      reconnectRetries: 0,
    },
    peerStore: { addressFilter: () => false },
    peerDiscovery: options.isMdnsEnabled ? [discovery(parts)] : [],
    services: {
      identify: identify({ protocolPrefix: names.identifyPrefix, maxInboundStreams: 4, maxOutboundStreams: 4 }),
      pubsub: gossipsub(gossipsubOptions(parts)),
    },
  });
  // Its option for this has no effect. One protocol of the cluster's own, in place of the three public ones.
  host.services.pubsub.protocols.splice(0, Number.POSITIVE_INFINITY, names.gossip);
  return host;
}

/**
 * A message goes from its origin straight to all its neighbours, which in a cluster are all members. The mesh only serves nodes that can't reach one
 * another, and is therefore thin.
 */
function gossipsubOptions({ names, messageId }: HostParts): Parameters<typeof gossipsub>[0] {
  return {
    globalSignaturePolicy: 'StrictNoSign',
    msgIdFn: ({ topic, data }) => messageId(topic, data),
    msgIdToStrFn: (id) => Buffer.from(id.buffer, id.byteOffset, id.byteLength).toString('latin1'),
    allowedTopics: topics.map((topic) => names.topic(topic)),
    allowPublishToZeroTopicPeers: true,
    ignoreDuplicatePublishError: true,
    emitSelf: false,
    fallbackToFloodsub: false,
    floodPublish: true,
    batchPublish: true,
    doPX: false,
    tagMeshPeers: false,
    // Every node publishes to all that it is connected with. Nobody passes on at once, which would send each message twice; who is cut off from the publisher
    // alone hears of it from a third within a heartbeat (IHAVE).
    D: 0,
    Dlo: 0,
    Dhi: 0,
    Dscore: 0,
    Dout: 0,
    Dlazy: 3,
    heartbeatInterval: 1_000,
    // Nodes restart more often than public peers: a minute without a mesh would be long.
    pruneBackoff: 5_000,
    unsubcribeBackoff: 5_000,
    graftFloodThreshold: 1_000,
    seenTTL: 60_000,
    maxInboundStreams: 2,
    maxOutboundStreams: 2,
    maxOutboundBufferSize: gossipLimits.maxOutboundBytes,
    maxInboundDataLength: maxWantedMessages * (gossipLimits.maxMessageBytes + 256),
    maxTopicBytesPerPeer: 64 * 1024,
    decodeRpcLimits: {
      maxSubscriptions: 16,
      maxMessages: 1_024,
      maxControlMessages: 32,
      maxIhaveMessageIDs: 5_000,
      maxIwantMessageIDs: maxWantedMessages,
      maxIdontwantMessageIDs: 512,
      maxPeerInfos: 0,
    },
    // Members are judged by their rows and their heartbeats, not by scores; many may share an address.
    scoreParams: {
      IPColocationFactorWeight: 0,
      behaviourPenaltyWeight: 0,
      appSpecificWeight: 0,
      topics: {},
    },
  };
}

/** Peers to which what comes on a topic is passed on at once. */
export function meshSize(host: Host, topicName: string): number {
  return (host.services.pubsub as unknown as { getMeshPeers(topic: string): string[] }).getMeshPeers(topicName).length;
}

type Discovery = NonNullable<Libp2pOptions['peerDiscovery']>[number];

/** What is found goes past libp2p's own address book, which would only grow by whatever anybody on the network announces. */
function discovery({ names, onFound }: HostParts): Discovery {
  const make = mdns({ serviceTag: names.mdnsService, interval: 10_000 });
  return (components) => {
    const service = make(components) as ReturnType<typeof make> & { start(): Promise<void>; stop(): Promise<void> };
    service.addEventListener('peer', ({ detail }) => onFound(detail.multiaddrs.map(String)));
    const silent = new EventTarget();
    return Object.assign(silent, { start: () => service.start(), stop: () => service.stop() }) as unknown as typeof service;
  };
}

async function listenMultiaddrs({ listen, clock }: GossipOptions): Promise<string[]> {
  const names = new Names(clock);
  const all: string[] = [];
  for (const address of listen) {
    const hosts = await names.resolve(address.host);
    if (hosts.length === 0) {
      throw new Error(`can't listen for gossip on ${addressText(address)}: there is no address behind this name`);
    }
    for (const host of hosts) all.push(multiaddrText({ host, port: address.port }));
  }
  return all;
}
