/**
 * Serves lines: takes out of them what nothing stands in the way of any more and what this node has room for. Told of lines when something is put into one or may be
 * attempted again; what nobody tells is found by looking through their names, a page at a time.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import { allShards, type Destinations, type LineEntry, type Queue } from '../../store/queue/index.js';
import { refOf } from './delivery-lanes.js';
import type { Holdings } from './holdings.js';
import type { Sorting } from './sorting.js';

export interface LineLimits {
  claimBatch: number;
  lateAfterSeconds: number;
  /** Between two pages of lines' names. */
  lineSweepMs: number;
}

export interface WaitingLinesDependencies {
  queue: Pick<Queue, 'lines' | 'lineEntries'>;
  clock: Clock;
  sorting: Sorting;
  holdings: Holdings;
  limits: LineLimits;
  destinations?: Pick<Destinations, 'obstacle' | 'pauses'>;
}

const namesPerSweep = 200;
/** Served in one look. */
const linesPerLook = 20;
/** More are found again by their names. */
const maxKnown = 10_000;
/** Lines of which a sweep also looks at what lies in others' shards; of a page with more, another part each time. */
const lateLinesPerSweep = 20;
/** Of entries in others' shards; beyond, it is as if they had not been seen. */
const maxSights = 10_000;
/** A sight that is older was not confirmed for long: the entry is another one by now, or its line is rarely looked at. */
const maxSightMs = 3_600_000;

export class WaitingLines {
  readonly #d: WaitingLinesDependencies;
  /** Lines that may have something for this node, in turn. */
  readonly #known = new Set<string>();
  #sweepAtMs = Number.NEGATIVE_INFINITY;
  #sweptTo: string | undefined;
  /** By line: entries in others' shards that could have been taken, with the time (monotonic, ms) of the first sight. */
  readonly #late = new Map<string, Map<string, number>>();
  #lateTurn = 0;

  constructor(dependencies: WaitingLinesDependencies) {
    this.#d = dependencies;
  }

  note(line: string): void {
    if (this.#known.size < maxKnown) this.#known.add(line);
  }

  /** Whether a delivery that has ended makes room for one that waits here. */
  isWanting(line: string): boolean {
    return this.#known.has(line) && this.#hasRoom(line);
  }

  /** One look: a page of names when it is time, then lines in turn. Answers how many were claimed, and whether there is more that could be. */
  async look(shards: readonly number[], room: number): Promise<{ won: number; hasMore: boolean }> {
    await this.#sweep(shards, room);
    let won = 0;
    let hasMore = false;
    let served = 0;
    for (const line of [...this.#known]) {
      if (room - won <= 0 || served >= linesPerLook) return { won, hasMore: served > 0 && won > 0 };
      // Who stands in the way or is full is left out; in the others' names each has its turn.
      if (this.#isBlocked(line)) {
        this.#known.delete(line);
        continue;
      }
      if (!this.#hasRoom(line)) continue;
      served++;
      this.#known.delete(line);
      const limit = Math.min(room - won, this.#d.limits.claimBatch, this.#d.holdings.roomOf(line));
      const entries = await this.#d.queue.lineEntries(line, shards, limit);
      if (entries.length === 0) continue;
      const sorted = await this.#d.sorting.work(entries, limit, line);
      won += sorted.won;
      // Where entries were met that others have or that can't be read, the next sweep comes back to it.
      if (entries.length < limit || sorted.won + sorted.parked === 0) continue;
      this.#known.add(line);
      if (this.#hasRoom(line)) hasMore = true;
    }
    return { won, hasMore };
  }

  #isBlocked(line: string): boolean {
    const { destinations } = this.#d;
    if (!destinations) return false;
    const obstacle = destinations.obstacle(line, '');
    // While everything is paused, all stays where it is: a million entries are not to be moved to the line of the pause and back.
    if (obstacle?.line === '*') return true;
    if (line === '*' || line.startsWith('from:')) return false;
    if (line.startsWith('queue:')) return destinations.pauses().some(({ what }) => what === line);
    return obstacle?.line === line;
  }

  /** Not for each single one: refilled when half of it is worked off. */
  #hasRoom(line: string): boolean {
    const { holdings } = this.#d;
    const cap = holdings.capOf(line);
    return cap === Number.POSITIVE_INFINITY || holdings.roomOf(line) >= Math.max(1, cap / 2);
  }

  async #sweep(shards: readonly number[], room: number): Promise<void> {
    const { queue, clock, limits } = this.#d;
    const nowMs = clock.monotonicMs();
    if (nowMs < this.#sweepAtMs) return;
    this.#sweepAtMs = nowMs + limits.lineSweepMs;
    const names = await queue.lines(this.#sweptTo, namesPerSweep);
    this.#sweptTo = names.length < namesPerSweep ? undefined : names.at(-1);
    for (const name of names) this.note(name);
    if (shards.length < allShards.length) await this.#serveLate(names, shards, room, nowMs);
  }

  /** What was there a while ago already although nothing was in its way: the node whose shard it is is full, or does not know of it. */
  async #serveLate(names: readonly string[], shards: readonly number[], room: number, nowMs: number): Promise<void> {
    const { queue, sorting, holdings, limits } = this.#d;
    const others = allShards.filter((shard) => !shards.includes(shard));
    const able = names.filter((line) => !this.#isBlocked(line) && this.#hasRoom(line));
    const from = able.length > lateLinesPerSweep ? (this.#lateTurn++ * lateLinesPerSweep) % able.length : 0;
    const open = [...able.slice(from), ...able.slice(0, from)].slice(0, lateLinesPerSweep);
    this.#forgetSights(nowMs);
    let left = room;
    for (const line of open) {
      const limit = Math.min(left, limits.claimBatch, holdings.roomOf(line));
      if (limit <= 0) break;
      const before = this.#late.get(line);
      const seen = new Map<string, number>();
      const late: LineEntry[] = [];
      for (const entry of await queue.lineEntries(line, others, limit)) {
        const firstMs = before?.get(refOf(entry));
        if (firstMs !== undefined && nowMs - firstMs >= limits.lateAfterSeconds * 1000) late.push(entry);
        else seen.set(refOf(entry), firstMs ?? nowMs);
      }
      // Other pages of names come before this one comes again: what was seen here is kept until then.
      this.#late.delete(line);
      if (seen.size > 0) this.#late.set(line, seen);
      if (late.length > 0) left -= (await sorting.work(late, limit, line)).won;
    }
  }

  /** Lines in the order of their last look. */
  #forgetSights(nowMs: number): void {
    let sights = 0;
    for (const seen of this.#late.values()) sights += seen.size;
    for (const [line, seen] of this.#late) {
      const firstMs = Math.max(...seen.values());
      if (sights <= maxSights && nowMs - firstMs < maxSightMs) continue;
      this.#late.delete(line);
      sights -= seen.size;
    }
  }
}
