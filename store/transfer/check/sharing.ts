/**
 * Checks what an account shares and annotates: lists belong to mailboxes and agree with the notes of the grantees, both ways; annotations, and marks of what is
 * \Recent, belong to mailboxes.
 * All of it may be mended: a node of an earlier release leaves such rows behind when it removes a mailbox. Not a part of the account's own counts, so that each
 * row is simply looked at again before it is called wrong.
 */
import { type KeyRange, keyItems } from '../../keyspace.js';
import { type KeyValue, type KvReads, keyAfter } from '../../kv/contract.js';
import { decodeAcl, granteeOf } from '../../mail/acl.js';
import { AccountKeys } from '../../mail/keys.js';
import { dropAcl, grantOf } from '../../mail/sharing.js';
import type { Inspection } from './inspection.js';

const area = 'mail';
const rowsPerPage = 500;

export async function checkSharing(inspection: Inspection, keys: AccountKeys): Promise<void> {
  await each(inspection, keys.allAcls, (row) => checkList(inspection, keys, row));
  await each(inspection, keys.allGranted, (row) => checkNote(inspection, keys, row));
  await each(inspection, keys.allAnnotations, (row) => checkAnnotation(inspection, keys, row));
  await each(inspection, keys.allRecents, (row) => checkMark(inspection, keys, row));
}

async function each(inspection: Inspection, range: KeyRange, visit: (row: KeyValue) => Promise<void>): Promise<void> {
  for (let begin = range.begin; ; ) {
    const from = begin;
    const rows = await inspection.read((reads) => reads.getRange(from, range.end, { limit: rowsPerPage }));
    for (const row of rows) await visit(row);
    inspection.progress(area, 0);
    if (rows.length < rowsPerPage) return;
    begin = keyAfter(rows.at(-1)!.key);
  }
}

async function checkList(inspection: Inspection, keys: AccountKeys, { key, value }: KeyValue): Promise<void> {
  const id = keys.aclOf(key);
  const where = keys.accountId;
  const isOrphan = async (reads: KvReads) => {
    const [list, mailbox] = await reads.getMany([key, keys.mailbox(id)]);
    return list !== undefined && mailbox === undefined;
  };
  if (await inspection.read(isOrphan)) {
    const problem = `there is an access control list, but no mailbox ${id}`;
    return inspection.suspect({ area, where, problem, isSo: isOrphan, mend: (tx) => dropAcl(tx, tx, keys, id) });
  }
  const grantees = new Set(decodeAcl(value).map(({ identifier }) => granteeOf(identifier)));
  for (const grantee of grantees) {
    if (grantee === undefined) continue;
    const note = keys.grantedTo(grantee, id);
    const isMissing = async (reads: KvReads) => {
      const [list, found] = await reads.getMany([key, note]);
      return found === undefined && names(list, grantee);
    };
    if (!(await inspection.read(isMissing))) continue;
    const problem = `mailbox ${id} is granted to ${grantee}, who does not find it`;
    await inspection.suspect({ area, where, problem, isSo: isMissing, mend: (tx) => tx.set(note, Buffer.alloc(0)) });
  }
}

function names(list: Buffer | undefined, grantee: string): boolean {
  return decodeAcl(list).some(({ identifier }) => granteeOf(identifier) === grantee);
}

async function checkNote(inspection: Inspection, keys: AccountKeys, { key }: KeyValue): Promise<void> {
  const { accountId: ownerId, mailboxId } = grantOf(key);
  const list = new AccountKeys(ownerId).acl(mailboxId);
  const isStale = async (reads: KvReads) => {
    const [note, value] = await reads.getMany([key, list]);
    return note !== undefined && !names(value, keys.accountId);
  };
  if (!(await inspection.read(isStale))) return;
  const problem = `there is a note that mailbox ${mailboxId} of ${ownerId} was granted, which it was not`;
  await inspection.suspect({ area, where: keys.accountId, problem, isSo: isStale, mend: (tx) => tx.clear(key) });
}

async function checkAnnotation(inspection: Inspection, keys: AccountKeys, { key }: KeyValue): Promise<void> {
  const [, , , id, scope] = keyItems(key) as string[];
  // Private ones may be about a mailbox of somebody else.
  if (scope !== 'shared' || id === '') return;
  await checkOwned(inspection, keys, key, id!, 'an annotation');
}

async function checkMark(inspection: Inspection, keys: AccountKeys, { key }: KeyValue): Promise<void> {
  await checkOwned(inspection, keys, key, keys.recentOf(key), 'a mark of what is recent');
}

/** A row that has no meaning without its mailbox. */
async function checkOwned(inspection: Inspection, keys: AccountKeys, key: Buffer, id: string, what: string): Promise<void> {
  const isOrphan = async (reads: KvReads) => {
    const [row, mailbox] = await reads.getMany([key, keys.mailbox(id)]);
    return row !== undefined && mailbox === undefined;
  };
  if (!(await inspection.read(isOrphan))) return;
  const problem = `there is ${what}, but no mailbox ${id}`;
  await inspection.suspect({ area, where: keys.accountId, problem, isSo: isOrphan, mend: (tx) => tx.clear(key) });
}
