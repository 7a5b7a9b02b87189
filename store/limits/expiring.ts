/**
 * Tables whose records end by themselves. Beside each record lies a row in an index by the hour in which it was to end when it was made; whoever purges
 * looks at the record again, and moves the row when the record lives longer. So using a record costs nothing beyond its own write.
 */
import { type KeyItem, key, keyItems, subspace } from '../keyspace.js';
import type { KvStore, KvTransaction } from '../kv/contract.js';

const { limits } = subspace;
const hourMs = 3_600_000;
const pageRows = 500;
const empty = Buffer.alloc(0);

/**
 * So much longer is everything kept: the clock of the node that purges may be ahead of those of the nodes that use the records (TRAPS 20), and to forget a
 * counter that is still in use would give its allowance a second time.
 */
export const purgeGraceMs = 6 * hourMs;

export interface ExpiringTable {
  /** Subspace. Default: limits. */
  space?: number;
  /** Second item of the records' keys. The index lies under the same name with `-expiry`. */
  table: string;
  /** When the record is over; Infinity for never. Throws for what it can't read (written by a newer node): that is left for a day, and looked at again. */
  expiresAtMs(items: readonly KeyItem[], value: Buffer): number;
}

/** Key of a record; `items` are what follows the table's name. */
export const recordKey = ({ space = limits, table }: ExpiringTable, ...items: KeyItem[]): Buffer => key(space, table, ...items);

/** To be called in the transaction that makes a record where there was none, or makes one end that did not. */
export function indexExpiry(
  tx: KvTransaction,
  { space = limits, table }: ExpiringTable,
  items: readonly KeyItem[],
  expiresAtMs: number,
): void {
  tx.set(key(space, `${table}-expiry`, slotOf(expiresAtMs), ...items), empty);
}

const slotOf = (timeMs: number): number => Math.max(0, Math.floor(timeMs / hourMs));

/** Asserted in each transaction of a purge; may throw. */
export type Assert = (tx: KvTransaction) => Promise<void>;

/** Removes what is over, page by page; may be cut off anywhere and goes on with what is left. Throws KvError and what `assert` throws. */
export async function purgeExpired(kv: KvStore, table: ExpiringTable, nowMs: number, assert?: Assert): Promise<number> {
  let removed = 0;
  for (;;) {
    const page = await kv.transact((tx) => purgePage(tx, table, nowMs, assert), { label: 'forget-limits' });
    removed += page.removed;
    if (page.rows < pageRows) return removed;
  }
}

async function purgePage(tx: KvTransaction, table: ExpiringTable, nowMs: number, assert: Assert | undefined) {
  await assert?.(tx);
  const overMs = nowMs - purgeGraceMs;
  const index = `${table.table}-expiry`;
  const { space = limits } = table;
  const end = key(space, index, slotOf(overMs));
  const rows = await tx.snapshot.getRange(key(space, index), end, { limit: pageRows });
  const found = rows.map((row) => keyItems(row.key).slice(3));
  const keys = found.map((items) => recordKey(table, ...items));
  // Records in use must not make the purge run again and again: only what is removed is read for good.
  const values = await tx.snapshot.getMany(keys);
  let removed = 0;
  for (const [i, items] of found.entries()) {
    tx.clear(rows[i]!.key);
    const value = values[i];
    const expiresAtMs = value ? readableExpiry(table, items, value, nowMs) : 0;
    if (Number.isFinite(expiresAtMs) && slotOf(expiresAtMs) >= slotOf(overMs)) {
      indexExpiry(tx, table, items, expiresAtMs);
      continue;
    }
    tx.addReadConflictKey(keys[i]!);
    // Whoever makes an everlasting record end indexes it again.
    if (!value || expiresAtMs === Number.POSITIVE_INFINITY) continue;
    tx.clear(keys[i]!);
    removed++;
  }
  return { rows: rows.length, removed };
}

function readableExpiry(table: ExpiringTable, items: KeyItem[], value: Buffer, nowMs: number): number {
  try {
    return table.expiresAtMs(items, value);
  } catch {
    return nowMs + 24 * hourMs;
  }
}
