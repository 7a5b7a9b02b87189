/**
 * Annotations of mailboxes and of the server (METADATA, RFC 5464): short values under slash-separated names. Those for all stand with the mailbox, in its
 * owner's account; those of one user stand in that user's account, also for a mailbox of somebody else, so that they go with the user.
 */
import { type KeyRange, keyItems } from '../keyspace.js';
import { changeAccount, type MailContext } from './context.js';
import { type MailboxId, MailError } from './contract.js';
import type { AccountKeys } from './keys.js';
import { type AnnotationChange, type AnnotationPlace, annotationLimits, type MailAnnotations } from './sharing-contract.js';

export function mailAnnotations(context: MailContext): MailAnnotations {
  const { kv, keysOf } = context;
  return {
    values: async (place, names) => {
      if (names.length === 0) return [];
      const keys = keysOf(place.accountId);
      return kv.read((reads) => reads.getMany(names.map((name) => keys.annotation(place.mailboxId, place.scope, name))));
    },
    beneath: async (place, name) => {
      const { begin, end } = rangeBeneath(keysOf(place.accountId), place, name);
      const rows = await kv.read((reads) => reads.getRange(begin, end));
      return rows.map(({ key, value }) => ({ name: annotationNameOf(key), value }));
    },
    write: (mailbox, changes) => writeAnnotations(context, mailbox, changes),
  };
}

/** Only what is asked for is read: one command may ask for many names. `0` is what comes after `/`. */
function rangeBeneath(keys: AccountKeys, { mailboxId, scope }: AnnotationPlace, name: string): KeyRange {
  if (name === '') return keys.annotationsOf(mailboxId, scope);
  return { begin: keys.annotation(mailboxId, scope, `${name}/`), end: keys.annotation(mailboxId, scope, `${name}0`) };
}

/** The name of an entry, of its key. */
function annotationNameOf(packed: Buffer): string {
  return keyItems(packed)[5] as string;
}

function checkLimits(changes: readonly AnnotationChange[]): void {
  for (const { name, value } of changes) {
    if (value && value.length > annotationLimits.maxValueBytes) throw new RangeError('the value of an annotation is too long');
    if (Buffer.byteLength(name) > annotationLimits.maxNameBytes) throw new RangeError('the name of an annotation is too long');
  }
}

async function writeAnnotations(
  context: MailContext,
  { accountId, mailboxId }: Omit<AnnotationPlace, 'scope'>,
  changes: readonly AnnotationChange[],
): Promise<void> {
  checkLimits(changes);
  await changeAccount(context, accountId, 'annotate', async (account) => {
    const { keys, reads } = account;
    const { begin, end } = keys.allAnnotationsOf(mailboxId);
    const [record, rows] = await Promise.all([
      mailboxId === '' ? undefined : reads.get(keys.mailbox(mailboxId)),
      reads.getRange(begin, end),
    ]);
    if (!record && mailboxId !== '' && changes.some(({ scope }) => scope === 'shared')) {
      throw new MailError('no-mailbox', 'there is no such mailbox');
    }
    const present = new Map(rows.map((row) => [row.key.toString('latin1'), row.value]));
    let isChanged = false;
    for (const { scope, name, value } of changes) {
      const key = keys.annotation(mailboxId, scope, name);
      const place = key.toString('latin1');
      const before = present.get(place);
      if (value ? before?.equals(value) : !before) continue;
      isChanged = true;
      if (value) {
        present.set(place, value);
        account.tx.set(key, value);
      } else {
        present.delete(place);
        account.tx.clear(key);
      }
    }
    checkCount([...present.keys()]);
    if (isChanged && record) account.log.push({ kind: 'mailbox-updated', mailboxId });
  });
}

/** Of each scope by itself, so that nobody uses up somebody else's. */
function checkCount(keys: readonly string[]): void {
  const counts: Record<string, number> = {};
  for (const place of keys) {
    const scope = keyItems(Buffer.from(place, 'latin1'))[4] as string;
    counts[scope] = (counts[scope] ?? 0) + 1;
  }
  if (Object.values(counts).some((count) => count > annotationLimits.maxEntries)) {
    throw new MailError('too-many', `a mailbox has at most ${annotationLimits.maxEntries} annotations`);
  }
}

/** All annotations of a mailbox that this account keeps. */
export function dropAnnotations(
  tx: { clearRange(begin: Uint8Array, end: Uint8Array): void },
  keys: AccountKeys,
  mailboxId: MailboxId,
): void {
  const { begin, end } = keys.allAnnotationsOf(mailboxId);
  tx.clearRange(begin, end);
}
