/**
 * Transactions that are committed by one call: their arguments, encoded as they come, and who waits for them.
 *
 * What must be true: the order of the transactions in a batch matters to nobody. None reads what an earlier one writes (the committer
 * refuses such a one), and none writes over another's writes in a way whose order shows (`admits`).
 */
import { crc32 } from 'node:zlib';
import type { AtomicOperation } from '../atomic.js';
import type { CommitRequest } from '../backend.js';
import type { KvError } from '../contract.js';
import { type KeyRange, rangeHolds, rangesMeet } from '../key-text.js';
import type { Watch } from '../watches.js';
import type { PointWrite } from '../write-buffer.js';
import { BinaryArray } from './binary.js';
import { commitFlags, maxPlainKeyBytes, operationKinds, writeKinds } from './functions.js';
import { stampedRange, type WriteRecord } from './pending.js';

/** The order behind the version in a versionstamp has 16 bits, of which the server takes 15. */
const maxTransactions = 1_000;
/** Fuller batches are closed, so that no commit waits for an endless one. */
const maxBytes = 4 * 1024 * 1024;
/** `p_read` of a transaction that has read nothing: nothing is newer. */
const readNothing = 2n ** 63n - 1n;

/** One transaction of a batch. */
export interface Entry {
  /** As it came, in case it must be sent alone. */
  readonly request: CommitRequest;
  readonly record: WriteRecord;
  readonly readVersion: number | undefined;
  /** `crc32` of the keys written. */
  readonly hashes: readonly number[];
  /** Watches whose key somebody else had changed already. */
  readonly changed: readonly Watch[];
  resolve(version: number): void;
  reject(error: KvError): void;
}

export class Batch {
  readonly entries: Entry[] = [];
  readonly settled: Promise<void>;
  settle!: () => void;
  /** When it was sent first, and the newest version known then. */
  firstSentAtMs: number | undefined;
  knownVersion = 0;
  sends = 0;
  #bytes = 0;
  #flags = 0;
  /** What is written to each key, as far as a second writer must know. */
  readonly #kinds = new Map<string, 'set' | 'addition' | 'other'>();
  readonly #cleared: KeyRange[] = [];
  readonly #stampedRanges: KeyRange[] = [];
  readonly #pointT = new BinaryArray('int4');
  readonly #point = new BinaryArray('bytea');
  readonly #rangeT = new BinaryArray('int4', 64);
  readonly #rangeBegin = new BinaryArray('bytea', 64);
  readonly #rangeEnd = new BinaryArray('bytea', 64);
  readonly #writeT = new BinaryArray('int4');
  readonly #write = new BinaryArray('bytea', 1024);
  readonly #value = new BinaryArray('bytea', 2048);
  readonly #kind = new BinaryArray('int2');
  readonly #wideT = new BinaryArray('int4', 64);
  readonly #wideBegin = new BinaryArray('bytea', 64);
  readonly #wideEnd = new BinaryArray('bytea', 64);
  readonly #wideClears = new BinaryArray('bool', 64);
  readonly #operationT = new BinaryArray('int4', 64);
  readonly #operation = new BinaryArray('bytea', 64);
  readonly #operationKind = new BinaryArray('int2', 64);
  readonly #operand = new BinaryArray('int8', 64);
  readonly #stampedT = new BinaryArray('int4', 64);
  readonly #prefix = new BinaryArray('bytea', 64);
  readonly #suffix = new BinaryArray('bytea', 64);
  readonly #stampedValue = new BinaryArray('bytea', 64);

  constructor(
    /** 16 random bytes, hexadecimal: a UUID to the server. */
    readonly id: string,
  ) {
    this.settled = new Promise((resolve) => {
      this.settle = resolve;
    });
  }

  get byteLength(): number {
    return this.#bytes;
  }

