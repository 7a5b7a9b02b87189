/**
 * Runs deliveries side by side within limits: so many local ones, so many remote ones, so many per domain and virtual queue, so many bytes in memory; in turns that
 * are fair to destinations and senders. A delivery that the store keeps from being saved stays here and is tried again; its claim is ours for as long as the node lives.
 */
import { setMaxListeners } from 'node:events';
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import { type ClaimedDestination, ClaimLost } from '../../store/queue/index.js';
import { attemptsTotal } from '../mailflow/metrics.js';
import { type Backoff, createBackoff } from '../mailflow/persist.js';
import { isStoreTrouble } from '../mailflow/settle.js';
import type { DeliveryJob } from '../mailflow/types.js';
import { type HoldingLimits, Holdings } from './holdings.js';
import { type DomainLoad, type Lane, newLane, QueueTurns } from './lane-turns.js';

export interface LaneLimits extends HoldingLimits {
  maxLocalDeliveries: number;
  maxRemoteDeliveries: number;
  maxDeliveriesPerDomain: number;
  /** Of messages that are being delivered, local and remote counted apart: neither waits for the other. A single larger one runs alone. */
  maxInFlightBytes: number;
  /**
   * Remote deliveries that have got their answer and are being saved, beside `maxRemoteDeliveries` that are not so far; not more than as many again. What a node
   * that crashes may deliver twice is bounded by the two together.
   */
  maxUnsavedDeliveries: number;
  /** Of content that waiting local deliveries keep in memory since it was accepted; beyond it, it is read from the store again. */
  maxFreshBytes: number;
}

export interface LaneDependencies {
  clock: Clock;
  random: Random;
  logger: Logger;
  limits: LaneLimits;
  /**
   * Delivers to the end and saves; throws ClaimLost, store trouble (tried again here), or anything else (`onFault`). With `job.onAnswered` a remote delivery
   * leaves its place to the next one while it is being saved.
   */
  deliver(job: DeliveryJob, signal: AbortSignal): Promise<void>;
  /** A delivery failed in a way that nobody foresaw: gives the claim up with a later attempt. */
  onFault(job: DeliveryJob, error: unknown): Promise<void>;
  /** While false, nothing more is started; `pump` tells that it may be true again. */
  mayStart(): boolean;
  /** How many deliveries to this domain may run at present, where that is less than the limit. */
  maxConcurrentTo?(domain: string): number;
  /** A destination has left the lanes. */
  onDone(claimed: ClaimedDestination): void;
}

interface Entry {
  ref: string;
  job: DeliveryJob;
  costBytes: number;
  /** Of `job.fresh`. */
  freshBytes: number;
  lane: Lane<Entry>;
  backoff?: Backoff;
}

/** What a remote delivery holds in memory: it streams. */
const streamingBytes = 256 * 1024;

export function refOf({ queueId, domain, part }: { queueId: string; domain: string; part: number }): string {
  return `${queueId}/${domain}/${part}`;
}

const kindOf = ({ job }: Entry): 'local' | 'remote' => (job.claimed.destination.isLocal ? 'local' : 'remote');

export class DeliveryLanes {
  readonly #d: LaneDependencies;
  /** Everything that is here: waiting, running, or waiting out a backoff. */
  readonly #known = new Map<string, Entry>();
  readonly #backingOff = new Set<Entry>();
  readonly #running = new Set<Entry>();
  readonly #local = new QueueTurns<Entry>('local');
  readonly #localLanes = [newLane(this.#local, undefined, false), newLane(this.#local, undefined, true)] as const;
  /** Virtual queues that have been used, in turn. */
  readonly #queues: QueueTurns<Entry>[] = [];
  #queueTurn = 0;
  readonly #domains = new Map<string, DomainLoad<Entry>>();
  readonly holdings: Holdings;
  #remoteKnown = 0;
  #remoteRunning = 0;
  /** Remote ones that have left their place to another and are being saved. */
  #unsaved = 0;
  readonly #inFlightBytes = { local: 0, remote: 0 };
  #freshBytes = 0;
  #isClosed = false;
  readonly #abort = new AbortController();
  #idleListeners: (() => void)[] = [];

