/**
 * Which remote domains are down and what operators have paused, the same for the whole cluster. Read in memory, changed in the store: a domain goes down with
 * the third failure in a row on one node, is probed by whichever node wins the probe in a transaction, and comes up with the first success of any.
 */
import { type Clock, counter, gauge, type Logger, type Random, type Timer } from '../../ops/telemetry/index.js';
import { keyItems } from '../keyspace.js';
import { type KeyValue, type KvReads, type KvStore, type KvTransaction, keyAfter } from '../kv/contract.js';
import { decodeHealth, decodePause, encodeHealth, encodePause, type HealthRecord } from './destination-records.js';
import type { DestinationHealth, DestinationHealthReport, Destinations, Obstacle, QueuePause } from './destinations-contract.js';
import { keptReply } from './parts.js';
import * as records from './records.js';

export const destinationLimits = {
  /** In a row, on one node, none further than an hour from the next. */
  failuresUntilDown: 3,
  firstProbeAfterSeconds: 30,
  maxProbeAfterSeconds: 3600,
  /** Of domains that are down; further ones are tried like any other. */
  maxDown: 10_000,
  /** Of domains that have failed once or twice, on one node. */
  maxSuspects: 10_000,
  suspectMs: 3_600_000,
  /** Domains that are probed at once when the host comes back that they were down for; each of them that comes up calls for as many again. */
  maxCalledForward: 200,
  /** Over which these probes are spread. */
  calledForwardSeconds: 10,
  /** Between two comparisons with the store; the bus may be faster. */
  compareIntervalMs: 10_000,
} as const;

const pageRows = 1000;

const downGauge = gauge('starling_queue_destinations_down', 'Remote domains that the cluster holds for down.');
const pausesGauge = gauge('starling_queue_pauses', 'Pauses by operators: domains, virtual queues, everything.');
const probesTotal = counter<'result'>(
  'starling_queue_probes_total',
  'Probes of domains that are down: won, lost to another node, or the domain was up.',
  ['result'],
);

export interface DestinationsDependencies {
  kv: KvStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  nodeId: string;
  /** Told after a commit of this node that others should know of at once (`bus.raised`). */
  onRaised?: () => void;
}

const unknownReply: DestinationHealth['lastReply'] = {
  code: 0,
  enhanced: '4.4.1',
  text: 'No mail host of this domain can be reached',
};

export function createDestinations(dependencies: DestinationsDependencies): Destinations {
  return new SharedDestinations(dependencies);
}

interface Suspect {
  failures: number;
  atMs: number;
}

class SharedDestinations implements Destinations {
  readonly #d: DestinationsDependencies;
  #down = new Map<string, HealthRecord>();
  #pauses = new Map<string, QueuePause>();
  /** In the order of their last failure. */
  readonly #suspects = new Map<string, Suspect>();
  /** Domains that this node probes now, with what it calls itself in the record. */
  readonly #probes = new Map<string, string>();
  /** Domains that a report is being written of: the next one says nothing new. */
  readonly #writing = new Set<string>();
  readonly #listeners = new Set<(line: string | undefined) => void>();
  #generation: string | undefined;
  #timer: Timer | undefined;
  #isStopped = false;
  #reloading: Promise<void> | undefined;
  #probeCount = 0;

  constructor(dependencies: DestinationsDependencies) {
    this.#d = dependencies;
  }

  async start(): Promise<void> {
    await this.#compare();
    this.#arm();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#timer?.cancel();
    await this.#reloading?.catch(() => {});
  }

  mayAttempt(domain: string, queueName: string): 'yes' | 'no' | 'probe' {
    const obstacle = this.obstacle(domain, queueName);
    if (!obstacle) return 'yes';
    if (obstacle.kind === 'paused') return 'no';
    return this.#down.get(domain)!.nextProbeAtSeconds * 1000 <= this.#d.clock.nowMs() ? 'probe' : 'no';
  }

