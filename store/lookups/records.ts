/** Entries of look-up lists as they are stored. */
import { Packr } from 'msgpackr';
import { subspace } from '../keyspace.js';
import type { ExpiringTable } from '../limits/expiring.js';

const formatVersion = 1;
const packr = new Packr({ useRecords: false });

export interface StoredEntry {
  value: string;
  expiresAtMs: number | undefined;
}

export function encodeEntry({ value, expiresAtMs }: StoredEntry): Buffer {
  return packr.pack([formatVersion, value, expiresAtMs ?? null]);
}

/** Throws for a format that this node does not know. */
export function decodeEntry(value: Buffer): StoredEntry {
  const fields = packr.unpack(value) as unknown;
  if (!Array.isArray(fields) || fields[0] !== formatVersion) throw new Error('unknown format of a look-up entry');
  return { value: fields[1] as string, expiresAtMs: (fields[2] as number | null) ?? undefined };
}

/** (lookups, 'entry', list, key) → [1, value, expires at (ms) or null]. */
export const entryTable: ExpiringTable = {
  space: subspace.lookups,
  table: 'entry',
  expiresAtMs: (_items, value) => decodeEntry(value).expiresAtMs ?? Number.POSITIVE_INFINITY,
};