  constructor(dependencies: LaneDependencies) {
    this.#d = dependencies;
    this.holdings = new Holdings(dependencies.limits);
    // Each running delivery listens; a warning at the eleventh would be a false alarm.
    setMaxListeners(0, this.#abort.signal);
  }

  get size(): number {
    return this.#known.size;
  }

  /** Of these, remote ones. */
  get remoteSize(): number {
    return this.#remoteKnown;
  }

  get running(): number {
    return this.#running.size;
  }

  has(ref: string): boolean {
    return this.#known.has(ref);
  }

  /** Takes a delivery, unless it is here already. */
  add(job: DeliveryJob): void {
    const { destination, message } = job.claimed;
    const ref = refOf(destination);
    if (this.#known.has(ref)) return;
    const lane = this.#laneOf(job.claimed);
    const costBytes = destination.isLocal ? message.sizeBytes : streamingBytes;
    const freshBytes = job.fresh?.bytes.length ?? 0;
    const entry: Entry = { ref, job, costBytes, freshBytes, lane };
    this.#freshBytes += freshBytes;
    // Remote deliveries stream from the store in any case, and may wait for hours.
    if (freshBytes > 0 && (!destination.isLocal || this.#freshBytes > this.#d.limits.maxFreshBytes)) this.#dropFresh(entry);
    this.#known.set(ref, entry);
    if (!destination.isLocal) this.#remoteKnown++;
    this.holdings.add(destination.domain, destination.traits);
    this.#enlist(entry);
  }

  /** Starts what the limits allow. */
  pump(): void {
    if (this.#isClosed || !this.#d.mayStart()) return;
    const { limits } = this.#d;
    while (this.#local.running < limits.maxLocalDeliveries && this.#startNext(this.#local));
    // In turn, until none of them may start another.
    for (let idle = 0; idle < this.#queues.length && this.#hasRemotePlace(); ) {
      const queue = this.#queues[this.#queueTurn++ % this.#queues.length]!;
      idle = queue.running < this.#maxRunning(queue) && this.#startNext(queue) ? 0 : idle + 1;
    }
  }

  /** Takes out those that have not been started and are meant. */
  takeWaitingOf(isMeant: (claimed: ClaimedDestination) => boolean): ClaimedDestination[] {
    const taken = [...this.#domains.values()].flatMap(({ lanes }) =>
      [...lanes.values()].flatMap(({ waiting }) => waiting.take(({ job }) => isMeant(job.claimed))),
    );
    for (const lane of this.#localLanes) taken.push(...lane.waiting.take(({ job }) => isMeant(job.claimed)));
    for (const entry of taken) {
      this.#forget(entry);
      this.#settleDomain(entry.lane.domain);
    }
    return taken.map(({ job }) => job.claimed);
  }

  /** Takes out what has not been started. */
  takeWaiting(): ClaimedDestination[] {
    this.#isClosed = true;
    const entries = [...this.#known.values()].filter((entry) => !this.#running.has(entry));
    for (const entry of entries) this.#forget(entry);
    this.#backingOff.clear();
    this.#local.clear();
    for (const queue of this.#queues) queue.clear();
    this.#domains.clear();
    return entries.map(({ job }) => job.claimed);
  }

  /** Resolves when nothing is running. */
  idle(): Promise<void> {
    if (this.#running.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idleListeners.push(resolve));
  }

  /** Ends remote conversations and waits; nothing more is started. */
  abort(): void {
    this.#isClosed = true;
    this.#abort.abort(new Error('the node is stopping'));
  }

  /** Whether something of this queue could be started. */
  #startNext(queue: QueueTurns<Entry>): boolean {
    const lane = queue.next(({ domain, queue: { name } }) => !domain || domain.running < this.#maxRunningTo(domain.domain, name));
    if (!lane || !this.#fits(lane.waiting.peek()!)) return false;
    this.#start(queue.take(lane));
    return true;
  }

  #hasRemotePlace(): boolean {
    const { maxRemoteDeliveries, maxUnsavedDeliveries } = this.#d.limits;
    if (this.#remoteRunning >= maxRemoteDeliveries) return false;
    // A store that takes nothing stops all that would end with something to be saved.
    return this.#remoteRunning + this.#unsaved < maxRemoteDeliveries + Math.min(maxRemoteDeliveries, maxUnsavedDeliveries);
  }

  #maxRunning({ name }: QueueTurns<Entry>): number {
    const { queues, maxRemoteDeliveries } = this.#d.limits;
    return queues.find((queue) => queue.name === name)?.maxConcurrentDeliveries ?? maxRemoteDeliveries;
  }

  /**
   * The last quarter of the workers is for destinations that have less than their share of them, so that a few slow ones don't keep a quick one from
   * getting any.
   */
  #maxRunningTo(domain: string, queueName: string): number {
    const { maxConcurrentTo, limits } = this.#d;
    const { maxRemoteDeliveries, maxDeliveriesPerDomain, queues } = limits;
    const own = queues.find(({ name }) => name === queueName)?.maxConcurrentPerDomain ?? maxDeliveriesPerDomain;
    const allowed = Math.max(1, Math.min(own, maxConcurrentTo?.(domain) ?? own));
    if (this.#remoteRunning < maxRemoteDeliveries * 0.75) return allowed;
    // One more than there are: whoever comes next finds a place, too.
    return Math.min(allowed, Math.max(1, Math.floor(maxRemoteDeliveries / (this.#domains.size + 1))));
  }

  #fits(entry: Entry): boolean {
    const inFlightBytes = this.#inFlightBytes[kindOf(entry)];
    return inFlightBytes === 0 || inFlightBytes + entry.costBytes <= this.#d.limits.maxInFlightBytes;
  }

  #dropFresh(entry: Entry): void {
    this.#freshBytes -= entry.freshBytes;
    entry.freshBytes = 0;
    entry.job = { claimed: entry.job.claimed };
  }

  #forget(entry: Entry): void {
    if (!this.#known.delete(entry.ref)) return;
    if (kindOf(entry) === 'remote') this.#remoteKnown--;
    this.#freshBytes -= entry.freshBytes;
    const { domain, traits } = entry.job.claimed.destination;
    this.holdings.add(domain, traits, -1);
  }

  #laneOf({ destination, message }: ClaimedDestination): Lane<Entry> {
    const isExpress = message.priority > 0;
    if (destination.isLocal) return this.#localLanes[isExpress ? 1 : 0];
    const name = message.queueName ?? 'default';
    let domain = this.#domains.get(destination.domain);
    if (!domain) this.#domains.set(destination.domain, (domain = { domain: destination.domain, running: 0, lanes: new Map() }));
    const laneName = `${isExpress ? '+' : '-'}${name}`;
    let lane = domain.lanes.get(laneName);
    if (!lane) domain.lanes.set(laneName, (lane = newLane(this.#turnsOf(name), domain, isExpress)));
    return lane;
  }

  #turnsOf(name: string): QueueTurns<Entry> {
    let queue = this.#queues.find((one) => one.name === name);
    if (!queue) this.#queues.push((queue = new QueueTurns(name)));
    return queue;
  }

  #enlist(entry: Entry): void {
    const { lane, job } = entry;
    lane.waiting.push(job.claimed.destination.traits?.senderHash ?? 0, entry);
    lane.queue.list(lane);
  }

  #start(entry: Entry): void {
    const { lane } = entry;
    let isUnsaved = false;
    const onAnswered = () => {
      if (isUnsaved || !lane.domain || !this.#running.has(entry)) return;
      isUnsaved = true;
      this.#unsaved++;
      this.#occupy(entry, lane, -1);
      this.#settleDomain(lane.domain);
      this.pump();
    };
    this.#occupy(entry, lane, 1);
    this.#running.add(entry);
    void this.#run({ ...entry.job, onAnswered }).then((isDone) => {
      if (isUnsaved) this.#unsaved--;
      else this.#occupy(entry, lane, -1);
      this.#running.delete(entry);
      if (isDone) this.#leave(entry);
      else this.#backOff(entry);
      this.#settleDomain(lane.domain);
      this.pump();
      if (this.#running.size === 0) for (const listener of this.#idleListeners.splice(0)) listener();
    });
  }

  /** Takes a place among those that run side by side, or leaves it. */
  #occupy(entry: Entry, { queue, domain }: Lane<Entry>, by: 1 | -1): void {
    queue.running += by;
    if (domain) {
      domain.running += by;
      this.#remoteRunning += by;
    }
    this.#inFlightBytes[kindOf(entry)] += by * entry.costBytes;
  }

  /** Something of it has ended: what waits may start, and what is empty goes. */
  #settleDomain(domain: DomainLoad<Entry> | undefined): void {
    if (!domain) return;
    for (const [name, lane] of domain.lanes) {
      lane.queue.list(lane);
      if (!lane.isListed && lane.waiting.size === 0) domain.lanes.delete(name);
    }
    if (domain.running === 0 && domain.lanes.size === 0 && this.#domains.get(domain.domain) === domain)
      this.#domains.delete(domain.domain);
  }

  #leave(entry: Entry): void {
    this.#forget(entry);
    this.#d.onDone(entry.job.claimed);
  }

  /** Waits out a backoff, then stands in line again. */
  #backOff(entry: Entry): void {
    if (entry.freshBytes > 0) this.#dropFresh(entry);
    if (this.#isClosed) return;
    entry.backoff ??= createBackoff(this.#d.random);
    this.#backingOff.add(entry);
    this.#d.clock.setTimer(
      entry.backoff.next(),
      () => {
        if (!this.#backingOff.delete(entry)) return;
        entry.lane = this.#laneOf(entry.job.claimed);
        this.#enlist(entry);
        this.pump();
      },
      { background: true },
    );
  }

  /** Whether the destination is off our hands. */
  async #run(job: DeliveryJob): Promise<boolean> {
    const { message, destination } = job.claimed;
    const facts = { queueId: message.id, domain: destination.domain, part: destination.part };
    try {
      await this.#d.deliver(job, this.#abort.signal);
      return true;
    } catch (error) {
      if (error instanceof ClaimLost) return this.#lost(facts, destination.isLocal);
      if (this.#abort.signal.aborted) return false;
      if (isStoreTrouble(error)) {
        this.#d.logger.warn({ ...facts, err: error }, 'delivery waits for the store');
        return false;
      }
      return this.#fault(job, facts, error);
    }
  }

  #lost(facts: object, isLocal: boolean): true {
    attemptsTotal.inc({ kind: isLocal ? 'local' : 'remote', result: 'lost' });
    this.#d.logger.info(facts, 'claim lost, delivery dropped');
    return true;
  }

  async #fault(job: DeliveryJob, facts: object, error: unknown): Promise<boolean> {
    this.#d.logger.error({ ...facts, err: error }, 'delivery failed unexpectedly');
    try {
      await this.#d.onFault(job, error);
      return true;
    } catch (second) {
      if (second instanceof ClaimLost) return true;
      this.#d.logger.error({ ...facts, err: second }, 'delivery could not be put off');
      return false;
    }
  }
}
