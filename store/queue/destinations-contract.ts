/**
 * What the cluster knows of a remote destination: whether it is down and when it is to be probed, whether an operator has paused it. Shared by all nodes
 * through the store, so that 100,000 messages to a dead host cost a few probes and not 100,000 attempts.
 */
import type { KvReads } from '../kv/contract.js';

/** Named by the domain of its recipients; `queue:NAME` and `*` (everything) only for pauses. */
export interface DestinationHealth {
  domain: string;
  /** Attempts in a row that failed for the destination as a whole (no host answered), not for a message. */
  failures: number;
  /** Of the last one. */
  lastReply: { code: number; enhanced: string; text: string; host?: string };
  downSinceMs: number;
  /** No attempt before; then one node makes one. Wall clock, seconds. */
  nextProbeAtSeconds: number;
}

export interface QueuePause {
  /** A domain, `queue:NAME`, or `*`. */
  what: string;
  by: string;
  note: string;
  sinceMs: number;
}

/** What stands in the way of a destination. `line`: the name of the line that it waits in (a domain, `queue:NAME`, `*`). */
export interface Obstacle {
  line: string;
  kind: 'down' | 'paused';
  /** For whoever must be told something: what was said last, or that an operator has paused it. */
  reply: DestinationHealth['lastReply'];
}

/** Told by deliveries after an attempt. */
export interface DestinationHealthReport {
  domain: string;
  /** `unreachable`: no host of it could be brought to take a message (network, TLS, 421, DNS): says nothing about the message. `reached`: some host did its work. */
  result: 'reached' | 'unreachable';
  reply?: DestinationHealth['lastReply'];
}

/** Held in memory on every node, brought up to date by reports of its own, by the bus and on a timer. */
export interface Destinations {
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Synchronous: whether something of this domain may be attempted now; `probe`: yes, but only by whoever wins the probe. */
  mayAttempt(domain: string, queueName: string): 'yes' | 'no' | 'probe';
  health(domain: string): DestinationHealth | undefined;
  /** Synchronous: why not; undefined where it may be attempted. Local destinations are stopped by pauses only. */
  obstacle(domain: string, queueName: string): Obstacle | undefined;
  /** Domains whose next probe is due, the earliest first. */
  probesDue(): string[];
  /** When the next probe of any domain is due (wall clock, ms). */
  readonly nextProbeAtMs: number | undefined;
  /** Whether this node makes the probe: one in the cluster gets it. Its outcome is told by `report`; else the next one is due when the back-off is over. Throws KvError. */
  winProbe(domain: string): Promise<boolean>;
  /**
   * To be called with the outcome of every remote attempt; writes to the store only when something changes: the third failure in a row on this node makes a domain
   * down, the first success makes it up again. Never throws: trouble is logged.
   */
  report(report: DestinationHealthReport): Promise<void>;
  /**
   * The probe that this node has won was not made: a limit of ours stood in its way. The next one is due in so many seconds, if that is sooner than the back-off's
   * end. Nothing happens when this node makes none. Never throws: trouble is logged.
   */
  putOffProbe(domain: string, seconds: number): Promise<void>;
  down(): DestinationHealth[];
  pauses(): QueuePause[];
  pause(what: string, by: string, note: string): Promise<void>;
  /** False when it was not paused. */
  resume(what: string): Promise<boolean>;
  /** Forgets that a domain is down: everything is tried again at once. */
  forget(domain: string): Promise<boolean>;
  readGeneration(reads: KvReads): Promise<string>;
  reload(): Promise<void>;
  /** Told when something may be attempted that could not before, or the other way round; with the line (domain, `queue:NAME`, `*`) that it concerns, if it is one. */
  onChanged(listener: (line: string | undefined) => void): () => void;
}
