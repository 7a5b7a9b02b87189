/** Where the nodes of a chaos run live, and how they are cut off from one another and from the store: the face that `namespaces.ts` and `loopback.ts` have. */

/** Where one node runs. */
export interface Place {
  /** Address at which it listens and is reached. */
  host: string;
  /** Added to the quickstart's ports. */
  portOffset: number;
  /** What to run so that `command` runs there, as the same process. */
  wrap(command: readonly string[]): string[];
}

/**
 * What one node is cut off from. `store`: the store's server. `nodes`: all that passes between it and these nodes. `gossip`: only what passes between the
 * gossip ports. The packets vanish without a word, as on a broken line.
 */
export interface Cut {
  node: number;
  from: 'store' | { nodes: readonly number[] } | { gossip: readonly number[] };
  /** `in`: the node hears nothing but is heard; `out`: the other way round. Default `both`. */
  direction?: 'both' | 'in' | 'out';
}

/** Undoes a cut; harmless to call again. */
export type Heal = () => Promise<void>;

export interface Network {
  readonly kind: 'namespaces' | 'processes';
  /** Nodes can be cut off from one another, not only from the store. */
  readonly canCutPeers: boolean;
  /** Of this process as the nodes see it: what is outside of the cluster listens here. */
  readonly outsideHost: string;
  /** What the store's server has to listen on, and who may log in there. */
  readonly store: { listenAddresses: string; host: string; trustedRange: string };
  /** Makes the place of node `index`; the same one when asked again. */
  place(index: number): Promise<Place>;
  /** Host and port at which node `index` finds the store that listens on `port`. */
  storeFor(index: number, port: number): Promise<{ host: string; port: number }>;
  cut(cut: Cut): Promise<Heal>;
  /** Whether a connection can be made from the place of node `index`. */
  reaches(index: number, host: string, port: number): Promise<boolean>;
  /** Takes down everything that it has made. */
  remove(): Promise<void>;
}