  /** Whether a further transaction may come into this batch. */
  admits(request: CommitRequest): boolean {
    if (this.entries.length === 0) return true;
    if (this.entries.length >= maxTransactions || this.#bytes >= maxBytes) return false;
    const { writes } = request;
    for (const [key, write] of writes.points) {
      const before = this.#kinds.get(key);
      if (before !== undefined && (before === 'other' || before !== kindOf(key, write))) return false;
      for (const range of this.#cleared) if (rangeHolds(range, key)) return false;
    }
    for (const range of writes.clearedRanges) {
      if (this.#stampedRanges.some((other) => rangesMeet(range, other))) return false;
      for (const key of this.#kinds.keys()) if (rangeHolds(range, key)) return false;
    }
    for (const { prefix } of writes.stamped) {
      const range = stampedRange(prefix);
      if (this.#cleared.some((other) => rangesMeet(range, other))) return false;
    }
    return true;
  }

  /** Encodes one more transaction. */
  add(request: CommitRequest, entry: Entry): void {
    this.entries.push(entry);
    const t = this.entries.length;
    const { reads, writes, writeConflicts } = request;
    if (request.readVersion !== undefined) this.#addReads(t, reads.points, reads.ranges);
    for (const [key, write] of writes.points) this.#addWrite(t, key, write);
    for (const key of writeConflicts.points) this.#addPlain(t, key, writeKinds.touched, null);
    for (const range of writes.clearedRanges) {
      this.#addWide(t, range, true);
      this.#cleared.push(range);
    }
    for (const range of writeConflicts.ranges) this.#addWide(t, range, false);
    for (const { prefix, suffix, value } of writes.stamped) {
      this.#flags |= commitFlags.stamped;
      this.#noteLength(prefix.length + 10 + suffix.length);
      this.#stampedRanges.push(stampedRange(prefix));
      this.#stampedT.int4(t);
      this.#prefix.text(prefix);
      this.#suffix.text(suffix);
      this.#stampedValue.bytes(value);
      this.#bytes += prefix.length + suffix.length + value.length + 40;
    }
  }

  /** The arguments of the commit call. What was read below `validFrom` is too old. */
  arguments(payload: string, validFrom: number): (string | Buffer | null)[] {
    const read = new BinaryArray('int8', 64 + 12 * this.entries.length);
    let lowest = readNothing;
    for (const { readVersion } of this.entries) {
      const version = readVersion === undefined ? readNothing : readVersion < validFrom ? -1n : BigInt(readVersion);
      if (version < lowest) lowest = version;
      read.int8(version);
    }
    const known = this.sends > 0 ? String(this.knownVersion) : null;
    return [
      ...[this.id, known, String(this.#flags), String(lowest), read.take()],
      ...[this.#pointT, this.#point, this.#rangeT, this.#rangeBegin, this.#rangeEnd].map(take),
      ...[this.#writeT, this.#write, this.#value, this.#kind].map(take),
      ...[this.#wideT, this.#wideBegin, this.#wideEnd, this.#wideClears].map(take),
      ...[this.#operationT, this.#operation, this.#operationKind, this.#operand].map(take),
      ...[this.#stampedT, this.#prefix, this.#suffix, this.#stampedValue].map(take),
      payload,
    ];
  }

  #addReads(t: number, points: Iterable<string>, ranges: readonly KeyRange[]): void {
    for (const key of points) {
      this.#pointT.int4(t);
      // Compared with what was written, cut to the same length: rarely a conflict too many, never one too few.
      this.#point.text(cut(key));
      this.#bytes += key.length + 12;
    }
    for (const { begin, end } of ranges) {
      this.#rangeT.int4(t);
      this.#rangeBegin.text(cut(begin));
      this.#rangeEnd.text(end);
      this.#bytes += begin.length + end.length + 16;
    }
  }

  #addWrite(t: number, key: string, write: PointWrite): void {
    const kind = kindOf(key, write);
    if (kind === 'set' && this.#kinds.has(key)) this.#flags |= commitFlags.repeatedSets;
    this.#kinds.set(key, kind);
    if (write === null) this.#addPlain(t, key, writeKinds.clear, null);
    else if (Buffer.isBuffer(write)) this.#addPlain(t, key, writeKinds.set, write);
    else this.#addOperations(t, key, write as readonly AtomicOperation[], kind === 'addition');
  }

  #addPlain(t: number, key: string, kind: number, value: Buffer | null): void {
    if (kind === writeKinds.set) this.#flags |= commitFlags.sets;
    if (kind === writeKinds.clear) this.#flags |= commitFlags.clears;
    this.#noteLength(key.length);
    this.#writeT.int4(t);
    this.#write.text(key);
    this.#kind.int2(kind);
    if (value) this.#value.bytes(value);
    else this.#value.null();
    this.#bytes += key.length + (value?.length ?? 0) + 22;
  }

  #addOperations(t: number, key: string, operations: readonly AtomicOperation[], joined: boolean): void {
    this.#flags |= joined ? commitFlags.additions : commitFlags.operations;
    this.#noteLength(key.length);
    for (const { kind, operand } of operations) {
      this.#operationT.int4(t);
      this.#operation.text(key);
      this.#operationKind.int2(joined ? operationKinds.addition : operationKinds[kind]);
      this.#operand.int8(BigInt.asIntN(64, operand));
      this.#bytes += key.length + 30;
    }
  }

  #addWide(t: number, range: KeyRange, clears: boolean): void {
    this.#flags |= commitFlags.ranges;
    this.#wideT.int4(t);
    this.#wideBegin.text(range.begin);
    this.#wideEnd.text(range.end);
    this.#wideClears.bool(clears);
    this.#bytes += range.begin.length + range.end.length + 21;
  }

  #noteLength(keyBytes: number): void {
    if (keyBytes > maxPlainKeyBytes) this.#flags |= commitFlags.longKeys;
  }
}

/** Additions alone may be many on one key; longer keys take the slower way. */
function kindOf(key: string, write: PointWrite): 'set' | 'addition' | 'other' {
  if (write === null) return 'other';
  if (Buffer.isBuffer(write)) return 'set';
  const operations = write as readonly AtomicOperation[];
  return operations.length === 1 && operations[0]!.kind === 'add' && key.length <= maxPlainKeyBytes ? 'addition' : 'other';
}

function cut(key: string): string {
  return key.length > maxPlainKeyBytes ? key.slice(0, maxPlainKeyBytes) : key;
}

function take(array: BinaryArray): Buffer {
  return array.take();
}

/** What a key is called in notifications. */
export function keyHash(key: string): number {
  return crc32(key);
}
