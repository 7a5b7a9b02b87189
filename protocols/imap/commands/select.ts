/** SELECT, EXAMINE (RFC 9051 6.3.2, 6.3.3; RFC 3501; CONDSTORE: RFC 7162 3.1.8), CLOSE and UNSELECT (6.4.1, 6.4.2). */
import type { MailboxIndex } from '../../../store/mail/contract.js';
import { type Command, loggedIn, withMailbox } from '../command.js';
import type { SessionContext } from '../context.js';
import { flagNames, systemFlags } from '../grammar/format.js';
import { no, ok, type Reply } from '../replies.js';
import { SelectedMailbox } from '../selected.js';

/** Keywords that are listed in FLAGS; there may be any number of others (`\*`). */
const commonKeywords = '$Forwarded $MDNSent $Junk $NotJunk $Phishing $Important';
const maxListedKeywords = 100;

function selecting(name: string, isReadOnly: boolean): Command {
  return {
    name,
    states: loggedIn,
    async run(context, cursor) {
      cursor.space();
      const path = context.path(cursor.astring());
      if (cursor.takes(' ')) {
        cursor.list(() => {
          const parameter = cursor.word();
          if (parameter !== 'CONDSTORE') cursor.fail(`Unknown parameter ${parameter.slice(0, 40)}`);
          context.enabled.add('CONDSTORE');
        });
      }
      cursor.end();
      if (context.selected) {
        // RFC 9051 6.3.2: what follows belongs to the new mailbox.
        context.unselect();
        context.untagged('OK [CLOSED] Previous mailbox is closed');
      }
      return open(context, path, isReadOnly);
    },
  };
}

async function open(context: SessionContext, path: string[], isReadOnly: boolean): Promise<Reply> {
  const { mail } = context.services;
  const found = await mail.mailboxByPath(context.accountId, path);
  if (!found) return no('No such mailbox', 'NONEXISTENT');
  const index = await mail.openIndex(context.accountId, found.mailbox.id);
  try {
    await index.refresh();
  } catch (error) {
    index.release();
    throw error;
  }
  const selected = new SelectedMailbox(found.mailbox, index, isReadOnly);
  context.selected = selected;
  const { mailbox, counts } = found;
  const uids = selected.uids;
  const flags = flagsInUse(index, uids);
  const permanent = isReadOnly ? '' : `${flags} \\*`;
  context.untagged(`FLAGS (${flags})`);
  context.untagged(`OK [PERMANENTFLAGS (${permanent})] Flags that can be changed`);
  context.untagged(`${uids.length} EXISTS`);
  if (!context.enabled.has('IMAP4REV2')) {
    context.untagged('0 RECENT');
    // The common mailbox has nothing unread, and need not be searched for it.
    const unseen = counts.unseen > 0 ? firstUnseen(index, uids) : 0;
    if (unseen > 0) context.untagged(`OK [UNSEEN ${unseen}] First unseen message`);
  }
  context.untagged(`OK [UIDVALIDITY ${mailbox.uidValidity}] UIDs valid`);
  // Counts were read before the index: a message that came between has raised the real UIDNEXT.
  const uidNext = Math.max(counts.uidNext, (uids[uids.length - 1] ?? 0) + 1);
  context.untagged(`OK [UIDNEXT ${uidNext}] Predicted next UID`);
  context.untagged(`OK [HIGHESTMODSEQ ${Math.max(1, counts.highestModseq)}] Highest`);
  context.untagged(`OK [MAILBOXID (${mailbox.id})] Id`);
  if (context.enabled.has('IMAP4REV2')) context.untagged(`LIST () "/" ${context.mailboxText(mailbox.path)}`);
  return ok(isReadOnly ? 'EXAMINE completed' : 'SELECT completed', isReadOnly ? 'READ-ONLY' : 'READ-WRITE');
}

/** System flags, common keywords, and the others that occur among the newest messages. */
function flagsInUse(index: MailboxIndex, uids: readonly number[]): string {
  const listed = new Set(`${systemFlags} ${commonKeywords}`.split(' '));
  for (let i = Math.max(0, uids.length - 1_000); i < uids.length && listed.size < maxListedKeywords; i++) {
    for (const name of flagNames(index.get(uids[i]!)?.keywords ?? [])) listed.add(name);
  }
  return [...listed].join(' ');
}

function firstUnseen(index: MailboxIndex, uids: readonly number[]): number {
  for (let i = 0; i < uids.length; i++) {
    const entry = index.get(uids[i]!);
    if (entry && !entry.keywords.includes('$seen')) return i + 1;
  }
  return 0;
}

export const select = selecting('SELECT', false);
export const examine = selecting('EXAMINE', true);

export const close: Command = {
  name: 'CLOSE',
  states: withMailbox,
  async run(context, cursor) {
    cursor.end();
    const selected = context.requireSelected();
    if (!selected.isReadOnly) {
      await selected.index.refresh();
      // Only what this client knows of, and no EXPUNGE responses.
      const deleted = selected.uids.filter((uid) => selected.index.get(uid)?.isDeleted);
      if (deleted.length > 0) await context.services.mail.expunge(context.accountId, selected.mailbox.id, deleted);
    }
    context.unselect();
    return ok('CLOSE completed');
  },
};

export const unselect: Command = {
  name: 'UNSELECT',
  states: withMailbox,
  run(context, cursor) {
    cursor.end();
    context.unselect();
    return ok('UNSELECT completed');
  },
};
