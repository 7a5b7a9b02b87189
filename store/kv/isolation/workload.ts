/**
 * Runs random transactions on stores and writes down what was seen. Every run of a body is a transaction of its own in the history, with
 * numbers of its own: one that was run again after a conflict must not have happened, one whose commit was unknown may have.
 */
import { type Clock, systemClock } from '../../../ops/telemetry/index.js';
import { type KeyValue, KvError, type KvReads, type KvStore, type KvTransaction, prefixEnd } from '../contract.js';
import { Generator, type Numbers, type Plan, type Step } from './generator.js';
import type { List, ListName, ObservedOperation, ObservedTransaction } from './observed.js';

export interface WorkloadOptions {
  /** All keys are below this prefix; it should be empty. */
  readonly prefix: Buffer;
  readonly random: Numbers;
  /** Each uses `stores[client % stores.length]`, one transaction after the other. */
  readonly clients: number;
  /** The run ends after so many transactions … */
  readonly maxTransactions: number;
  /** … or when so much time has gone by, whichever comes first. */
  readonly maxMs: number;
  /** Lists in use at any one time, of each form. Fewer meet more often. Default 5. */
  readonly activeLists?: number;
  /** Appends until one list makes way for a new one. Default 12. */
  readonly appendsPerList?: number;
  /** Called when the clients have ended and before the last look at everything, to end the faults. */
  readonly onClientsDone?: () => Promise<void>;
  readonly clock?: Clock;
}

/** How long the last look at everything is tried again while the store is unavailable. */
const lastLookPatienceMs = 300_000;
/** A store that is unavailable is asked again after this. */
const unavailablePauseMs = 5;
const stampBytes = 10;

/** Runs the clients; resolves to the history when all have ended and every list has been read once more through every store. */
export async function runWorkload(stores: readonly KvStore[], options: WorkloadOptions): Promise<ObservedTransaction[]> {
  const clock = options.clock ?? systemClock;
  const recorder = new Recorder(options.prefix);
  const generator = new Generator(options.random, options.activeLists ?? 5, options.appendsPerList ?? 12);
  const endMs = clock.monotonicMs() + options.maxMs;
  let left = options.maxTransactions;
  const client = async (index: number) => {
    const store = stores[index % stores.length]!;
    while (left-- > 0 && clock.monotonicMs() < endMs) {
      const unavailable = await recorder.run(store, `client ${index}`, generator.next());
      if (unavailable) await clock.sleep(unavailablePauseMs);
      // Stores that answer at once would let one client run to its end before the next one begins, and keep timers waiting.
      else await new Promise((resolve) => setImmediate(resolve));
    }
  };
  try {
    await Promise.all(Array.from({ length: options.clients }, (_, index) => client(index)));
  } finally {
    await options.onClientsDone?.();
  }
  for (const [index, store] of stores.entries()) {
    const everything = ['p/', 's/'].map((form) => wholeRange(form, form === 'p/' ? 'p0' : 's0'));
    const patienceEndMs = clock.monotonicMs() + lastLookPatienceMs;
    while (await recorder.run(store, `last look ${index}`, { by: 'read', steps: everything })) {
      if (clock.monotonicMs() > patienceEndMs) throw new Error(`store ${index} does not come back`);
      await clock.sleep(unavailablePauseMs);
    }
  }
  return recorder.history;
}

function wholeRange(begin: string, end: string): Step {
  return { kind: 'range', begin, end, limit: undefined, reverse: false, declared: false };
}

/** One run of a body, being written down. */
interface Run {
  readonly id: number;
  readonly begunAt: number;
  readonly operations: ObservedOperation[];
  /** When the body came to its end; unset when something was thrown in it. */
  bodyEnded: boolean;
}

class Recorder {
  readonly history: ObservedTransaction[] = [];
  readonly #prefix: Buffer;
  #ticks = 0;
  #ids = 0;
  #values = 0;

  constructor(prefix: Buffer) {
    this.#prefix = prefix;
  }

