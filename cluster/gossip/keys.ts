/**
 * What the cluster's secret gives to the gossip network: the pre-shared key, and a tag in the names of protocols and of the mDNS service, so that two
 * clusters on one network neither meet nor see each other's services.
 */
import { hkdfSync } from 'node:crypto';

const secretBytes = 32;

export interface NetworkKeys {
  /** In the form of libp2p's swarm keys (`/key/swarm/psk/1.0.0/`). */
  swarmKey: Uint8Array;
  /** 12 hexadecimal digits; tells nothing of the secret. */
  tag: string;
}

/** Throws a RangeError when the secret isn't 32 bytes long. */
export function deriveNetworkKeys(secret: Uint8Array): NetworkKeys {
  if (secret.length !== secretBytes) {
    throw new RangeError(`the cluster's secret has ${secret.length} bytes, not ${secretBytes}`);
  }
  const derive = (purpose: string, bytes: number) => Buffer.from(hkdfSync('sha256', secret, '', purpose, bytes)).toString('hex');
  return {
    swarmKey: Buffer.from(`/key/swarm/psk/1.0.0/\n/base16/\n${derive('starling gossip pre-shared key 1', 32)}`, 'latin1'),
    tag: derive('starling gossip tag 1', 6),
  };
}

/** Names on the wire of one cluster. */
export interface ProtocolNames {
  gossip: string;
  direct: string;
  /** Published messages straight from their origin. */
  published: string;
  topic(topic: string): string;
  identifyPrefix: string;
  mdnsService: string;
}

export function protocolNames(tag: string): ProtocolNames {
  return {
    gossip: `/starling/${tag}/gossip/1`,
    direct: `/starling/${tag}/direct/1`,
    published: `/starling/${tag}/published/1`,
    topic: (topic) => `starling/${tag}/${topic}`,
    identifyPrefix: `starling-${tag}`,
    mdnsService: `_s${tag}._tcp.local`,
  };
}
