/**
 * Which accounts have mail that the full-text index does not know yet: one row per account, written blindly with every transaction that makes messages,
 * and taken away by whoever has indexed all of them. Spread over slots, so that no end of a range is hot and nodes can share the accounts.
 */
import { type KeyRange, key, keyItems, keysUnder, subspace } from '../keyspace.js';
import type { KvReads, KvStore, KvTransaction } from '../kv/contract.js';
import type { AccountId } from '../mail/contract.js';
import { hash32 } from '../queue/shards.js';

/** As many as the queue has shards, so that the same sharing among the nodes serves both. */
const pendingSlots = 64;

/** The slot of an account, 0 to 63. */
export const pendingSlotOf = (accountId: AccountId): number => hash32(accountId) % pendingSlots;

/** The account's row. */
export const pendingKey = (accountId: AccountId): Buffer => key(subspace.indexing, pendingSlotOf(accountId), accountId);

const slotRange = (slot: number): KeyRange => keysUnder(subspace.indexing, slot);

function modseqBytes(modseq: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(modseq));
  return bytes;
}

const modseqOf = (value: Buffer): number => (value.length === 8 ? Number(value.readBigUInt64BE()) : 0);

/** Notes that the index must look at changes up to `modseq`. `row` is the account's `pendingKey`. No read, no conflict. */
export function notePending(tx: KvTransaction, row: Buffer, modseq: number): void {
  tx.set(row, modseqBytes(modseq));
}

export interface PendingAccount {
  accountId: AccountId;
  /** The latest modseq that brought messages, or took the account away. */
  modseq: number;
}

/** Accounts with work in these slots, at most `limit`, slot by slot. */
export async function pendingAccounts(
  kv: Pick<KvStore, 'read'>,
  slots: readonly number[],
  limit: number,
): Promise<PendingAccount[]> {
  const ranges = joined(slots);
  return kv.read(
    async (reads) => {
      const rows = await Promise.all(ranges.map(({ begin, end }) => reads.getRange(begin, end, { limit })));
      const found = rows.flat().slice(0, limit);
      return found.map((row) => ({ accountId: String(keyItems(row.key)[2]), modseq: modseqOf(row.value) }));
    },
    { label: 'search-pending' },
  );
}

/** One range for slots that follow one another. */
function joined(slots: readonly number[]): KeyRange[] {
  const ranges: KeyRange[] = [];
  let last: number | undefined;
  for (const slot of slots) {
    const range = slotRange(slot);
    const before = ranges.at(-1);
    if (before && last !== undefined && slot === last + 1) before.end = range.end;
    else ranges.push(range);
    last = slot;
  }
  return ranges;
}

/** Whether an account has work. */
export async function isPending(reads: KvReads, accountId: AccountId): Promise<boolean> {
  return (await reads.get(pendingKey(accountId))) !== undefined;
}

/** Takes the row away unless it names a later modseq than the one that is done. Answers whether nothing is left to do. */
export function clearPending(kv: Pick<KvStore, 'transact'>, accountId: AccountId, doneUpTo: number): Promise<boolean> {
  const row = pendingKey(accountId);
  return kv.transact(
    async (tx) => {
      const value = await tx.get(row);
      if (!value) return true;
      if (modseqOf(value) > doneUpTo) return false;
      tx.clear(row);
      return true;
    },
    { label: 'search-settle' },
  );
}