  obstacle(domain: string, queueName: string): Obstacle | undefined {
    if (this.#pauses.size > 0) {
      const pause = this.#pauses.get('*') ?? this.#pauses.get(`queue:${queueName || 'default'}`) ?? this.#pauses.get(domain);
      if (pause) return { line: pause.what, kind: 'paused', reply: pausedReply };
    }
    const health = this.#down.get(domain);
    return health && { line: domain, kind: 'down', reply: health.lastReply };
  }

  health(domain: string): DestinationHealth | undefined {
    const record = this.#down.get(domain);
    return record && plain(record);
  }

  down(): DestinationHealth[] {
    return [...this.#down.values()].map(plain);
  }

  pauses(): QueuePause[] {
    return [...this.#pauses.values()];
  }

  probesDue(): string[] {
    const nowSeconds = this.#d.clock.nowMs() / 1000;
    const due = [...this.#down.values()].filter(({ nextProbeAtSeconds }) => nextProbeAtSeconds <= nowSeconds);
    return due.sort((a, b) => a.nextProbeAtSeconds - b.nextProbeAtSeconds).map(({ domain }) => domain);
  }

  get nextProbeAtMs(): number | undefined {
    let earliest: number | undefined;
    for (const { nextProbeAtSeconds: at } of this.#down.values()) if (earliest === undefined || at < earliest) earliest = at;
    return earliest === undefined ? undefined : earliest * 1000;
  }

  async winProbe(domain: string): Promise<boolean> {
    const { kv, clock, nodeId } = this.#d;
    const probe = `${nodeId}/${++this.#probeCount}`;
    const jitter = this.#jitter();
    const outcome = await kv.transact(
      async (tx) => {
        const record = await healthIn(tx, domain);
        if (!record) return { record, isWon: false };
        // An earlier run of this body may have been committed.
        if (record.probe === probe) return { record, isWon: true };
        const nowSeconds = clock.nowMs() / 1000;
        if (record.nextProbeAtSeconds > nowSeconds) return { record, isWon: false };
        // Should nothing be heard of this probe, the next one comes when it would after a failure.
        const won = { ...record, probe, nextProbeAtSeconds: nextProbe(nowSeconds, record.failures + 1, jitter) };
        tx.set(records.healthKey(domain), encodeHealth(won));
        return { record: won, isWon: true };
      },
      { label: 'probe' },
    );
    this.#learn(domain, outcome.record);
    probesTotal.inc({ result: outcome.isWon ? 'won' : outcome.record ? 'lost' : 'up' });
    if (outcome.isWon) this.#probes.set(domain, probe);
    return outcome.isWon;
  }

  async report({ domain, result, reply }: DestinationHealthReport): Promise<void> {
    try {
      if (result === 'reached') await this.#reached(domain);
      else await this.#unreachable(domain, reply ? keptReply(reply) : unknownReply);
    } catch (error) {
      this.#d.logger.warn({ domain, result, err: error }, 'what is known of a destination could not be written');
    }
  }

  async putOffProbe(domain: string, seconds: number): Promise<void> {
    const probe = this.#probes.get(domain);
    if (probe === undefined) return;
    this.#probes.delete(domain);
    const { kv, clock, logger } = this.#d;
    try {
      const record = await kv.transact(
        async (tx) => {
          const known = await healthIn(tx, domain);
          if (known?.probe !== probe) return known;
          const againAtSeconds = Math.ceil(clock.nowMs() / 1000 + seconds);
          const nextProbeAtSeconds = Math.min(known.nextProbeAtSeconds, againAtSeconds);
          const putOff: HealthRecord = { ...known, nextProbeAtSeconds, probe: '' };
          tx.set(records.healthKey(domain), encodeHealth(putOff));
          return putOff;
        },
        { label: 'probe' },
      );
      this.#learn(domain, record);
    } catch (error) {
      logger.warn(
        { domain, err: error },
        'a probe that was not made could not be put off: it is due again when its back-off is over',
      );
    }
  }

  async forget(domain: string): Promise<boolean> {
    return this.#remove(domain);
  }

  async pause(what: string, by: string, note: string): Promise<void> {
    const name = lineNameOf(what);
    const pause: QueuePause = { what: name, by, note, sinceMs: this.#d.clock.nowMs() };
    await this.#d.kv.transact(
      async (tx) => {
        tx.set(records.pauseKey(name), encodePause(pause));
        raise(tx);
      },
      { label: 'queue-pause' },
    );
    this.#pauses.set(name, pause);
    this.#raised(name);
  }

  async resume(what: string): Promise<boolean> {
    const name = lineNameOf(what);
    const wasThere = await this.#d.kv.transact(
      async (tx) => {
        if (!(await tx.get(records.pauseKey(name)))) return tx.mayHaveCommitted && this.#pauses.has(name);
        tx.clear(records.pauseKey(name));
        raise(tx);
        return true;
      },
      { label: 'queue-pause' },
    );
    if (this.#pauses.delete(name) || wasThere) this.#raised(name);
    return wasThere;
  }

  async readGeneration(reads: KvReads): Promise<string> {
    const value = await reads.get(records.destinationsGenerationKey());
    return value ? value.readBigUInt64LE().toString() : '0';
  }

  /** One at a time: who asks while one is running has it begin again afterwards. */
  async reload(): Promise<void> {
    if (this.#reloading) await this.#reloading.catch(() => {});
    this.#reloading ??= this.#load().finally(() => {
      this.#reloading = undefined;
    });
    return this.#reloading;
  }

  onChanged(listener: (line: string | undefined) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #arm(): void {
    if (this.#isStopped) return;
    const again = () => void this.#compare().then(() => this.#arm());
    this.#timer = this.#d.clock.setTimer(destinationLimits.compareIntervalMs, again, { background: true });
  }

  async #compare(): Promise<void> {
    try {
      const generation = await this.#d.kv.read((reads) => this.readGeneration(reads), { label: 'destinations' });
      if (generation !== this.#generation) await this.reload();
    } catch (error) {
      this.#d.logger.warn({ err: error }, 'what is known of destinations can not be read, trying again');
    }
  }

  async #load(): Promise<void> {
    const { generation, down, pauses } = await this.#d.kv.read(
      async (reads) => ({
        generation: await this.readGeneration(reads),
        down: await allRows(reads, records.healthRange(), destinationLimits.maxDown),
        pauses: await allRows(reads, records.pauseRange(), destinationLimits.maxDown),
      }),
      { label: 'destinations' },
    );
    const before = new Set([...this.#down.keys(), ...this.#pauses.keys()]);
    this.#down = new Map();
    for (const { key, value } of down) {
      const domain = keyItems(key)[2] as string;
      const record = decodeHealth(domain, value);
      if (record) this.#down.set(domain, record);
    }
    this.#pauses = new Map(
      pauses.map(({ key, value }) => {
        const what = keyItems(key)[2] as string;
        return [what, decodePause(what, value)];
      }),
    );
    for (const domain of this.#probes.keys()) if (!this.#down.has(domain)) this.#probes.delete(domain);
    this.#generation = generation;
    this.#measure();
    const after = new Set([...this.#down.keys(), ...this.#pauses.keys()]);
    for (const line of before) if (!after.has(line)) this.#tell(line);
    if ([...after].some((line) => !before.has(line))) this.#tell(undefined);
  }

  async #reached(domain: string): Promise<void> {
    this.#suspects.delete(domain);
    const { host } = this.#down.get(domain)?.lastReply ?? {};
    if (!this.#down.has(domain)) return;
    await this.#once(domain, () => this.#remove(domain));
    if (host !== undefined) await this.#callForward(host);
  }

  /** The host that these were down for (a relay, an exchanger of many domains) has come back: they are probed soon, and not in an hour. */
  async #callForward(host: string): Promise<void> {
    const { kv, clock, random } = this.#d;
    const { calledForwardSeconds, maxCalledForward } = destinationLimits;
    const nowSeconds = clock.nowMs() / 1000;
    const isLater = ({ nextProbeAtSeconds, lastReply }: HealthRecord) =>
      lastReply.host === host && nextProbeAtSeconds > nowSeconds + calledForwardSeconds;
    const domains: string[] = [];
    for (const record of this.#down.values()) {
      if (domains.length >= maxCalledForward) break;
      if (isLater(record)) domains.push(record.domain);
    }
    if (domains.length === 0) return;
    const probesAtSeconds = domains.map(() => Math.ceil(nowSeconds + random.float() * calledForwardSeconds));
    const called = await kv.transact(
      async (tx) => {
        const values = await tx.getMany(domains.map(records.healthKey));
        const changed: HealthRecord[] = [];
        for (const [i, domain] of domains.entries()) {
          const value = values[i];
          const known = value && decodeHealth(domain, value);
          if (!known || !isLater(known)) continue;
          const record = { ...known, nextProbeAtSeconds: probesAtSeconds[i]! };
          tx.set(records.healthKey(domain), encodeHealth(record));
          changed.push(record);
        }
        if (changed.length > 0) raise(tx);
        return changed;
      },
      { label: 'probe' },
    );
    for (const record of called) this.#learn(record.domain, record);
    if (called.length > 0) this.#d.onRaised?.();
  }

  async #remove(domain: string): Promise<boolean> {
    const wasThere = await this.#d.kv.transact(
      async (tx) => {
        if (!(await tx.get(records.healthKey(domain)))) return false;
        tx.clear(records.healthKey(domain));
        raise(tx);
        return true;
      },
      { label: 'destination-up' },
    );
    this.#probes.delete(domain);
    this.#suspects.delete(domain);
    const wasKnown = this.#down.delete(domain);
    if (wasThere) this.#d.logger.info({ domain }, 'a destination is up again');
    if (wasThere || wasKnown) this.#raised(domain);
    return wasThere || wasKnown;
  }

  async #unreachable(domain: string, reply: DestinationHealth['lastReply']): Promise<void> {
    if (this.#down.has(domain)) {
      // Only the probe counts: what else fails was begun before it was known.
      const probe = this.#probes.get(domain);
      if (probe === undefined) return;
      this.#probes.delete(domain);
      await this.#once(domain, () => this.#probeFailed(domain, probe, reply));
      return;
    }
    const failures = this.#suspect(domain);
    if (failures < destinationLimits.failuresUntilDown) return;
    if (this.#down.size >= destinationLimits.maxDown) return;
    await this.#once(domain, () => this.#goesDown(domain, failures, reply));
  }

  /** Answers how often it has failed in a row. */
  #suspect(domain: string): number {
    const nowMs = this.#d.clock.monotonicMs();
    const before = this.#suspects.get(domain);
    const isRecent = before !== undefined && nowMs - before.atMs < destinationLimits.suspectMs;
    const failures = (isRecent ? before.failures : 0) + 1;
    this.#suspects.delete(domain);
    this.#suspects.set(domain, { failures, atMs: nowMs });
    if (this.#suspects.size > destinationLimits.maxSuspects) this.#suspects.delete(this.#suspects.keys().next().value!);
    return failures;
  }

  async #goesDown(domain: string, failures: number, lastReply: DestinationHealth['lastReply']): Promise<void> {
    const { kv, clock, logger } = this.#d;
    const nowMs = clock.nowMs();
    const down: HealthRecord = {
      domain,
      failures,
      lastReply,
      downSinceMs: nowMs,
      nextProbeAtSeconds: nextProbe(nowMs / 1000, failures, this.#jitter()),
      probe: '',
    };
    const record = await kv.transact(
      async (tx) => {
        const known = await healthIn(tx, domain);
        if (known) return known;
        tx.set(records.healthKey(domain), encodeHealth(down));
        raise(tx);
        return down;
      },
      { label: 'destination-down' },
    );
    this.#suspects.delete(domain);
    this.#learn(domain, record);
    logger.warn(
      { domain, failures: record.failures, ...record.lastReply },
      'a destination is down: only probes until it answers',
    );
    this.#d.onRaised?.();
  }

  async #probeFailed(domain: string, probe: string, lastReply: DestinationHealth['lastReply']): Promise<void> {
    const { kv, clock } = this.#d;
    const jitter = this.#jitter();
    const record = await kv.transact(
      async (tx) => {
        const known = await healthIn(tx, domain);
        if (known?.probe !== probe) return known;
        const failures = known.failures + 1;
        const nextProbeAtSeconds = nextProbe(clock.nowMs() / 1000, failures, jitter);
        const failed: HealthRecord = { ...known, failures, lastReply, nextProbeAtSeconds, probe: '' };
        tx.set(records.healthKey(domain), encodeHealth(failed));
        return failed;
      },
      { label: 'probe' },
    );
    this.#learn(domain, record);
  }

  async #once(domain: string, write: () => Promise<unknown>): Promise<void> {
    if (this.#writing.has(domain)) return;
    this.#writing.add(domain);
    try {
      await write();
    } finally {
      this.#writing.delete(domain);
    }
  }

  /** What the store says of a domain now. */
  #learn(domain: string, record: HealthRecord | undefined): void {
    const wasKnown = this.#down.has(domain);
    if (record) this.#down.set(domain, record);
    else this.#down.delete(domain);
    this.#measure();
    if (wasKnown !== (record !== undefined)) this.#tell(domain);
  }

  #raised(line: string): void {
    this.#measure();
    this.#tell(line);
    this.#d.onRaised?.();
  }

