/** The slower looks at all peers: strangers that overstay, gossip streams that are missing, connections that nobody needs, what libp2p remembers. */
import { needlessLink } from './duplicates.js';
import type { Gatekeeper } from './gatekeeper.js';
import type { ProtocolNames } from './keys.js';
import type { Host } from './libp2p-types.js';
import type { Link } from './link.js';
import { gossipTimes } from './options.js';
import type { Peers } from './peers.js';
import { repairStreams } from './stream-repair.js';

/** Between two looks. */
const lookIntervalMs = 900;
/** Between two times that libp2p is made to forget peers that are gone. */
const forgetIntervalMs = 600_000;

export interface UpkeepOptions {
  host: Host;
  peers: Peers;
  gatekeeper: Gatekeeper;
  names: ProtocolNames;
  hangUp(link: Link, cause: string): void;
}

export class Upkeep {
  #lookedMs = Number.NEGATIVE_INFINITY;
  #forgotMs: number;

  constructor(
    private readonly options: UpkeepOptions,
    nowMs: number,
  ) {
    this.#forgotMs = nowMs;
  }

  /** Looks when it is time to. */
  tick(nowMs: number): void {
    if (nowMs - this.#lookedMs <= lookIntervalMs) return;
    this.#lookedMs = nowMs;
    this.#look(nowMs);
    if (nowMs - this.#forgotMs < forgetIntervalMs) return;
    this.#forgotMs = nowMs;
    // What fails is done with the next time.
    void this.#forget().catch(() => undefined);
  }

  #look(nowMs: number): void {
    const { gatekeeper, hangUp, host, names, peers } = this.options;
    const ownPeerId = host.peerId.toString();
    const subscribers = new Set(host.services.pubsub.getSubscribers(names.topic('membership')).map(String));
    for (const peer of [...peers.byPeerId.values()]) {
      if (peers.memberOfPeer(peer.peerId)) {
        if (repairStreams(host, names.gossip, peer, subscribers.has(peer.peerId), nowMs) === 'beyond repair') {
          for (const link of [...peer.links]) hangUp(link, 'subscriptions');
        }
        const needless = needlessLink(peer, ownPeerId, names.gossip, nowMs);
        if (needless) {
          needless.closedBy = 'duplicate';
          void needless.close();
        }
      } else if (nowMs - peer.strangerSinceMs > gossipTimes.strangerMs) {
        gatekeeper.refuseFor(peer.peerId, gossipTimes.strangerRefusalMs);
        for (const link of [...peer.links]) hangUp(link, 'stranger');
      }
    }
  }

  /** Every process that was ever connected has an entry in libp2p's store of peers, which forgets none by itself. */
  async #forget(): Promise<void> {
    const { host, peers } = this.options;
    for (const { id } of await host.peerStore.all()) {
      const peerId = id.toString();
      if (peers.byPeerId.has(peerId) || peers.memberOfPeer(peerId) || id.equals(host.peerId)) continue;
      await host.peerStore.delete(id);
    }
  }
}
