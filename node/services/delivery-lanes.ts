/**
 * Runs deliveries side by side within limits: so many local ones, so many remote ones, so many per domain, so many bytes in memory. A delivery that
 * the store keeps from being saved stays here and is tried again; its claim is ours for as long as the node lives.
 */
import { setMaxListeners } from 'node:events';
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import { type ClaimedDestination, ClaimLost } from '../../store/queue/index.js';
import { attemptsTotal } from '../mailflow/metrics.js';
import { type Backoff, createBackoff } from '../mailflow/persist.js';
import { isStoreTrouble } from '../mailflow/settle.js';
import type { DeliveryJob } from '../mailflow/types.js';
import { Fifo } from './fifo.js';

export interface LaneLimits {
  maxLocalDeliveries: number;
  maxRemoteDeliveries: number;
  maxDeliveriesPerDomain: number;
  /** Of messages that are being delivered, local and remote counted apart: neither waits for the other. A single larger one runs alone. */
  maxInFlightBytes: number;
  /** Of content that waiting local deliveries keep in memory since it was accepted; beyond it, it is read from the store again. */
  maxFreshBytes: number;
}

export interface LaneDependencies {
  clock: Clock;
  random: Random;
  logger: Logger;
  limits: LaneLimits;
  /** Delivers to the end and saves; throws ClaimLost, store trouble (tried again here), or anything else (`onFault`). */
  deliver(job: DeliveryJob, signal: AbortSignal): Promise<void>;
  /** A delivery failed in a way that nobody foresaw: gives the claim up with a later attempt. */
  onFault(job: DeliveryJob, error: unknown): Promise<void>;
  /** While false, nothing more is started; `pump` tells that it may be true again. */
  mayStart(): boolean;
  /** A destination has left the lanes. */
  onDone(): void;
}

interface Entry {
  ref: string;
  job: DeliveryJob;
  costBytes: number;
  /** Of `job.fresh`. */
  freshBytes: number;
  lane: Lane;
  backoff?: Backoff;
}

/** Local deliveries share one lane; remote ones have one per domain. */
interface Lane {
  domain: string | undefined;
  waiting: Fifo<Entry>;
  running: number;
  isListed: boolean;
}

/** What a remote delivery holds in memory: it streams. */
const streamingBytes = 256 * 1024;

export function refOf({ queueId, domain, part }: { queueId: string; domain: string; part: number }): string {
  return `${queueId}/${domain}/${part}`;
}

const kindOf = ({ lane }: Entry): 'local' | 'remote' => (lane.domain === undefined ? 'local' : 'remote');

export class DeliveryLanes {
  readonly #d: LaneDependencies;
  /** Everything that is here: waiting, running, or waiting out a backoff. */
  readonly #known = new Map<string, Entry>();
  readonly #parked = new Set<Entry>();
  readonly #running = new Set<Entry>();
  readonly #local: Lane = { domain: undefined, waiting: new Fifo(), running: 0, isListed: true };
  readonly #remote = new Map<string, Lane>();
  /** Domains that have something waiting and room to run it, in turn. */
  readonly #ready = new Fifo<Lane>();
  #remoteKnown = 0;
  #remoteRunning = 0;
  readonly #inFlightBytes = { local: 0, remote: 0 };
  #freshBytes = 0;
  #isClosed = false;
  readonly #abort = new AbortController();
  #idleListeners: (() => void)[] = [];

  constructor(dependencies: LaneDependencies) {
    this.#d = dependencies;
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
    const lane = destination.isLocal ? this.#local : this.#laneOf(destination.domain);
    const costBytes = destination.isLocal ? message.sizeBytes : streamingBytes;
    const freshBytes = job.fresh?.bytes.length ?? 0;
    const entry: Entry = { ref, job, costBytes, freshBytes, lane };
    this.#freshBytes += freshBytes;
    // Remote deliveries stream from the store in any case, and may wait for hours.
    if (freshBytes > 0 && (!destination.isLocal || this.#freshBytes > this.#d.limits.maxFreshBytes)) this.#dropFresh(entry);
    this.#known.set(ref, entry);
    if (!destination.isLocal) this.#remoteKnown++;
    this.#enlist(entry);
  }

  /** Starts what the limits allow. */
  pump(): void {
    if (this.#isClosed || !this.#d.mayStart()) return;
    const { limits } = this.#d;
    while (this.#local.running < limits.maxLocalDeliveries && this.#fits(this.#local.waiting.peek())) {
      this.#start(this.#local.waiting.shift()!);
    }
    while (this.#remoteRunning < limits.maxRemoteDeliveries) {
      const lane = this.#ready.peek();
      if (!lane || !this.#fits(lane.waiting.peek())) break;
      this.#ready.shift();
      lane.isListed = false;
      this.#start(lane.waiting.shift()!);
      this.#list(lane);
    }
  }

  /** Takes out what has not been started. */
  takeWaiting(): ClaimedDestination[] {
    this.#isClosed = true;
    const entries = [...this.#known.values()].filter((entry) => !this.#running.has(entry));
    for (const entry of entries) this.#forget(entry);
    this.#parked.clear();
    this.#local.waiting.clear();
    this.#ready.clear();
    this.#remote.clear();
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

  #fits(entry: Entry | undefined): boolean {
    if (!entry) return false;
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
  }

  #laneOf(domain: string): Lane {
    let lane = this.#remote.get(domain);
    if (!lane) this.#remote.set(domain, (lane = { domain, waiting: new Fifo(), running: 0, isListed: false }));
    return lane;
  }

  #enlist(entry: Entry): void {
    entry.lane.waiting.push(entry);
    this.#list(entry.lane);
  }

  #list(lane: Lane): void {
    if (lane.isListed || lane.waiting.size === 0 || lane.running >= this.#d.limits.maxDeliveriesPerDomain) return;
    lane.isListed = true;
    this.#ready.push(lane);
  }

  #start(entry: Entry): void {
    const isRemote = entry.lane.domain !== undefined;
    entry.lane.running++;
    if (isRemote) this.#remoteRunning++;
    this.#inFlightBytes[kindOf(entry)] += entry.costBytes;
    this.#running.add(entry);
    void this.#run(entry).then((isDone) => {
      entry.lane.running--;
      if (isRemote) this.#remoteRunning--;
      this.#inFlightBytes[kindOf(entry)] -= entry.costBytes;
      this.#running.delete(entry);
      if (isDone) this.#leave(entry);
      else this.#park(entry);
      if (isRemote) this.#settleLane(entry.lane);
      this.pump();
      if (this.#running.size === 0) for (const listener of this.#idleListeners.splice(0)) listener();
    });
  }

  #settleLane(lane: Lane): void {
    this.#list(lane);
    if (lane.running === 0 && lane.waiting.size === 0 && !lane.isListed) this.#remote.delete(lane.domain!);
  }

  #leave(entry: Entry): void {
    this.#forget(entry);
    this.#d.onDone();
  }

  /** Waits out a backoff, then stands in line again. */
  #park(entry: Entry): void {
    if (entry.freshBytes > 0) this.#dropFresh(entry);
    if (this.#isClosed) return;
    entry.backoff ??= createBackoff(this.#d.random);
    this.#parked.add(entry);
    this.#d.clock.setTimer(
      entry.backoff.next(),
      () => {
        if (!this.#parked.delete(entry)) return;
        if (entry.lane.domain !== undefined) entry.lane = this.#laneOf(entry.lane.domain);
        this.#enlist(entry);
        this.pump();
      },
      { background: true },
    );
  }

  /** Whether the destination is off our hands. */
  async #run({ job }: Entry): Promise<boolean> {
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
