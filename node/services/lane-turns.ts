/**
 * Whose turn it is: virtual queues in turn within the limits of each, within a queue destinations in turn, within a destination senders in turn; what has
 * priority goes first three times of four.
 */
import { FairLine } from './fair-line.js';
import { Fifo } from './fifo.js';

/** A virtual queue: the remote destinations of messages that were sorted into it have workers of their own. */
export interface VirtualQueue {
  /** `default` is the one of all messages without another. */
  name: string;
  /** Deliveries at one time, on each node. */
  maxConcurrentDeliveries: number;
  /** To one domain; default: the node's. */
  maxConcurrentPerDomain?: number;
}

/** One destination's deliveries of one queue and one class. */
export interface Lane<T> {
  queue: QueueTurns<T>;
  domain: DomainLoad<T> | undefined;
  waiting: FairLine<T>;
  isExpress: boolean;
  isListed: boolean;
}

/** What runs for one domain, whatever queues it comes from. */
export interface DomainLoad<T> {
  domain: string;
  running: number;
  lanes: Map<string, Lane<T>>;
}

export class QueueTurns<T> {
  running = 0;
  #turn = 0;
  readonly #express = new Fifo<Lane<T>>();
  readonly #normal = new Fifo<Lane<T>>();

  constructor(readonly name: string) {}

  /** Lists a lane that has something waiting, unless it is listed. */
  list(lane: Lane<T>): void {
    if (lane.isListed || lane.waiting.size === 0) return;
    lane.isListed = true;
    (lane.isExpress ? this.#express : this.#normal).push(lane);
  }

  /** The lane whose turn it is, among those that may start; the others are taken off the list until something of theirs has ended. */
  next(mayStart: (lane: Lane<T>) => boolean): Lane<T> | undefined {
    const isNormalsTurn = this.#turn % 4 === 3;
    const [first, second] = isNormalsTurn ? [this.#normal, this.#express] : [this.#express, this.#normal];
    return clean(first, mayStart) ?? clean(second, mayStart);
  }

  /** To be called with the answer of `next`, at once: takes one entry, and the lane goes to the end of its list. */
  take(lane: Lane<T>): T {
    const list = lane.isExpress ? this.#express : this.#normal;
    list.shift();
    lane.isListed = false;
    this.#turn++;
    const item = lane.waiting.shift()!;
    this.list(lane);
    return item;
  }

  clear(): void {
    this.#express.clear();
    this.#normal.clear();
  }
}

function clean<T>(list: Fifo<Lane<T>>, mayStart: (lane: Lane<T>) => boolean): Lane<T> | undefined {
  for (;;) {
    const lane = list.peek();
    if (!lane) return undefined;
    if (lane.waiting.size > 0 && mayStart(lane)) return lane;
    list.shift();
    lane.isListed = false;
  }
}

/** A lane for nothing yet. */
export function newLane<T>(queue: QueueTurns<T>, domain: DomainLoad<T> | undefined, isExpress: boolean): Lane<T> {
  return { queue, domain, waiting: new FairLine(), isExpress, isListed: false };
}
