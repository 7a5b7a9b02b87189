/** What this node says: numbered, in its envelope, and no larger than is allowed. */
import { type GossipMessage, gossipLimits } from './contract.js';
import { packEnvelope } from './envelope.js';
import { type Channel, messagesDropped } from './metrics.js';
import type { RareWarnings } from './rarely.js';

/**
 * Of series of numbers: one for each topic, and for each receiver of direct messages, which come and go under ever new ids. More than are members at any
 * time: who comes back after so many others has forgotten this node as well.
 */
const maxSeries = 4_096;

export class Outgoing {
  incarnation: number;
  readonly #nodeId: string;
  /** The last number of each series; used last at the end. */
  readonly #sequences = new Map<string, number>();

  constructor(
    { nodeId, incarnation }: { nodeId: string; incarnation: number },
    private readonly warnings: RareWarnings,
  ) {
    this.#nodeId = nodeId;
    this.incarnation = incarnation;
  }

  /** The next message of a series. Undefined, and counted, for what can't be sent. */
  pack(channel: Channel, series: string, body: unknown): { message: GossipMessage; bytes: Buffer } | undefined {
    const message = { from: this.#nodeId, incarnation: this.incarnation, sequence: this.#next(series), body };
    try {
      const bytes = packEnvelope(message);
      if (bytes.length <= gossipLimits.maxMessageBytes) return { message, bytes };
      messagesDropped.inc({ topic: channel, reason: 'too-large' });
      this.warnings.warn('a message was too large for gossip and was not sent', { topic: channel, bytes: bytes.length });
    } catch (error) {
      messagesDropped.inc({ topic: channel, reason: 'unpackable' });
      this.warnings.warn('a message could not be packed and was not sent', { topic: channel, err: error });
    }
    return undefined;
  }

  #next(series: string): number {
    const sequence = (this.#sequences.get(series) ?? 0) + 1;
    this.#sequences.delete(series);
    this.#sequences.set(series, sequence);
    if (this.#sequences.size > maxSeries) this.#sequences.delete(this.#sequences.keys().next().value!);
    return sequence;
  }
}
