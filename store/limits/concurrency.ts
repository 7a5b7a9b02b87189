/**
 * How many of something may be at once in the whole cluster. Each node has a row per key that says how many slots it keeps; what is kept and not held is
 * given out without the store. A row counts as long as its node's fence stands, so a dead node's slots are free as soon as it is declared dead.
 * While the store is full, slots are counted by what the rows say and given out without being noted: who has mail to delete must still get in.
 */

import { Packr } from 'msgpackr';
import type { Clock, Logger, Timer } from '../../ops/telemetry/index.js';
import { keyItems, nodeKeys } from '../keyspace.js';
import { KvError, type KvReads, type KvStore, type KvTransaction, keyAfter } from '../kv/contract.js';
import type { ConcurrencyLimiter } from './contract.js';
import type { Assert } from './expiring.js';
import { allSlotsRange, assertName, boundedKey, slotKey, slotRange } from './keys.js';

/** Slots that were given back are kept for so long where there are plenty: clients come again. */
const idleMs = 1_000;
/** Where more than this share of the slots is taken, they are given back at once. */
const tightShare = 0.75;
/** So much of what is free before it gets tight a node may keep in advance. */
const aheadShare = 1 / 8;
const purgePageRows = 500;
const formatVersion = 1;
const packr = new Packr({ useRecords: false });

interface Waiter {
  max: number;
  resolve(release: (() => void) | undefined): void;
  reject(error: unknown): void;
}

interface Held {
  id: string;
  name: string;
  of: string;
  held: number;
  /** What the store's row says, or less when that can't be known. */
  kept: number;
  isTight: boolean;
  waiters: Waiter[];
  isRunning: boolean;
  timer: Timer | undefined;
}

export interface OpenConcurrencyLimiter extends ConcurrencyLimiter {
  /** Gives back nothing: the node's fence goes, and its rows with it. Ends timers. */
  stop(): void;
}

/** `nodeId`: asked at each use, as a node learns it late. */
export function createConcurrencyLimiter(deps: {
  kv: KvStore;
  clock: Clock;
  logger: Logger;
  nodeId: () => string;
}): OpenConcurrencyLimiter {
  return new NodeSlots(deps.kv, deps.clock, deps.logger, deps.nodeId);
}

class NodeSlots implements OpenConcurrencyLimiter {
  readonly #keys = new Map<string, Held>();
  #isStopped = false;

  constructor(
    readonly kv: KvStore,
    readonly clock: Clock,
    readonly logger: Logger,
    readonly nodeId: () => string,
  ) {}

  async acquire(name: string, key: string, max: number): Promise<(() => void) | undefined> {
    assertName(name);
    const held = this.#heldOf(name, boundedKey(key));
    if (held.held < held.kept && held.held < max) return this.#giveOut(held);
    return new Promise((resolve, reject) => {
      held.waiters.push({ max, resolve, reject });
      if (!held.isRunning) this.#start(held);
    });
  }

  stop(): void {
    this.#isStopped = true;
    for (const { timer } of this.#keys.values()) timer?.cancel();
  }

  #heldOf(name: string, of: string): Held {
    const id = `${name} ${of}`;
    let held = this.#keys.get(id);
    if (!held) {
      held = { id, name, of, held: 0, kept: 0, isTight: false, waiters: [], isRunning: false, timer: undefined };
      this.#keys.set(id, held);
    }
    return held;
  }

