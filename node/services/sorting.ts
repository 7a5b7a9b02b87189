/**
 * What becomes of entries that a look has found: claimed, or moved into a line because something is in the way (a domain that is down, a pause) or because this
 * node has its share of them in hand.
 */
import {
  type ClaimedDestination,
  type Destinations,
  type DueEntry,
  type EntryTraits,
  type LineEntry,
  type NodeIdentity,
  NotAttempted,
  type Obstacle,
  type Queue,
} from '../../store/queue/index.js';
import { type DeliveryLanes, refOf } from './delivery-lanes.js';

export type AnyEntry = DueEntry | LineEntry;

export interface SortingDependencies {
  queue: Queue;
  node: NodeIdentity;
  lanes: DeliveryLanes;
  destinations?: Pick<Destinations, 'obstacle'>;
  take(claimed: readonly ClaimedDestination[]): void;
  /** Something has been put into this line. */
  onParked(line: string): void;
}

export interface Sorted {
  /** Destinations that are in hand now. */
  won: number;
  /** Moved into lines. */
  parked: number;
}

/** Destinations that the queue claims in one transaction. */
const claimsPerTransaction = 50;

/** Why it was not tried, where what stood in the way has gone meanwhile. */
const waited = { code: 0, enhanced: '4.4.7', text: 'It waited for its turn until its time was over' } as const;

/** What keeps a destination from being attempted now: a pause, or (not of local ones, nor when it is `isForced`) that its domain is down. */
export function obstacleOf(
  destinations: Pick<Destinations, 'obstacle'> | undefined,
  domain: string,
  traits: EntryTraits | undefined,
  isForced = false,
): Obstacle | undefined {
  const obstacle = destinations?.obstacle(domain, traits?.queueName ?? '');
  return obstacle?.kind === 'down' && (isForced || traits?.isLocal) ? undefined : obstacle;
}

export class Sorting {
  readonly #d: SortingDependencies;

  constructor(dependencies: SortingDependencies) {
    this.#d = dependencies;
  }

  /** Claims what may be worked, `maxClaims` at most, and puts the rest in line. `from`: the line that they come out of. */
  async work(entries: readonly AnyEntry[], maxClaims: number, from?: string): Promise<Sorted> {
    const { lanes, destinations, queue, onParked } = this.#d;
    const plan = lanes.holdings.plan();
    const wanted: AnyEntry[] = [];
    const lines = new Map<AnyEntry, string>();
    for (const entry of entries) {
      if (lanes.has(refOf(entry))) continue;
      const isForced = 'isForced' in entry && entry.isForced;
      const full = plan.lineFor(entry.domain, entry.traits);
      // What comes out of a line has waited for its room already.
      const line = obstacleOf(destinations, entry.domain, entry.traits, isForced)?.line ?? (full === from ? undefined : full);
      if (line !== undefined && !(isForced && line === full)) {
        if (line !== from) lines.set(entry, line);
        continue;
      }
      if (wanted.length >= maxClaims) continue;
      wanted.push(entry);
      plan.add(entry.domain, entry.traits);
    }
    const won = await this.claim(wanted);
    if (lines.size === 0) return { won, parked: 0 };
    const { parked, overdue } = await queue.park([...lines.keys()], (entry) => lines.get(entry)!);
    for (const line of new Set(lines.values())) onParked(line);
    return { won: won + (await this.#settleOverdue(overdue.slice(0, Math.max(0, maxClaims - won)))), parked };
  }

  /** Answers how many were won. */
  async claim(entries: readonly AnyEntry[]): Promise<number> {
    const { queue, node, take } = this.#d;
    let won = 0;
    // A transaction's worth at a time: what was won is in hand even when the next one fails.
    for (let at = 0; at < entries.length; at += claimsPerTransaction) {
      const claimed = await queue.claim(node, entries.slice(at, at + claimsPerTransaction));
      take(claimed);
      won += claimed.length;
    }
    return won;
  }

  /** Their deadline has come while something is in the way: settled as attempts that were not made. */
  async #settleOverdue(entries: readonly AnyEntry[]): Promise<number> {
    const { queue, node, take, destinations } = this.#d;
    let won = 0;
    for (let at = 0; at < entries.length; at += claimsPerTransaction) {
      const claimed = await queue.claim(node, entries.slice(at, at + claimsPerTransaction));
      for (const one of claimed) {
        const { domain, traits } = one.destination;
        one.untried = new NotAttempted('deferred', obstacleOf(destinations, domain, traits)?.reply ?? waited);
      }
      take(claimed);
      won += claimed.length;
    }
    return won;
  }
}
