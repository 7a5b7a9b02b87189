/** STATUS (RFC 9051 6.3.11; HIGHESTMODSEQ: RFC 7162; MAILBOXID: RFC 8474; APPENDLIMIT: RFC 7889). */
import type { Mailbox, MailboxCounts } from '../../../store/mail/contract.js';
import { type Command, loggedIn } from '../command.js';
import type { SessionContext } from '../context.js';
import type { Cursor } from '../grammar/cursor.js';
import { no, ok } from '../replies.js';

type Valuer = (context: SessionContext, mailbox: Mailbox, counts: MailboxCounts) => string | number;

const values: Record<string, Valuer> = {
  MESSAGES: (_context, _mailbox, counts) => counts.total,
  UIDNEXT: (_context, _mailbox, counts) => counts.uidNext,
  UIDVALIDITY: (_context, mailbox) => mailbox.uidValidity,
  UNSEEN: (_context, _mailbox, counts) => counts.unseen,
  DELETED: (_context, _mailbox, counts) => counts.deleted,
  SIZE: (_context, _mailbox, counts) => counts.bytes,
  // No message is ever \Recent: the flag is gone from IMAP4rev2.
  RECENT: () => 0,
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
export function formatStatus(context: SessionContext, mailbox: Mailbox, counts: MailboxCounts, items: readonly string[]): string {
  const pairs = items.map((item) => `${item} ${values[item]!(context, mailbox, counts)}`);
  return `STATUS ${context.mailboxText(mailbox.path)} (${pairs.join(' ')})`;
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
    const found = await context.services.mail.mailboxByPath(context.accountId, path);
    if (!found) return no('No such mailbox', 'NONEXISTENT');
    context.untagged(formatStatus(context, found.mailbox, found.counts, items));
    return ok('STATUS completed');
  },
};
