/** Making, renaming and subscribing mailboxes; the first step of removing one. */
import type { AccountChanges } from './account-changes.js';
import { dropAnnotations } from './annotations.js';
import { type ChangeContext, changeAccount, type MailContext } from './context.js';
import { type AccountId, type Mailbox, type MailboxId, type MailboxRole, MailError, mailLimits } from './contract.js';
import { moveMessages } from './copy-move.js';
import { newMailboxId } from './ids.js';
import { checkedPath, isInbox, normalPath } from './names.js';
import { beginRecent } from './recent.js';
import { decodeMailbox, encodeMailbox, type MailboxRecord } from './records.js';
import { beginRemoval } from './removal.js';
import { dropAcl, inheritAcl, keepSubscription, takeUpSubscription } from './sharing.js';
import { childrenByParent, idAtPath, readRecords, resolvePath } from './tree.js';

const uidsPerRead = 5_000;

/** What of a mailbox may be changed without moving it. `role: null` takes the role away. */
export interface MailboxPatch {
  role?: MailboxRole | null;
  sortOrder?: number;
  isSubscribed?: boolean;
}

/** Writes record, name and counts of a new mailbox. */
export function addMailbox(account: AccountChanges, record: Omit<MailboxRecord, 'uidValidity'>): MailboxRecord {
  if (account.state.mailboxes >= mailLimits.maxMailboxes) {
    throw new MailError('too-many', `an account has at most ${mailLimits.maxMailboxes} mailboxes`);
  }
  const mailbox: MailboxRecord = { ...record, uidValidity: account.nextUidValidity() };
  account.tx.set(account.keys.mailbox(mailbox.id), encodeMailbox(mailbox));
  account.tx.set(account.keys.name(mailbox.parentId, mailbox.name), Buffer.from(mailbox.id, 'latin1'));
  account.addCounts(mailbox.id, mailbox.uidValidity);
  beginRecent(account.tx, account.keys, mailbox.id);
  account.state.mailboxes++;
  account.log.push({ kind: 'mailbox-created', mailboxId: mailbox.id });
  return mailbox;
}

function writeMailbox(account: AccountChanges, mailbox: MailboxRecord): void {
  account.tx.set(account.keys.mailbox(mailbox.id), encodeMailbox(mailbox));
  account.log.push({ kind: 'mailbox-updated', mailboxId: mailbox.id });
}

/**
 * Makes what is missing along a path. `ids` are those to give, chosen before the transaction. New mailboxes are shared as the one that they are in
 * (RFC 4314 leaves it to the server); the last of them is subscribed where an earlier mailbox of its name was.
 */
async function addPath(
  account: AccountChanges,
  path: readonly string[],
  existing: readonly MailboxId[],
  ids: readonly MailboxId[],
  role?: MailboxRole,
): Promise<MailboxRecord | undefined> {
  let parentId: MailboxId | '' = existing.at(-1) ?? '';
  let made: MailboxRecord | undefined;
  if (existing.length === path.length) return undefined;
  const parentAcl = parentId === '' ? undefined : await account.reads.get(account.keys.acl(parentId));
  const isSubscribed = await takeUpSubscription(account, path);
  for (let depth = existing.length; depth < path.length; depth++) {
    const record: Omit<MailboxRecord, 'uidValidity'> = {
      id: ids[depth]!,
      name: path[depth]!,
      parentId,
      isSubscribed: isSubscribed && depth === path.length - 1,
      sortOrder: 0,
    };
    if (role && depth === path.length - 1) record.role = role;
    made = addMailbox(account, record);
    inheritAcl(account, made.id, parentAcl);
    parentId = made.id;
  }
  return made;
}

async function checkRole(account: AccountChanges, role: MailboxRole | null | undefined, except?: MailboxId): Promise<void> {
  if (!role) return;
  const records = await readRecords(account.reads, account.keys);
  // RFC 8621 2: no two mailboxes of an account have the same role.
  if (records.some((record) => record.role === role && record.id !== except)) {
    throw new MailError('not-allowed', 'another mailbox has this role');
  }
}

export function createMailbox(
  context: MailContext,
  accountId: AccountId,
  givenPath: readonly string[],
  options: { role?: MailboxRole } = {},
): Promise<Mailbox> {
  const path = checkedPath(givenPath);
  const ids = path.map(() => newMailboxId(context.random));
  return changeAccount(context, accountId, 'create-mailbox', async (account) => {
    const existing = await resolvePath(account.reads, account.keys, path);
    if (existing.length === path.length) throw new MailError('mailbox-exists', 'there is a mailbox of this name');
    await checkRole(account, options.role);
    const made = (await addPath(account, path, existing, ids, options.role))!;
    return { ...made, path };
  });
}

async function needPath(account: AccountChanges, path: readonly string[]): Promise<MailboxRecord> {
  const id = await idAtPath(account.reads, account.keys, path);
  const value = id && (await account.reads.get(account.keys.mailbox(id)));
  if (!id || !value) throw new MailError('no-mailbox', 'there is no such mailbox');
  return decodeMailbox(id, value);
}

