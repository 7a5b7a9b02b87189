/**
 * Chunks of an index snapshot: some thousand entries of a mailbox in columns, as bytes. Each chunk has its own tables, so that it can be read alone.
 * What ascends is written as differences, and the whole compressed. Pure.
 */
import { endianness } from 'node:os';
import lz4 from 'lz4-napi';
import type { ColumnSlice } from './index-columns.js';
import { packValue, unpackValue } from './records.js';

const format = 1;
/** Below the store's limit for one value. */
const maxChunkBytes = 90_000;
const entriesPerChunk = 2_048;
/** uids, ids (3 words and a byte), four numbers, flags, groups. */
const bytesPerEntry = 4 + 13 + 16 + 2 + 2;
/** Columns are written in this order of bytes: that of all machines that Starling runs on. */
export const canHoldSnapshots: boolean = endianness() === 'LE';

interface Tables {
  halves: number[];
  lists: (readonly string[])[];
  flags: Uint16Array;
  groups: Uint16Array;
}

/** The tables of the snapshot cut down to what these entries use, and their numbers in them. */
function ownTables(slice: ColumnSlice, begin: number, end: number): Tables {
  const tables: Tables = { halves: [], lists: [], flags: new Uint16Array(end - begin), groups: new Uint16Array(end - begin) };
  const listNumbers = new Map<number, number>();
  const groupNumbers = new Map<number, number>();
  for (let at = begin; at < end; at++) {
    const flags = slice.flags[at]!;
    let list = listNumbers.get(flags >>> 1);
    if (list === undefined) {
      list = tables.lists.push(slice.lists[flags >>> 1]!) - 1;
      listNumbers.set(flags >>> 1, list);
    }
    tables.flags[at - begin] = list * 2 + (flags & 1);
    const from = slice.groups[at]!;
    let group = groupNumbers.get(from);
    if (group === undefined) {
      group = tables.halves.push(...slice.halves.slice(from * 3, from * 3 + 3)) / 3 - 1;
      groupNumbers.set(from, group);
    }
    tables.groups[at - begin] = group;
  }
  return tables;
}

function differences(column: Uint32Array): Uint32Array {
  const out = new Uint32Array(column.length);
  let last = 0;
  for (let at = 0; at < column.length; at++) {
    const value = column[at]!;
    out[at] = value - last;
    last = value;
  }
  return out;
}

function sums(column: Uint32Array): Uint32Array {
  let last = 0;
  for (let at = 0; at < column.length; at++) {
    last = (last + column[at]!) >>> 0;
    column[at] = last;
  }
  return column;
}

function encodeChunk(slice: ColumnSlice, begin: number, end: number): Buffer {
  const { halves, lists, flags, groups } = ownTables(slice, begin, end);
  const part = <T extends Uint32Array | Uint8Array>(column: T) => column.subarray(begin, end) as T;
  const [first, second, third, last] = slice.ids.map(part) as [Uint32Array, Uint32Array, Uint32Array, Uint8Array];
  const [modseqs, received, saved, sizes] = slice.numbers.map(part) as [Uint32Array, Uint32Array, Uint32Array, Uint32Array];
  const columns = [
    ...[differences(part(slice.uids)), differences(first), second, third, last],
    ...[differences(modseqs), differences(received), differences(saved), sizes, flags, groups],
  ];
  const body = Buffer.concat(columns.map((column) => Buffer.from(column.buffer, column.byteOffset, column.byteLength)));
  const others = slice.others
    .filter(({ place }) => place >= begin && place < end)
    .flatMap(({ place, id }) => [place - begin, id]);
  return packValue([format, end - begin, others, halves, lists, lz4.compressSync(body)]);
}

/** The chunks of all entries, one after another, as they are asked for; `from` on, so that the work can be spread. */
export function* encodeChunks(slice: ColumnSlice): Generator<Buffer, void, undefined> {
  const { length } = slice.uids;
  for (let begin = 0; begin < length; begin += entriesPerChunk)
    yield* split(slice, begin, Math.min(begin + entriesPerChunk, length));
}

/** Entries with many long keywords may need smaller chunks. */
function* split(slice: ColumnSlice, begin: number, end: number): Generator<Buffer, void, undefined> {
  const chunk = encodeChunk(slice, begin, end);
  if (chunk.length <= maxChunkBytes || end - begin === 1) {
    yield chunk;
    return;
  }
  const middle = (begin + end) >>> 1;
  yield* split(slice, begin, middle);
  yield* split(slice, middle, end);
}

/** Throws for anything that `encodeChunks` did not make. */
export function decodeChunk(chunk: Buffer): ColumnSlice {
  const [, count, others, halves, lists, packed] = unpackValue(chunk, 'index chunk') as [
    number,
    number,
    (number | string)[],
    number[],
    string[][],
    Buffer,
  ];
  const body = lz4.uncompressSync(packed);
  if (body.length !== count * bytesPerEntry) throw new Error('a chunk of an index snapshot has another length than it says');
  let at = 0;
  const bytes = (width: number) => {
    // In memory of its own, because columns must begin at a multiple of their width.
    const own = new Uint8Array(count * width);
    own.set(body.subarray(at, at + own.length));
    at += own.length;
    return own;
  };
  const words = () => new Uint32Array(bytes(4).buffer);
  const uids = sums(words());
  const ids = [sums(words()), words(), words(), bytes(1)];
  const numbers = [sums(words()), sums(words()), sums(words()), words()];
  const flags = Uint32Array.from(new Uint16Array(bytes(2).buffer));
  const groups = Uint32Array.from(new Uint16Array(bytes(2).buffer));
  for (let i = 0; i < count; i++) {
    if (flags[i]! >>> 1 >= lists.length || groups[i]! * 3 >= halves.length) throw new Error('a chunk lacks a table entry');
  }
  const odd: ColumnSlice['others'] = [];
  for (let i = 0; i < others.length; i += 2) odd.push({ place: others[i] as number, id: others[i + 1] as string });
  return { uids, ids, others: odd, numbers, flags, groups, halves, lists: lists.map((list) => Object.freeze(list)) };
}
