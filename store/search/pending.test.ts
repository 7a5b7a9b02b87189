import { beforeEach, describe, expect, it } from 'vitest';
import type { KvStore } from '../kv/contract.js';
import { openMemoryStore } from '../kv/index.js';
import { allShards } from '../queue/index.js';
import { clearPending, isPending, notePending, pendingAccounts, pendingKey, pendingSlotOf } from './pending.js';

let kv: KvStore;

beforeEach(() => {
  kv = openMemoryStore();
});

const note = (accountId: string, modseq: number) => kv.transact(async (tx) => notePending(tx, pendingKey(accountId), modseq));

const accounts = Array.from({ length: 300 }, (_, index) => `account${index}`);

describe('notes of accounts with mail to index', () => {
  it('are found by slot', async () => {
    for (const [index, accountId] of accounts.entries()) await note(accountId, index + 1);
    const slots = allShards.filter((slot) => slot % 5 !== 0 || slot < 20);
    const found = await pendingAccounts(kv, slots, 1_000);
    const wanted = accounts.filter((accountId) => slots.includes(pendingSlotOf(accountId)));
    expect(found.map(({ accountId }) => accountId).sort()).toEqual(wanted.sort());
    expect(found.every(({ accountId, modseq }) => accounts[modseq - 1] === accountId)).toBe(true);
    expect(await pendingAccounts(kv, allShards, 1_000)).toHaveLength(300);
    expect(await pendingAccounts(kv, allShards, 7)).toHaveLength(7);
    expect(await pendingAccounts(kv, [], 7)).toEqual([]);
    expect(new Set(accounts.map(pendingSlotOf)).size).toBe(64);
  });

  it('go when all is done that they name, and stay when more has come', async () => {
    await note('account1', 5);
    await note('account1', 9);
    expect(await clearPending(kv, 'account1', 8)).toBe(false);
    expect(await kv.read((reads) => isPending(reads, 'account1'))).toBe(true);
    expect(await clearPending(kv, 'account1', 9)).toBe(true);
    expect(await kv.read((reads) => isPending(reads, 'account1'))).toBe(false);
    expect(await clearPending(kv, 'account1', 9)).toBe(true);
  });

  it('are not lost to whoever clears an earlier one at the same time', async () => {
    await note('account1', 5);
    let notedInBetween = false;
    const racing: Pick<KvStore, 'transact'> = {
      transact: (body, options) =>
        kv.transact(async (tx) => {
          const value = await body(tx);
          if (!notedInBetween) {
            notedInBetween = true;
            await note('account1', 6);
          }
          return value;
        }, options),
    };
    expect(await clearPending(racing, 'account1', 5)).toBe(false);
    expect(await pendingAccounts(kv, allShards, 9)).toEqual([{ accountId: 'account1', modseq: 6 }]);
  });
});
