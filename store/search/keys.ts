/** Keys of one account's index; the tuples are those of `store/keyspace.ts`. */
import { type KeyRange, key, keyItems, keysFrom, keysUnder, subspace } from '../keyspace.js';
import type { AccountId } from '../mail/contract.js';

const headTable = 'head';
const looseTable = 'loose';
const blockTable = 'block';

/** What is being written, is replaced, and stands in the index. Segments have ids of 16 hexadecimal digits. */
export const searchKeys = {
  head: (accountId: AccountId): Buffer => key(subspace.search, accountId, headTable),
  loose: (accountId: AccountId, segmentId: string): Buffer => key(subspace.search, accountId, looseTable, segmentId),
  block: (accountId: AccountId, segmentId: string, nth: number): Buffer =>
    key(subspace.search, accountId, blockTable, segmentId, nth),
  allLoose: (accountId: AccountId): KeyRange => keysUnder(subspace.search, accountId, looseTable),
  allBlocks: (accountId: AccountId): KeyRange => keysUnder(subspace.search, accountId, blockTable),
  blocksOf: (accountId: AccountId, segmentId: string): KeyRange => keysUnder(subspace.search, accountId, blockTable, segmentId),
  account: (accountId: AccountId): KeyRange => keysUnder(subspace.search, accountId),
  all: (): KeyRange => keysFrom(key(subspace.search)),
} as const;

export const accountOf = (packed: Uint8Array): AccountId => keyItems(packed)[1] as AccountId;

/** The segment of a block's key, or of a loose segment's. */
export const segmentIdOf = (packed: Uint8Array): string => keyItems(packed)[3] as string;
