/** How much a node has in hand of each remote domain, sender and virtual queue, so that none of them takes all that it can hold. */
import type { EntryTraits } from '../../store/queue/index.js';
import type { VirtualQueue } from './lane-turns.js';

export interface HoldingLimits {
  /** Remote destinations of one domain that this node claims at one time. */
  maxClaimsPerDomain: number;
  /** Remote destinations of one sender that this node claims at one time. */
  maxClaimsPerSender: number;
  /** Virtual queues with workers of their own. */
  queues: readonly VirtualQueue[];
}

/** Waiting ones per worker of a virtual queue. */
const claimsPerWorker = 10;

export const senderLine = (senderHash: number): string => `from:${senderHash.toString(16).padStart(8, '0')}`;
export const queueLine = (queueName: string): string => `queue:${queueName}`;

export class Holdings {
  readonly #counts = new Map<string, number>();
  #caps = new Map<string, number>();
  #capsOf: readonly VirtualQueue[] | undefined;

  constructor(
    private readonly limits: HoldingLimits,
    private readonly base?: Holdings,
  ) {}

  /** Local ones are not counted: they wait for nobody else. */
  add(domain: string, traits: EntryTraits | undefined, by: 1 | -1 = 1): void {
    if (traits?.isLocal) return;
    this.#count(domain, by);
    if (!traits) return;
    this.#count(senderLine(traits.senderHash), by);
    if (traits.queueName !== '') this.#count(queueLine(traits.queueName), by);
  }

  /** The line for whatever comes on top of what is in hand; undefined while there is room. Of an entry without traits nobody knows whether it is local. */
  lineFor(domain: string, traits: EntryTraits | undefined): string | undefined {
    if (!traits || traits.isLocal) return undefined;
    if (this.roomOf(domain) <= 0) return domain;
    const queue = queueLine(traits.queueName);
    if (this.roomOf(queue) <= 0) return queue;
    const sender = senderLine(traits.senderHash);
    return this.roomOf(sender) <= 0 ? sender : undefined;
  }

  /** How many more of a line may be taken; infinite for those without a bound of their own. */
  roomOf(line: string): number {
    return (this.base ? this.base.roomOf(line) : this.capOf(line)) - (this.#counts.get(line) ?? 0);
  }

  capOf(line: string): number {
    if (line === '*') return Number.POSITIVE_INFINITY;
    if (line.startsWith('queue:')) return this.#queueCaps().get(line) ?? Number.POSITIVE_INFINITY;
    return line.startsWith('from:') ? this.limits.maxClaimsPerSender : this.limits.maxClaimsPerDomain;
  }

  /** To plan with, on top of these. */
  plan(): Holdings {
    return new Holdings(this.limits, this);
  }

  #count(line: string, by: 1 | -1): void {
    const count = (this.#counts.get(line) ?? 0) + by;
    if (count > 0) this.#counts.set(line, count);
    else this.#counts.delete(line);
  }

  #queueCaps(): ReadonlyMap<string, number> {
    const { queues } = this.limits;
    if (this.#capsOf !== queues) {
      this.#capsOf = queues;
      // The default queue has the node's own bound.
      const named = queues.filter(({ name }) => name !== 'default');
      this.#caps = new Map(named.map((queue) => [queueLine(queue.name), queue.maxConcurrentDeliveries * claimsPerWorker]));
    }
    return this.#caps;
  }
}
