/**
 * Mailboxes shared with others: their access control lists, the notes by which a grantee finds what was granted without looking through all accounts, and
 * subscriptions to mailboxes that are not (or no longer) one's own.
 *
 * A note (`granted`) is written in the transaction of the list that it follows from. One that is stale (a node of an earlier release has removed the
 * mailbox) gives nothing: rights come from the list alone. Whoever meets it clears it.
 */
import { keyItems } from '../keyspace.js';
import type { KvReads, KvTransaction } from '../kv/contract.js';
import type { AccountChanges } from './account-changes.js';
import { changedAcl, decodeAcl, encodeAcl, granteeOf } from './acl.js';
import { changeAccount, type MailContext } from './context.js';
import { type AccountId, type MailboxId, MailError } from './contract.js';
import type { AccountKeys } from './keys.js';
import { packValue, unpackValue } from './records.js';
import {
  type AclChange,
  type AclEntry,
  type AclIdentifier,
  aclLimits,
  type MailboxOf,
  type MailSharing,
  type OtherSubscription,
} from './sharing-contract.js';

const format = 1;
const grantsPerRead = 1_000;
/** Subscriptions to mailboxes that are not one's own or are gone. */
const maxOtherSubscriptions = 10_000;

export function mailSharing(context: MailContext): MailSharing {
  const { kv, keysOf } = context;
  return {
    acls: async (accountId, mailboxIds) => {
      if (mailboxIds.length === 0) return [];
      const keys = keysOf(accountId);
      const values = await kv.read((reads) => reads.getMany(mailboxIds.map((id) => keys.acl(id))));
      return values.map(decodeAcl);
    },
    changeAcl: (accountId, mailboxId, identifier, change) => changeAcl(context, accountId, mailboxId, identifier, change),
    grants: (grantees) => readGrants(context, grantees),
    forgetIfGone: (grantees, grant) => forgetIfGone(context, grantees, grant),
    otherSubscriptions: (accountId) => kv.read((reads) => readOtherSubscriptions(reads, keysOf(accountId))),
    subscribeOther: (accountId, subscription) => subscribeOther(context, accountId, subscription),
    unsubscribeOther: (accountId, { accountId: ownerId, mailboxId }) =>
      kv.transact(async (tx) => tx.clear(keysOf(accountId).subscription(ownerId, mailboxId)), { label: 'mail-subscribe' }),
  };
}

async function changeAcl(
  context: MailContext,
  accountId: AccountId,
  mailboxId: MailboxId,
  identifier: AclIdentifier,
  change: AclChange,
): Promise<void> {
  await changeAccount(context, accountId, 'acl', async (account) => {
    const [record, value] = await account.reads.getMany([account.keys.mailbox(mailboxId), account.keys.acl(mailboxId)]);
    if (!record) throw new MailError('no-mailbox', 'there is no such mailbox');
    const before = decodeAcl(value);
    const after = changedAcl(before, identifier, change);
    if (!after) return;
    if (after.length > aclLimits.maxEntries) {
      throw new MailError('too-many', `a mailbox is shared with at most ${aclLimits.maxEntries} others`);
    }
    writeAcl(account.tx, account.keys, mailboxId, before, after);
    account.log.push({ kind: 'mailbox-updated', mailboxId });
  });
}

/** Writes a list with its notes. */
function writeAcl(
  tx: KvTransaction,
  keys: AccountKeys,
  mailboxId: MailboxId,
  before: readonly AclEntry[],
  after: readonly AclEntry[],
): void {
  if (after.length > 0) tx.set(keys.acl(mailboxId), encodeAcl(after));
  else tx.clear(keys.acl(mailboxId));
  const [old, now] = [granteesOf(before), granteesOf(after)];
  for (const grantee of old) if (!now.has(grantee)) tx.clear(keys.grantedTo(grantee, mailboxId));
  for (const grantee of now) if (!old.has(grantee)) tx.set(keys.grantedTo(grantee, mailboxId), noBytes);
}

const noBytes = Buffer.alloc(0);

function granteesOf(entries: readonly AclEntry[]): Set<string> {
  const grantees = new Set<string>();
  for (const { identifier } of entries) {
    const grantee = granteeOf(identifier);
    if (grantee !== undefined) grantees.add(grantee);
  }
  return grantees;
}

/** A new mailbox begins with the list of the one that it is in. */
export function inheritAcl(account: AccountChanges, mailboxId: MailboxId, parentAcl: Buffer | undefined): void {
  if (parentAcl) writeAcl(account.tx, account.keys, mailboxId, [], decodeAcl(parentAcl));
}

/** Removes the list of a mailbox that goes, with its notes. */
export async function dropAcl(tx: KvTransaction, reads: KvReads, keys: AccountKeys, mailboxId: MailboxId): Promise<void> {
  const value = await reads.get(keys.acl(mailboxId));
  if (value) writeAcl(tx, keys, mailboxId, decodeAcl(value), []);
}

