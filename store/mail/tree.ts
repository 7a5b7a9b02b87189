/** Reading mailboxes: records, counts, and the tree that parents and names make. */
import type { KvReads } from '../kv/contract.js';
import { type Mailbox, type MailboxCounts, type MailboxId, mailLimits } from './contract.js';
import type { AccountKeys } from './keys.js';
import { normalPath } from './names.js';
import { decodeCounts, decodeMailbox, type MailboxRecord, type StoredCounts } from './records.js';

export interface MailboxWithCounts {
  mailbox: Mailbox;
  counts: MailboxCounts;
}

/** Without what only the store needs. */
export function publicCounts(counts: StoredCounts): MailboxCounts {
  const { uidNext, total, unseen, deleted, bytes, highestModseq } = counts;
  return { uidNext, total, unseen, deleted, bytes, highestModseq };
}

function joined(record: MailboxRecord, path: string[], counts: StoredCounts): MailboxWithCounts {
  return { mailbox: { ...record, path }, counts: publicCounts(counts) };
}

export async function readRecords(reads: KvReads, keys: AccountKeys): Promise<MailboxRecord[]> {
  const rows = await reads.getRange(keys.allMailboxes.begin, keys.allMailboxes.end);
  return rows.map((row) => decodeMailbox(keys.mailboxOf(row.key), row.value));
}

/** INBOX first, then by sort order, then by name. */
function inOrder(a: MailboxRecord, b: MailboxRecord): number {
  const first = Number(b.role === 'inbox') - Number(a.role === 'inbox');
  return first || a.sortOrder - b.sortOrder || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
}

/** Records by their parents, each list in order. */
export function childrenByParent(records: readonly MailboxRecord[]): Map<string, MailboxRecord[]> {
  const children = new Map<string, MailboxRecord[]>();
  for (const record of records) {
    const siblings = children.get(record.parentId);
    if (siblings) siblings.push(record);
    else children.set(record.parentId, [record]);
  }
  for (const siblings of children.values()) siblings.sort(inOrder);
  return children;
}

/** All mailboxes with their counts, each parent right before its children. */
export async function readTree(reads: KvReads, keys: AccountKeys): Promise<MailboxWithCounts[]> {
  const [records, countRows] = await Promise.all([
    readRecords(reads, keys),
    reads.getRange(keys.allCounts.begin, keys.allCounts.end),
  ]);
  const counts = new Map(countRows.map((row) => [keys.countsOf(row.key), decodeCounts(row.value)]));
  const children = childrenByParent(records);
  const tree: MailboxWithCounts[] = [];
  const walk = (parentId: string, parentPath: readonly string[]) => {
    for (const record of children.get(parentId) ?? []) {
      const path = [...parentPath, record.name];
      const own = counts.get(record.id);
      if (own) tree.push(joined(record, path, own));
      walk(record.id, path);
    }
  };
  walk('', []);
  return tree;
}

/** Ids along a path as far as they exist, from the top down. */
export async function resolvePath(reads: KvReads, keys: AccountKeys, path: readonly string[]): Promise<MailboxId[]> {
  const ids: MailboxId[] = [];
  for (const name of path) {
    const id = await reads.get(keys.name(ids.at(-1) ?? '', name));
    if (!id) break;
    ids.push(id.toString('latin1'));
  }
  return ids;
}

/** The id at a path given in any spelling of INBOX and any Unicode form. */
export async function idAtPath(reads: KvReads, keys: AccountKeys, path: readonly string[]): Promise<MailboxId | undefined> {
  const normal = normalPath(path);
  if (normal.length === 0 || normal.length > mailLimits.maxMailboxDepth) return undefined;
  if (normal.some((name) => Buffer.byteLength(name) > mailLimits.maxMailboxNameBytes)) return undefined;
  const ids = await resolvePath(reads, keys, normal);
  return ids.length === normal.length ? ids.at(-1) : undefined;
}

export async function readMailbox(reads: KvReads, keys: AccountKeys, id: MailboxId): Promise<MailboxWithCounts | undefined> {
  const [record, counts] = await reads.getMany([keys.mailbox(id), keys.counts(id)]);
  if (!record || !counts) return undefined;
  const own = decodeMailbox(id, record);
  const path = [own.name];
  for (let parentId = own.parentId; parentId !== ''; ) {
    const value = await reads.get(keys.mailbox(parentId));
    if (!value) break;
    const parent = decodeMailbox(parentId, value);
    path.unshift(parent.name);
    parentId = parent.parentId;
  }
  return joined(own, path, decodeCounts(counts));
}
