/** STATUS (RFC 9051 6.3.11; DELETED-STORAGE: RFC 9208 4.1.4; HIGHESTMODSEQ: RFC 7162; MAILBOXID: RFC 8474; APPENDLIMIT: RFC 7889). */
import type { Mailbox, MailboxCounts } from '../../../store/mail/contract.js';
import { type Command, loggedIn } from '../command.js';
import type { SessionContext } from '../context.js';
import type { Cursor } from '../grammar/cursor.js';
import { lowerBound } from '../grammar/sequence-set.js';
import { type MailboxPlace, requirePlace } from '../places.js';
import { ok } from '../replies.js';

/** What is looked for in the mailbox only where it is asked for. */
interface Looked {
  /** Of the messages that are \\Deleted. */
  deletedBytes: number;
  recent: number;
}

type Valuer = (context: SessionContext, mailbox: Mailbox, counts: MailboxCounts, looked: Looked) => string | number;

const nothing: Looked = { deletedBytes: 0, recent: 0 };

const values: Record<string, Valuer> = {
  MESSAGES: (_context, _mailbox, counts) => counts.total,
  UIDNEXT: (_context, _mailbox, counts) => counts.uidNext,
  UIDVALIDITY: (_context, mailbox) => mailbox.uidValidity,
  UNSEEN: (_context, _mailbox, counts) => counts.unseen,
  DELETED: (_context, _mailbox, counts) => counts.deleted,
  'DELETED-STORAGE': (_context, _mailbox, _counts, { deletedBytes }) => deletedBytes,
  SIZE: (_context, _mailbox, counts) => counts.bytes,
  RECENT: (_context, _mailbox, _counts, { recent }) => recent,
  HIGHESTMODSEQ: (_context, _mailbox, counts) => Math.max(1, counts.highestModseq),
  MAILBOXID: (_context, mailbox) => `(${mailbox.id})`,
  APPENDLIMIT: (context) => context.services.limits.grammar.maxMessageBytes,
};

/** `(MESSAGES UNSEEN …)` */
export function readStatusItems(cursor: Cursor): string[] {
  const items = cursor.list(() => {
    const item = cursor.word();
    if (!Object.hasOwn(values, item)) cursor.fail(`Unknown status item ${item.slice(0, 40)}`);
    return item;
  });
  return [...new Set(items)];
}

/** The untagged STATUS response. */
export function formatStatus(context: SessionContext, place: MailboxPlace, items: readonly string[], looked = nothing): string {
  const pairs = items.map((item) => `${item} ${values[item]!(context, place.mailbox, place.counts, looked)}`);
  return `STATUS ${context.mailboxText(place.path)} (${pairs.join(' ')})`;
}

/** The same, with what has to be read for it. */
export async function readStatus(context: SessionContext, place: MailboxPlace, items: readonly string[]): Promise<string> {
  const needsBytes = items.includes('DELETED-STORAGE') && place.counts.deleted > 0;
  const needsRecent = items.includes('RECENT') && place.counts.total > 0;
  const deletedBytes = needsBytes ? await deletedBytesIn(context, place) : 0;
  return formatStatus(context, place, items, { deletedBytes, recent: needsRecent ? await recentIn(context, place) : 0 });
}

async function deletedBytesIn(context: SessionContext, { accountId, mailbox }: MailboxPlace): Promise<number> {
  const index = await context.services.mail.openIndex(accountId, mailbox.id);
  try {
    await index.refresh();
    const view = index.view();
    let bytes = 0;
    for (let at = 0; at < view.uids.length; at++) if (view.isDeletedOf(view.flagsAt(at))) bytes += view.sizeBytesAt(at);
    return bytes;
  } finally {
    index.release();
  }
}

/** RFC 3501 6.3.10: asking does not take the mark away. */
async function recentIn(context: SessionContext, { accountId, mailbox, counts }: MailboxPlace): Promise<number> {
  const { mail } = context.services;
  const from = await mail.recent.from(accountId, mailbox.id);
  if (from === undefined || from >= counts.uidNext) return 0;
  const index = await mail.openIndex(accountId, mailbox.id);
  try {
    const uids = index.uids();
    return uids.length - lowerBound(uids, from);
  } finally {
    index.release();
  }
}

export const status: Command = {
  name: 'STATUS',
  states: loggedIn,
  async run(context, cursor) {
    cursor.space();
    const path = context.path(cursor.astring());
    cursor.space();
    const items = readStatusItems(cursor);
    cursor.end();
    // RFC 7162 3.1: asking for the modseq makes a client CONDSTORE-aware.
    if (items.includes('HIGHESTMODSEQ')) context.enabled.add('CONDSTORE');
    const place = requirePlace(await context.find(path), 'NONEXISTENT', 'r');
    context.untagged(await readStatus(context, place, items));
    return ok('STATUS completed');
  },
};