export async function renameMailbox(
  context: MailContext,
  accountId: AccountId,
  givenFrom: readonly string[],
  givenTo: readonly string[],
): Promise<void> {
  const from = normalPath(givenFrom);
  const to = checkedPath(givenTo);
  if (isInbox(from)) return renameInbox(context, accountId, to);
  const ids = to.map(() => newMailboxId(context.random));
  await changeAccount(context, accountId, 'rename-mailbox', async (account) => {
    const mailbox = await needPath(account, from);
    const existing = await resolvePath(account.reads, account.keys, to);
    if (existing.length === to.length) throw new MailError('mailbox-exists', 'there is a mailbox of this name');
    if (existing.includes(mailbox.id)) throw new MailError('not-allowed', 'a mailbox must not move beneath itself');
    await checkDepth(account, mailbox.id, to.length);
    const parents = to.slice(0, -1);
    const parentId = (await addPath(account, parents, existing, ids))?.id ?? existing.at(-1) ?? '';
    account.tx.clear(account.keys.name(mailbox.parentId, mailbox.name));
    account.tx.set(account.keys.name(parentId, to.at(-1)!), Buffer.from(mailbox.id, 'latin1'));
    writeMailbox(account, { ...mailbox, parentId, name: to.at(-1)! });
  });
}

async function checkDepth(account: AccountChanges, id: MailboxId, depth: number): Promise<void> {
  const children = childrenByParent(await readRecords(account.reads, account.keys));
  const height = (of: MailboxId): number =>
    (children.get(of) ?? []).reduce((most, child) => Math.max(most, 1 + height(child.id)), 0);
  if (depth + height(id) > mailLimits.maxMailboxDepth) {
    throw new MailError('bad-name', `mailboxes nest at most ${mailLimits.maxMailboxDepth} deep`);
  }
}

/** RFC 9051 6.3.6: INBOX and what is beneath it stay; its messages go into a new mailbox, in parts. */
async function renameInbox(context: MailContext, accountId: AccountId, to: readonly string[]): Promise<void> {
  const target = await createMailbox(context, accountId, to);
  const keys = context.keysOf(accountId);
  const inbox = await context.kv.read(async (reads) => idAtPath(reads, keys, ['INBOX']));
  if (!inbox) throw new MailError('no-mailbox', 'there is no INBOX');
  for (let fromUid = 0; ; ) {
    const { begin, end } = keys.entryRange(inbox, fromUid);
    const rows = await context.kv.read((reads) => reads.getRange(begin, end, { limit: uidsPerRead }));
    const uids = rows.map((row) => keys.uidOf(inbox, row.key));
    if (uids.length > 0) await moveMessages(context, accountId, inbox, uids, target.id);
    if (uids.length < uidsPerRead) return;
    fromUid = uids.at(-1)! + 1;
  }
}

/** Removes name, record and counts at once; answers the mailbox, whose entries are still to be cleared. */
export function dropMailbox(context: ChangeContext, accountId: AccountId, path: readonly string[]): Promise<MailboxId> {
  if (isInbox(path)) throw new MailError('not-allowed', 'INBOX stays');
  return changeAccount(context, accountId, 'delete-mailbox', async (account) => {
    const mailbox = await needPath(account, path);
    const { begin, end } = account.keys.namesUnder(mailbox.id);
    if ((await account.reads.getRange(begin, end, { limit: 1 })).length > 0) {
      throw new MailError('has-children', 'the mailbox has mailboxes beneath it');
    }
    account.tx.clear(account.keys.name(mailbox.parentId, mailbox.name));
    account.tx.clear(account.keys.mailbox(mailbox.id));
    account.removeCounts(mailbox.id);
    await dropAcl(account.tx, account.reads, account.keys, mailbox.id);
    dropAnnotations(account.tx, account.keys, mailbox.id);
    account.tx.clear(account.keys.recent(mailbox.id));
    // RFC 9051 6.3.7: a subscription outlives its mailbox.
    if (mailbox.isSubscribed) keepSubscription(account, mailbox.id, normalPath(path));
    account.state.mailboxes--;
    account.log.push({ kind: 'mailbox-destroyed', mailboxId: mailbox.id });
    await beginRemoval(account, mailbox.id);
    return mailbox.id;
  });
}

/** Changes role, order or subscription. Throws `no-mailbox`, and `not-allowed` for a role that is taken or INBOX's own. */
export function updateMailbox(context: MailContext, accountId: AccountId, id: MailboxId, patch: MailboxPatch): Promise<void> {
  return changeAccount(context, accountId, 'update-mailbox', async (account) => {
    const value = await account.reads.get(account.keys.mailbox(id));
    if (!value) throw new MailError('no-mailbox', 'there is no such mailbox');
    await patchMailbox(account, decodeMailbox(id, value), patch);
  });
}

export function setSubscribed(
  context: MailContext,
  accountId: AccountId,
  path: readonly string[],
  subscribed: boolean,
): Promise<void> {
  return changeAccount(context, accountId, 'subscribe', async (account) => {
    await patchMailbox(account, await needPath(account, path), { isSubscribed: subscribed });
  });
}

async function patchMailbox(account: AccountChanges, before: MailboxRecord, patch: MailboxPatch): Promise<void> {
  const after: MailboxRecord = { ...before };
  if (patch.isSubscribed !== undefined) after.isSubscribed = patch.isSubscribed;
  if (patch.sortOrder !== undefined) after.sortOrder = patch.sortOrder;
  if (patch.role !== undefined) {
    if (before.role === 'inbox' && patch.role !== 'inbox') throw new MailError('not-allowed', 'INBOX keeps its role');
    await checkRole(account, patch.role, before.id);
    if (patch.role === null) delete after.role;
    else after.role = patch.role;
  }
  const same = after.isSubscribed === before.isSubscribed && after.sortOrder === before.sortOrder && after.role === before.role;
  if (!same) writeMailbox(account, after);
}