async function readGrants({ kv, keysOf }: MailContext, grantees: readonly string[]): Promise<MailboxOf[]> {
  const found = new Map<string, MailboxOf>();
  for (const grantee of grantees) {
    const { begin, end } = keysOf(grantee).allGranted;
    for (let from = begin; ; ) {
      const at = from;
      const rows = await kv.read((reads) => reads.getRange(at, end, { limit: grantsPerRead }));
      for (const row of rows) {
        const grant = grantOf(row.key);
        found.set(`${grant.accountId}/${grant.mailboxId}`, grant);
      }
      if (rows.length < grantsPerRead) break;
      from = Buffer.concat([rows.at(-1)!.key, Buffer.of(0)]);
    }
  }
  return [...found.values()];
}

/** Who has granted what, of a note's key. */
export function grantOf(packed: Buffer): MailboxOf {
  const [, , , accountId, mailboxId] = keyItems(packed) as [number, string, string, string, string];
  return { accountId, mailboxId };
}

async function forgetIfGone({ kv, keysOf }: MailContext, grantees: readonly string[], grant: MailboxOf): Promise<void> {
  const keys = keysOf(grant.accountId);
  await kv.transact(
    async (tx) => {
      if (await tx.get(keys.mailbox(grant.mailboxId))) return;
      for (const grantee of grantees) tx.clear(keys.grantedTo(grantee, grant.mailboxId));
      tx.clear(keys.acl(grant.mailboxId));
    },
    { label: 'mail-forget-grant' },
  );
}

async function readOtherSubscriptions(reads: KvReads, keys: AccountKeys): Promise<OtherSubscription[]> {
  const rows = await reads.getRange(keys.allSubscriptions.begin, keys.allSubscriptions.end);
  return rows.map(({ key, value }) => ({ ...grantOf(key), path: unpackValue(value, 'subscription').slice(1) as string[] }));
}

async function subscribeOther(context: MailContext, accountId: AccountId, subscription: OtherSubscription): Promise<void> {
  const keys = context.keysOf(accountId);
  const { begin, end } = keys.allSubscriptions;
  await context.kv.transact(
    async (tx) => {
      const key = keys.subscription(subscription.accountId, subscription.mailboxId);
      if (!(await tx.get(key))) {
        const others = await tx.snapshot.getRange(begin, end, { limit: maxOtherSubscriptions });
        if (others.length >= maxOtherSubscriptions) throw new MailError('too-many', 'too many subscriptions');
      }
      tx.set(key, packValue([format, ...subscription.path]));
    },
    { label: 'mail-subscribe' },
  );
}

/** The subscription of an own mailbox that goes is kept by its name. */
export function keepSubscription(account: AccountChanges, mailboxId: MailboxId, path: readonly string[]): void {
  account.tx.set(account.keys.subscription(account.accountId, mailboxId), packValue([format, ...path]));
}

/** Ends the subscription of an earlier mailbox of this name; answers whether there was one. */
export async function takeUpSubscription(account: AccountChanges, path: readonly string[]): Promise<boolean> {
  const { begin, end } = account.keys.subscriptionsTo(account.accountId);
  const rows = await account.reads.getRange(begin, end);
  let found = false;
  for (const { key, value } of rows) {
    const kept = unpackValue(value, 'subscription').slice(1) as string[];
    if (kept.length !== path.length || kept.some((name, depth) => name !== path[depth])) continue;
    account.tx.clear(key);
    found = true;
  }
  return found;
}

const removalsPerStep = 50;
/** Of the lists that one step clears: a list of a thousand names has a thousand notes, and they must fit a transaction. */
const clearedNamesPerStep = 2_000;

/**
 * One step of taking a removed account out of all sharing: its own lists go with their notes, and lists of others no longer name it. Answers whether there is
 * more to do.
 */
export async function sharingRemovalStep(context: MailContext, accountId: AccountId): Promise<boolean> {
  const keys = context.keysOf(accountId);
  const moreLists = await context.kv.transact(
    async (tx) => {
      const rows = await tx.getRange(keys.allAcls.begin, keys.allAcls.end, { limit: removalsPerStep });
      let names = 0;
      for (const { key, value } of rows) {
        const list = decodeAcl(value);
        names += list.length;
        if (names > clearedNamesPerStep && names > list.length) return true;
        writeAcl(tx, keys, keys.aclOf(key), list, []);
      }
      return rows.length === removalsPerStep;
    },
    { label: 'mail-remove-account' },
  );
  const { begin, end } = keys.allGranted;
  const notes = await context.kv.read((reads) => reads.getRange(begin, end, { limit: removalsPerStep }));
  for (const { key } of notes) {
    const grant = grantOf(key);
    for (const kind of ['user', 'group'])
      for (const sign of ['', '-']) await revoke(context, grant, `${sign}${kind}:${accountId}`);
    await context.kv.transact(async (tx) => tx.clear(key), { label: 'mail-remove-account' });
  }
  return moreLists || notes.length === removalsPerStep;
}

async function revoke(context: MailContext, grant: MailboxOf, identifier: AclIdentifier): Promise<void> {
  try {
    await changeAcl(context, grant.accountId, grant.mailboxId, identifier, { mode: 'replace', rights: [] });
  } catch (error) {
    // The mailbox, or its account, is gone: so is the grant.
    if (!(error instanceof MailError && error.code === 'no-mailbox')) throw error;
  }
}