  /** Runs one plan to its end. True when the store was unavailable. */
  async run(store: KvStore, client: string, plan: Plan): Promise<boolean> {
    // A run begins for the checker when the one before ended: the store may have fixed its version before it called the body.
    let begunAt = this.#ticks++;
    let run: Run | undefined;
    const body = async (reads: KvReads, tx: KvTransaction | undefined) => {
      if (run) this.#settle(run, client, tx?.mayHaveCommitted && run.bodyEnded ? 'info' : 'fail');
      const current: Run = { id: this.#ids++, begunAt, operations: [], bodyEnded: false };
      run = current;
      try {
        for (const step of plan.steps) await this.#play(step, reads, tx, current.operations);
        current.bodyEnded = true;
      } finally {
        begunAt = this.#ticks++;
      }
    };
    try {
      const version =
        plan.by === 'read'
          ? await store.read((reads) => body(reads, undefined)).then(() => undefined)
          : (await store.transactVersioned((tx) => body(tx, tx))).version;
      this.#settle(run!, client, 'ok', version);
      return false;
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      if (error.code === 'too-large') throw error;
      if (run) this.#settle(run, client, error.code === 'commit-unknown' && run.bodyEnded ? 'info' : 'fail');
      return error.code === 'unavailable' || error.code === 'commit-unknown';
    }
  }

  #settle(run: Run, client: string, outcome: ObservedTransaction['outcome'], version?: bigint): void {
    const { id, begunAt, operations } = run;
    this.history.push({ id, client, operations, outcome, begunAt, endedAt: this.#ticks++, version });
  }

  async #play(step: Step, reads: KvReads, tx: KvTransaction | undefined, operations: ObservedOperation[]): Promise<void> {
    if (step.kind === 'append') await this.#append(step.list, tx!, operations);
    else if (step.kind === 'many') {
      const values = await reads.getMany(step.lists.map((list) => this.#key(list)));
      for (const [at, list] of step.lists.entries()) operations.push({ kind: 'read', list, found: unpacked(values[at]) });
    } else if (step.kind === 'range') operations.push(await this.#range(step, reads, tx));
    else operations.push({ kind: 'read', list: step.list, found: await this.#read(step.list, step.declared, reads, tx) });
  }

  async #append(list: ListName, tx: KvTransaction, operations: ObservedOperation[]): Promise<void> {
    const value = ++this.#values;
    if (list.startsWith('s/')) {
      const suffix = Buffer.alloc(4);
      // Rows of one transaction have one stamp; numbers ascend.
      suffix.writeUInt32BE(value);
      tx.setVersionstampedKey(this.#key(`${list}/`), suffix, new Uint8Array());
    } else {
      const found = unpacked(await tx.get(this.#key(list)));
      operations.push({ kind: 'read', list, found });
      tx.set(this.#key(list), packed([...found, value]));
    }
    operations.push({ kind: 'append', list, value });
  }

  async #read(list: ListName, declared: boolean, reads: KvReads, tx: KvTransaction | undefined): Promise<List> {
    const source = declared && tx ? tx.snapshot : reads;
    if (list.startsWith('s/')) {
      const [begin, end] = [this.#key(`${list}/`), this.#key(`${list}0`)];
      const rows = await source.getRange(begin, end);
      if (declared) tx?.addReadConflictRange(begin, end);
      return rows.map((row) => this.#stamped(row).value);
    }
    const key = this.#key(list);
    if (declared) tx?.addReadConflictKey(key);
    return unpacked(await source.get(key));
  }

  async #range(
    step: Extract<Step, { kind: 'range' }>,
    reads: KvReads,
    tx: KvTransaction | undefined,
  ): Promise<ObservedOperation> {
    const source = step.declared && tx ? tx.snapshot : reads;
    const [begin, end] = [this.#key(step.begin), this.#key(step.end)];
    const { limit, reverse } = step;
    const rows = await source.getRange(begin, end, limit === undefined ? { reverse } : { limit, reverse });
    if (step.declared) tx?.addReadConflictRange(begin, end);
    const found = new Map<ListName, number[]>();
    if (step.begin.startsWith('s/')) {
      if (reverse) rows.reverse();
      for (const row of rows) {
        const { list, value } = this.#stamped(row);
        const values = found.get(list);
        if (values) values.push(value);
        else found.set(list, [value]);
      }
    } else for (const row of rows) found.set(this.#name(row.key), unpacked(row.value));
    // Behind a limit nothing was seen.
    const cut = limit !== undefined && rows.length >= limit ? this.#name(rows.at(-1)!.key) : undefined;
    const seen = cut === undefined ? step : reverse ? { begin: cut, end: step.end } : { begin: step.begin, end: `${cut}\0` };
    return { kind: 'range', begin: seen.begin, end: seen.end, found };
  }

  #key(name: string): Buffer {
    return Buffer.concat([this.#prefix, Buffer.from(name, 'latin1')]);
  }

  #name(key: Buffer): string {
    return key.toString('latin1', this.#prefix.length);
  }

  #stamped({ key }: KeyValue): { list: ListName; value: number } {
    const value = key.readUInt32BE(key.length - 4);
    return { list: key.toString('latin1', this.#prefix.length, key.length - 4 - stampBytes - 1), value };
  }
}

function packed(list: List): Buffer {
  const value = Buffer.allocUnsafe(list.length * 4);
  for (const [at, number] of list.entries()) value.writeUInt32LE(number, at * 4);
  return value;
}

function unpacked(value: Buffer | undefined): number[] {
  const list: number[] = [];
  for (let at = 0; at + 4 <= (value?.length ?? 0); at += 4) list.push(value!.readUInt32LE(at));
  return list;
}

/** Clears what a workload has left below its prefix. */
export async function clearWorkload(store: KvStore, prefix: Buffer): Promise<void> {
  await store.transact(async (tx) => tx.clearRange(prefix, prefixEnd(prefix)));
}
