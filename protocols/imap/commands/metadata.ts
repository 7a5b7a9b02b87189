/** GETMETADATA and SETMETADATA (RFC 5464). */
import { type AnnotationChange, annotationLimits, MailError } from '../../../store/mail/contract.js';
import { type Command, loggedIn } from '../command.js';
import type { SessionContext } from '../context.js';
import type { Cursor } from '../grammar/cursor.js';
import { ImapSyntaxError } from '../grammar/limits.js';
import {
  annotationPlace,
  emptyMetadataRequest,
  maxEntriesPerCommand,
  maySeeAnnotations,
  metadataOf,
  readEntries,
  readEntryName,
  readMetadataOptions,
  splitEntry,
} from '../metadata.js';
import { type MailboxPlace, requirePlace } from '../places.js';
import { no, ok, Refusal } from '../replies.js';

/** The mailbox of a name as it came; undefined for the server. Throws for one whose annotations this user may not see. */
async function placeOf(context: SessionContext, latin1: string): Promise<MailboxPlace | undefined> {
  if (latin1 === '') return undefined;
  const place = requirePlace(await context.find(context.path(latin1)), 'NONEXISTENT', 'l');
  if (!maySeeAnnotations(place.rights)) throw new Refusal(no('Permission denied', 'NOPERM'));
  return place;
}

export const getMetadata: Command = {
  name: 'GETMETADATA',
  states: loggedIn,
  async run(context, cursor) {
    const request = emptyMetadataRequest();
    cursor.space();
    // The grammar has the options in front of the mailbox, the examples of RFC 5464 behind it.
    if (readMetadataOptions(cursor, request)) cursor.space();
    const latin1 = cursor.astring();
    cursor.space();
    if (readMetadataOptions(cursor, request)) cursor.space();
    request.entries = readEntries(cursor);
    cursor.end();
    const place = await placeOf(context, latin1);
    const { response, longestBytes } = await metadataOf(context, place, request);
    if (response) context.untagged(response);
    return ok('GETMETADATA completed', longestBytes > 0 ? `METADATA LONGENTRIES ${longestBytes}` : undefined);
  },
};

interface EntryChange {
  entry: string;
  value: Buffer | undefined;
}

function readChange(cursor: Cursor): EntryChange {
  const entry = readEntryName(cursor);
  cursor.space();
  const value = cursor.nstring();
  return { entry, value: value === undefined ? undefined : Buffer.from(value, 'latin1') };
}

export const setMetadata: Command = {
  name: 'SETMETADATA',
  states: loggedIn,
  async run(context, cursor) {
    cursor.space();
    const latin1 = cursor.astring();
    cursor.space();
    let count = 0;
    const changes = cursor.list(() => {
      if (++count > maxEntriesPerCommand) throw new ImapSyntaxError('Too many entries', 'METADATA TOOMANY', 'NO');
      return readChange(cursor);
    });
    cursor.end();
    if (changes.some(({ value }) => value && value.length > annotationLimits.maxValueBytes))
      return no('The value is too long', `METADATA MAXSIZE ${annotationLimits.maxValueBytes}`);
    const place = await placeOf(context, latin1);
    const hasShared = changes.some(({ entry }) => splitEntry(entry).root === '/shared');
    // What all see of a mailbox is changed by those who may change its flags for all; of the server, by its administrator's settings.
    if (hasShared && !place?.rights.has('w')) return no('Permission denied', 'NOPERM');
    await write(context, place, changes);
    return ok('SETMETADATA completed');
  },
};

/** In one change, or, where the mailbox is somebody else's, in one for what all see and one for what is the user's own. */
async function write(context: SessionContext, place: MailboxPlace | undefined, changes: readonly EntryChange[]): Promise<void> {
  const byAccount = new Map<string, AnnotationChange[]>();
  const inOrder = [...changes].sort((one, other) => Number(isPrivate(one)) - Number(isPrivate(other)));
  for (const { entry, value } of inOrder) {
    const { root, name } = splitEntry(entry);
    const { accountId, scope } = annotationPlace(context, place, root);
    const list = byAccount.get(accountId);
    if (list) list.push({ scope, name, value });
    else byAccount.set(accountId, [{ scope, name, value }]);
  }
  for (const [accountId, list] of byAccount) {
    try {
      await context.services.mail.annotations.write({ accountId, mailboxId: place?.mailbox.id ?? '' }, list);
    } catch (error) {
      if (!(error instanceof MailError && error.code === 'too-many')) throw error;
      throw new Refusal(no('Too many annotations', 'METADATA TOOMANY'));
    }
  }
}

const isPrivate = ({ entry }: EntryChange) => splitEntry(entry).root === '/private';