  #tell(line: string | undefined): void {
    for (const listener of this.#listeners) listener(line);
  }

  #measure(): void {
    downGauge.set(this.#down.size);
    pausesGauge.set(this.#pauses.size);
  }

  /** 0.75 to 1.25: what failed together is not probed together. */
  #jitter(): number {
    return 0.75 + this.#d.random.float() / 2;
  }
}

const pausedReply: DestinationHealth['lastReply'] = { code: 0, enhanced: '4.3.2', text: 'Deliveries are paused by an operator' };

const plain = ({ probe: _probe, ...health }: HealthRecord): DestinationHealth => health;

/** Doubled with each failure beyond those that it took to be held for down. */
function nextProbe(nowSeconds: number, failures: number, jitter: number): number {
  const { failuresUntilDown, firstProbeAfterSeconds, maxProbeAfterSeconds } = destinationLimits;
  const doublings = Math.min(Math.max(failures - failuresUntilDown, 0), 20);
  return Math.ceil(nowSeconds + Math.min(firstProbeAfterSeconds * 2 ** doublings, maxProbeAfterSeconds) * jitter);
}

async function healthIn(tx: KvTransaction, domain: string): Promise<HealthRecord | undefined> {
  const value = await tx.get(records.healthKey(domain));
  return value && decodeHealth(domain, value);
}

function raise(tx: KvTransaction): void {
  tx.add(records.destinationsGenerationKey(), 1n);
}

/** `*`, `queue:NAME`, or a domain in lower case. Throws RangeError. */
function lineNameOf(what: string): string {
  const name = what.startsWith('queue:') ? what : what.toLowerCase();
  if (!/^(\*|queue:.{1,100}|[^\s:@*]{1,255})$/u.test(name)) throw new RangeError(`no domain, 'queue:NAME' or '*': ${what}`);
  return name;
}

async function allRows(reads: KvReads, { begin, end }: { begin: Buffer; end: Buffer }, max: number): Promise<KeyValue[]> {
  const rows: KeyValue[] = [];
  let from = begin;
  while (rows.length < max) {
    const page = await reads.getRange(from, end, { limit: pageRows });
    rows.push(...page);
    if (page.length < pageRows) break;
    from = keyAfter(page.at(-1)!.key);
  }
  return rows;
}