  #giveOut(held: Held): () => void {
    held.held++;
    let isReleased = false;
    return () => {
      if (isReleased) return;
      isReleased = true;
      held.held--;
      this.#plan(held, held.isTight ? 0 : idleMs);
    };
  }

  #plan(held: Held, delayMs: number): void {
    if (held.isRunning || this.#isStopped) return;
    if (delayMs === 0) this.#start(held);
    else held.timer ??= this.clock.setTimer(delayMs, () => this.#start(held), { background: true });
  }

  #start(held: Held): void {
    held.timer?.cancel();
    held.timer = undefined;
    if (held.isRunning || this.#isStopped) return;
    held.isRunning = true;
    // Whatever happens within this tick goes along.
    queueMicrotask(() => void this.#run(held));
  }

  /** Never rejects: what goes wrong is the waiters'. */
  async #run(held: Held): Promise<void> {
    let hasFailed = false;
    do {
      const { waiters } = held;
      held.waiters = [];
      // Meanwhile no more is given out than the row will say for certain.
      const heldBefore = held.held;
      held.kept = heldBefore;
      try {
        const { kept, granted, isTight } = await this.kv.transact((tx) => this.#save(tx, held, heldBefore, waiters), {
          label: waiters.length > 0 ? 'slot-acquire' : 'slot-release',
        });
        held.kept = kept;
        held.isTight = isTight;
        for (const [i, { resolve }] of waiters.entries()) resolve(granted[i] ? this.#giveOut(held) : undefined);
      } catch (error) {
        // The row may be the old one or the new one: neither says less than what was held.
        hasFailed = true;
        this.logger.debug({ err: error, limit: held.name }, 'slots can not be saved yet');
        await this.#answerUnsaved(held, heldBefore, waiters, error);
      }
    } while (held.waiters.length > 0 || (!hasFailed && held.isTight && held.kept > held.held));
    held.isRunning = false;
    if (hasFailed || held.kept > held.held) this.#plan(held, idleMs);
    else if (held.kept === 0 && !held.timer) this.#keys.delete(held.id);
  }

  /** What is given out here is in the row as soon as the store has space again. */
  async #answerUnsaved(held: Held, heldBefore: number, waiters: readonly Waiter[], error: unknown): Promise<void> {
    if (waiters.length === 0) return;
    try {
      if (!(error instanceof KvError && error.reason === 'no-space')) throw error;
      const granted = await this.kv.read(
        async (reads) => {
          const { others } = await this.#others(reads, held);
          return grant(waiters, others, heldBefore).granted;
        },
        { label: 'slot-count' },
      );
      for (const [i, { resolve }] of waiters.entries()) resolve(granted[i] ? this.#giveOut(held) : undefined);
    } catch (failure) {
      for (const { reject } of waiters) reject(failure);
    }
  }

  async #save(tx: KvTransaction, held: Held, heldNow: number, waiters: readonly Waiter[]) {
    const { name, of, isTight: wasTight } = held;
    const nodeId = this.nodeId();
    const { others, dead } = waiters.length > 0 ? await this.#others(tx, held) : { others: 0, dead: [] };
    for (const key of dead) tx.clear(key);
    const { granted, taken, max } = grant(waiters, others, heldNow);
    let kept = taken;
    const lowest = waiters.reduce((least, waiter) => Math.min(least, waiter.max), Number.POSITIVE_INFINITY);
    // Not so many that it would be tight: then they are given back at once.
    const ahead = Math.floor((lowest * tightShare - others - kept - 1) * aheadShare);
    if (granted.includes(true)) kept += Math.max(0, Math.min(kept, ahead));
    const own = slotKey(name, of, nodeId);
    if (kept > 0) tx.set(own, packr.pack([formatVersion, kept]));
    else tx.clear(own);
    return { kept, granted, isTight: waiters.length > 0 ? others + kept >= max * tightShare : wasTight };
  }

  /** What other nodes keep, and the rows of nodes whose fence is gone. */
  async #others(reads: KvReads, { name, of }: Held): Promise<{ others: number; dead: Buffer[] }> {
    const { begin, end } = slotRange(name, of);
    const nodeId = this.nodeId();
    const rows = (await reads.getRange(begin, end)).filter(({ key }) => nodeOf(key) !== nodeId);
    const fences = await reads.getMany(rows.map(({ key }) => nodeKeys.fence(nodeOf(key))));
    const standing = rows.filter((_, i) => fences[i]);
    return {
      others: standing.reduce((sum, { value }) => sum + keptIn(value), 0),
      dead: rows.filter((_, i) => !fences[i]).map(({ key }) => key),
    };
  }
}

/** Who of the waiters gets a slot; `taken`: those of this node with theirs, `max`: the highest limit. */
function grant(waiters: readonly Waiter[], others: number, heldNow: number) {
  let taken = heldNow;
  let max = 0;
  const granted = waiters.map((waiter) => {
    max = Math.max(max, waiter.max);
    if (others + taken >= waiter.max) return false;
    taken++;
    return true;
  });
  return { granted, taken, max };
}

const nodeOf = (key: Buffer): string => keyItems(key)[4] as string;

function keptIn(value: Buffer): number {
  const fields = packr.unpack(value) as unknown;
  // Whatever a newer format adds, the second field stays what it is.
  return Array.isArray(fields) && typeof fields[1] === 'number' ? fields[1] : 0;
}

/** Removes slots of nodes that are gone. Throws KvError and what `assert` throws. */
export async function purgeDeadSlots(kv: KvStore, assert?: Assert): Promise<void> {
  let { begin } = allSlotsRange();
  const { end } = allSlotsRange();
  for (;;) {
    const from = begin;
    const rows = await kv.transact(
      async (tx) => {
        await assert?.(tx);
        const page = await tx.snapshot.getRange(from, end, { limit: purgePageRows });
        const nodes = [...new Set(page.map(({ key }) => nodeOf(key)))];
        const fences = await tx.getMany(nodes.map(nodeKeys.fence));
        const gone = new Set(nodes.filter((_, i) => !fences[i]));
        for (const { key } of page) if (gone.has(nodeOf(key))) tx.clear(key);
        return page;
      },
      { label: 'forget-slots' },
    );
    if (rows.length < purgePageRows) return;
    begin = keyAfter(rows.at(-1)!.key);
  }
}
