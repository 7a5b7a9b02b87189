import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { KeyValue, KvReads, KvStore, KvTransaction } from './contract.js';
import { openEmbeddedStore, openMemoryStore } from './index.js';

/** The contract in its plainest form: a map, copied and sorted for every question. Keys are texts of one letter per byte. */
class Model {
  constructor(readonly pairs = new Map<string, Buffer>()) {}

  apply(step: Step): void {
    if (step.kind === 'set') this.pairs.set(step.key, Buffer.from(step.value));
    else if (step.kind === 'clear') this.pairs.delete(step.key);
    else if (step.kind === 'clearRange') for (const key of this.keys(step.begin, step.end)) this.pairs.delete(key);
    else if (step.kind === 'add' || step.kind === 'max' || step.kind === 'min') this.pairs.set(step.key, this.#atomic(step));
  }

  keys(begin: string, end: string): string[] {
    return [...this.pairs.keys()].filter((key) => key >= begin && key < end).sort();
  }

  range(begin: string, end: string, limit: number | undefined, reverse: boolean): string[] {
    const keys = this.keys(begin, end);
    if (reverse) keys.reverse();
    return keys.slice(0, limit).map((key) => `${key}=${this.pairs.get(key)!.toString('hex')}`);
  }

  #atomic({ kind, key, operand }: Extract<Step, { operand: bigint }>): Buffer {
    const padded = Buffer.concat([this.pairs.get(key) ?? Buffer.alloc(0), Buffer.alloc(8)]).subarray(0, 8);
    const before = this.pairs.has(key) ? padded.readBigUInt64LE() : undefined;
    const result = Buffer.alloc(8);
    if (kind === 'add') result.writeBigUInt64LE(((before ?? 0n) + operand) % 2n ** 64n);
    else if (before === undefined) result.writeBigUInt64LE(operand);
    else if (kind === 'max') result.writeBigUInt64LE(before > operand ? before : operand);
    else result.writeBigUInt64LE(before < operand ? before : operand);
    return result;
  }
}

type Step =
  | { kind: 'set'; key: string; value: Uint8Array }
  | { kind: 'clear'; key: string }
  | { kind: 'clearRange'; begin: string; end: string }
  | { kind: 'add' | 'max' | 'min'; key: string; operand: bigint }
  | { kind: 'get'; key: string }
  | { kind: 'getMany'; keys: string[] }
  | { kind: 'getRange'; begin: string; end: string; limit: number | undefined; reverse: boolean; snapshot: boolean };

/** Few keys that lie close together, some a prefix of others, so that edges meet often. */
const keys = fc.constantFrom('\0', 'a', 'a\0', 'a\xff', 'aa', 'b', 'b\0', 'ba', 'c', 'd', 'e', '\xff', '\xff\xff');
const operand = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('set' as const), key: keys, value: fc.uint8Array({ maxLength: 12 }) }),
  fc.record({ kind: fc.constant('clear' as const), key: keys }),
  fc.record({ kind: fc.constant('clearRange' as const), begin: keys, end: keys }),
  fc.record({ kind: fc.constantFrom('add' as const, 'max' as const, 'min' as const), key: keys, operand }),
  fc.record({ kind: fc.constant('get' as const), key: keys }),
  fc.record({ kind: fc.constant('getMany' as const), keys: fc.array(keys, { maxLength: 5 }) }),
  fc.record({
    kind: fc.constant('getRange' as const),
    begin: keys,
    end: keys,
    limit: fc.option(fc.integer({ min: 0, max: 6 }), { nil: undefined }),
    reverse: fc.boolean(),
    snapshot: fc.boolean(),
  }),
);
const transactions = fc.array(fc.record({ steps: fc.array(step, { maxLength: 15 }), fails: fc.boolean() }), { maxLength: 5 });

const prefix = Buffer.from('p/');
const keyOf = (text: string) => Buffer.concat([prefix, Buffer.from(text, 'latin1')]);

function shown(rows: KeyValue[]): string[] {
  return rows.map(({ key, value }) => `${key.subarray(prefix.length).toString('latin1')}=${value.toString('hex')}`);
}

/** Plays one step on both and compares what they answer. */
async function play(tx: KvTransaction, model: Model, each: Step): Promise<void> {
  model.apply(each);
  if (each.kind === 'set') tx.set(keyOf(each.key), each.value);
  else if (each.kind === 'clear') tx.clear(keyOf(each.key));
  else if (each.kind === 'clearRange') tx.clearRange(keyOf(each.begin), keyOf(each.end));
  else if (each.kind === 'get') expect(await tx.get(keyOf(each.key))).toEqual(model.pairs.get(each.key));
  else if (each.kind === 'getMany') {
    const values = each.keys.map((key) => model.pairs.get(key));
    expect(await tx.getMany(each.keys.map(keyOf))).toEqual(values);
  } else if (each.kind === 'getRange') {
    const reads: KvReads = each.snapshot ? tx.snapshot : tx;
    const { limit, reverse } = each;
    const rows = await reads.getRange(keyOf(each.begin), keyOf(each.end), { limit, reverse });
    expect(shown(rows)).toEqual(model.range(each.begin, each.end, limit, reverse));
  } else tx[each.kind](keyOf(each.key), each.operand);
}

async function check(store: KvStore, runs: { steps: Step[]; fails: boolean }[]): Promise<void> {
  await store.transact(async (tx) => tx.clearRange(prefix, keyOf('\xff\xff\xff')));
  let model = new Model();
  const failure = new Error('given up');
  for (const { steps, fails } of runs) {
    const inside = new Model(new Map(model.pairs));
    const running = store.transact(async (tx) => {
      for (const each of steps) await play(tx, inside, each);
      if (fails) throw failure;
    });
    if (fails) await expect(running).rejects.toBe(failure);
    else await running;
    if (!fails) model = inside;
    const rows = await store.read((reads) => reads.getRange(prefix, keyOf('\xff\xff\xff')));
    expect(shown(rows)).toEqual(model.range('', '\xff\xff\xff', undefined, false));
  }
}

describe('any transactions give what a plain map gives', () => {
  const directory = mkdtempSync(join(tmpdir(), 'starling-kv-property-'));
  let embedded: KvStore;
  beforeAll(async () => {
    embedded = await openEmbeddedStore({ directory, durability: 'none' });
  });
  afterAll(async () => {
    await embedded.close();
    rmSync(directory, { recursive: true, force: true });
  });

  it('memory', async () => {
    const store = openMemoryStore();
    await fc.assert(
      fc.asyncProperty(transactions, (runs) => check(store, runs)),
      { numRuns: 600 },
    );
  });

  it('embedded', async () => {
    await fc.assert(
      fc.asyncProperty(transactions, (runs) => check(embedded, runs)),
      { numRuns: 300 },
    );
  });
});
