/**
 * What one transaction has written so far, not yet committed: sets, clears, cleared ranges and atomic operations, folded so that each
 * key has one last word. Reads are merged with it (read-your-writes), and backends take the outcome from it at commit.
 *
 * Invariant: cleared ranges come first and point writes after them, so a point write inside a cleared range is a later one.
 */
import { type AtomicKind, type AtomicOperation, applyAtomic } from './atomic.js';
import { type KeyRange, lowerBound, RangeSet } from './key-text.js';

/** The last word on one key: a value, `null` for cleared, or operations on whatever the store holds. */
export type PointWrite = Buffer | null | readonly AtomicOperation[];

/** A key that is known only at commit: `prefix + versionstamp + suffix`. */
export interface StampedWrite {
  readonly prefix: string;
  readonly suffix: string;
  readonly value: Buffer;
}

/** What a read learns from the buffer alone. `unknown` means that the store must be asked. */
export type OwnValue = { readonly known: true; readonly value: Buffer | undefined } | { readonly known: false };

const absent: OwnValue = { known: true, value: undefined };
const unknown: OwnValue = { known: false };

export class WriteBuffer {
  readonly points = new Map<string, PointWrite>();
  readonly stamped: StampedWrite[] = [];
  readonly #cleared = new RangeSet();
  #sorted: string[] = [];
  #sortedIsStale = false;

  get isEmpty(): boolean {
    return this.points.size === 0 && this.stamped.length === 0 && this.#cleared.isEmpty;
  }

  get clearedRanges(): readonly KeyRange[] {
    return this.#cleared.ranges;
  }

  set(key: string, value: Buffer): void {
    if (!this.points.has(key)) this.#sortedIsStale = true;
    this.points.set(key, value);
  }

  clear(key: string): void {
    if (!this.points.has(key)) this.#sortedIsStale = true;
    this.points.set(key, null);
  }

  clearRange(begin: string, end: string): void {
    if (begin >= end) return;
    if (this.points.size > 0) {
      for (const key of this.keysIn(begin, end)) this.points.delete(key);
      this.#sortedIsStale = true;
    }
    this.#cleared.add(begin, end);
  }

  atomic(key: string, kind: AtomicKind, operand: bigint): void {
    const before = this.points.get(key);
    if (before === undefined && !this.#cleared.find(key)) this.#setOperations(key, [{ kind, operand }]);
    else if (Array.isArray(before)) this.#setOperations(key, appended(before, { kind, operand }));
    else this.set(key, applyAtomic(kind, operand, (before as Buffer | null | undefined) ?? undefined));
  }

  setStamped(prefix: string, suffix: string, value: Buffer): void {
    this.stamped.push({ prefix, suffix, value });
  }

  /** What this transaction alone knows of `key`. */
  own(key: string): OwnValue {
    const write = this.points.get(key);
    if (write === undefined) return this.#cleared.find(key) ? absent : unknown;
    if (write === null) return absent;
    return Buffer.isBuffer(write) ? { known: true, value: Buffer.from(write) } : unknown;
  }

  /** `key`'s value as this transaction sees it, when the store holds `base`. The result is the caller's own copy. */
  overlay(key: string, base: Buffer | undefined): Buffer | undefined {
    const write = this.points.get(key);
    if (write === undefined) return this.#cleared.find(key) ? undefined : base;
    if (write === null) return undefined;
    if (Buffer.isBuffer(write)) return Buffer.from(write);
    return applyAll(write as readonly AtomicOperation[], base);
  }

  /** `key`'s value after the commit, when the store, with the cleared ranges gone, holds `base`. Only for keys with a point write. */
  outcome(key: string, base: Buffer | undefined): Buffer | undefined {
    const write = this.points.get(key);
    if (write === null || write === undefined) return undefined;
    if (Buffer.isBuffer(write)) return write;
    return applyAll(write as readonly AtomicOperation[], base);
  }

  /** Whether anything in `[begin, end)` was written. */
  meets(begin: string, end: string): boolean {
    if (this.#cleared.meets(begin, end)) return true;
    if (this.points.size === 0) return false;
    const sorted = this.#sortedKeys();
    const at = lowerBound(sorted, begin);
    return at < sorted.length && sorted[at]! < end;
  }

  /** Keys with a point write in `[begin, end)`, ascending. */
  keysIn(begin: string, end: string): string[] {
    const sorted = this.#sortedKeys();
    return sorted.slice(lowerBound(sorted, begin), lowerBound(sorted, end));
  }

  /** The cleared range that holds `key`; reading forwards jumps to its end. */
  clearedAt(key: string): KeyRange | undefined {
    return this.#cleared.find(key);
  }

  /** The cleared range that holds what lies right below `end`; reading backwards jumps to its beginning. */
  clearedBelow(end: string): KeyRange | undefined {
    return this.#cleared.findBelow(end);
  }

  #setOperations(key: string, operations: readonly AtomicOperation[]): void {
    if (!this.points.has(key)) this.#sortedIsStale = true;
    this.points.set(key, operations);
  }

  #sortedKeys(): string[] {
    if (this.#sortedIsStale) {
      this.#sorted = [...this.points.keys()].sort(ascending);
      this.#sortedIsStale = false;
    }
    return this.#sorted;
  }
}

function applyAll(operations: readonly AtomicOperation[], base: Buffer | undefined): Buffer | undefined {
  let value = base;
  for (const operation of operations) value = applyAtomic(operation.kind, operation.operand, value);
  return value;
}

function ascending(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Additions in a row become one; other operations queue up. */
function appended(operations: readonly AtomicOperation[], next: AtomicOperation): readonly AtomicOperation[] {
  const last = operations.at(-1)!;
  if (last.kind !== next.kind) return [...operations, next];
  const before = Buffer.allocUnsafe(8);
  before.writeBigUInt64LE(BigInt.asUintN(64, last.operand));
  const joined = applyAtomic(next.kind, next.operand, before).readBigUInt64LE(0);
  return [...operations.slice(0, -1), { kind: last.kind, operand: joined }];
}
