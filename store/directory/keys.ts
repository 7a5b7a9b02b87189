/**
 * Keys of the directory subspace. Addresses lie under their domain, so that one read tells whether a domain still has any.
 */
import { type KeyRange, key, keyItems, keysUnder, subspace } from '../keyspace.js';
import type { AccountId } from '../mail/contract.js';
import type { ParsedAddress } from './addresses.js';
import { writeLocal } from './addresses.js';

export const generationKey: Buffer = key(subspace.directory, 'generation');
export const domainKey = (name: string): Buffer => key(subspace.directory, 'domain', name);
export const accountKey = (id: AccountId): Buffer => key(subspace.directory, 'account', id);
export const addressKey = (domain: string, local: string): Buffer =>
  key(subspace.directory, 'address', domain, writeLocal(local));
export const addressKeyOf = (parsed: ParsedAddress): Buffer => addressKey(parsed.domain, parsed.local);
/** Members of a group or list, in parts. */
export const membersKey = (id: AccountId, part: number): Buffer => key(subspace.directory, 'members', id, part);
/** Accounts that are administrators; empty values. */
export const adminKey = (id: AccountId): Buffer => key(subspace.directory, 'admin', id);

export const domainRange = (): KeyRange => keysUnder(subspace.directory, 'domain');
export const accountRange = (): KeyRange => keysUnder(subspace.directory, 'account');
export const addressRange = (domain: string): KeyRange => keysUnder(subspace.directory, 'address', domain);
export const membersRange = (id: AccountId): KeyRange => keysUnder(subspace.directory, 'members', id);
export const allMembersRange = (): KeyRange => keysUnder(subspace.directory, 'members');
export const adminRange = (): KeyRange => keysUnder(subspace.directory, 'admin');

/** The last element of a key: a domain name, an account id. */
export const lastItem = (packed: Uint8Array): string => keyItems(packed).at(-1) as string;
/** Whose members a row holds. */
export const memberRowOwner = (packed: Uint8Array): AccountId => keyItems(packed)[2] as string;
