/** SELECT, EXAMINE (RFC 9051 6.3.2, 6.3.3; RFC 3501; CONDSTORE and QRESYNC: RFC 7162 3.1.8, 3.2.5), CLOSE and UNSELECT (6.4.1, 6.4.2). */
import { type Command, loggedIn, withMailbox } from '../command.js';
import type { SessionContext } from '../context.js';
import { type MailboxPlace, mayChange, requirePlace } from '../places.js';
import { type KnownState, readKnownState, resynchronise } from '../qresync.js';
import { RecentMessages } from '../recent.js';
import { ok, type Reply } from '../replies.js';
import { SelectedMailbox } from '../selected.js';

function selecting(name: string, examines: boolean): Command {
  return {
    name,
    states: loggedIn,
    async run(context, cursor) {
      cursor.space();
      const path = context.path(cursor.astring());
      let known: KnownState | undefined;
      if (cursor.takes(' ')) {
        cursor.list(() => {
          const parameter = cursor.word();
          if (parameter === 'QRESYNC' && !known) known = readKnownState(context, cursor);
          else if (parameter !== 'CONDSTORE') cursor.fail(`Unknown parameter ${parameter.slice(0, 40)}`);
          context.enabled.add('CONDSTORE');
        });
      }
      cursor.end();
      if (context.selected) {
        // RFC 9051 6.3.2: what follows belongs to the new mailbox.
        context.unselect();
        context.untagged('OK [CLOSED] Previous mailbox is closed');
      }
      return open(context, path, examines, known);
    },
  };
}

async function open(context: SessionContext, path: string[], examines: boolean, known?: KnownState): Promise<Reply> {
  // Whatever the account had news of so far is in what is read from here on; news that come while it is read are looked at afterwards.
  const hadNotice = context.hasNotice;
  context.hasNotice = false;
  const found = requirePlace(await context.find(path), 'NONEXISTENT', 'r');
  if (found.accountId !== context.accountId) context.hasNotice ||= hadNotice;
  const isReadOnly = examines || !mayChange(found.rights);
  const selected = await openSelected(context, found, isReadOnly);
  context.select(selected);
  const { mailbox, counts } = found;
  const uids = selected.uids;
  for (const response of selected.flagResponses()) context.untagged(response);
  context.untagged(`${uids.length} EXISTS`);
  if (!context.enabled.has('IMAP4REV2')) {
    context.untagged(`${selected.recent?.countIn(uids) ?? 0} RECENT`);
    // The common mailbox has nothing unread, and need not be searched for it.
    const unseen = counts.unseen > 0 ? selected.index.view().firstUnseen() + 1 : 0;
    if (unseen > 0 && !context.uidOnly) context.untagged(`OK [UNSEEN ${unseen}] First unseen message`);
  }
  context.untagged(`OK [UIDVALIDITY ${mailbox.uidValidity}] UIDs valid`);
  // Counts were read before the index: a message that came between has raised the real UIDNEXT.
  const uidNext = Math.max(counts.uidNext, (uids[uids.length - 1] ?? 0) + 1);
  context.untagged(`OK [UIDNEXT ${uidNext}] Predicted next UID`);
  context.untagged(`OK [HIGHESTMODSEQ ${Math.max(1, counts.highestModseq)}] Highest`);
  context.untagged(`OK [MAILBOXID (${mailbox.id})] Id`);
  if (context.enabled.has('IMAP4REV2')) context.untagged(`LIST () "/" ${context.mailboxText(found.path)}`);
  if (known) await resynchronise(context, selected, known, uidNext);
  return ok(examines ? 'EXAMINE completed' : 'SELECT completed', isReadOnly ? 'READ-ONLY' : 'READ-WRITE');
}

/** What is recent for a client that selects this mailbox. Throws KvError. */
async function recentOnSelect(context: SessionContext, place: MailboxPlace, isReadOnly: boolean): Promise<RecentMessages> {
  const { recent } = context.services.mail;
  const { accountId, mailbox, counts, asOf } = place;
  if (isReadOnly) {
    const from = await recent.from(accountId, mailbox.id);
    return new RecentMessages(from ?? counts.uidNext, counts.uidNext);
  }
  const { from, hold } = await recent.hold(accountId, mailbox.id, counts.uidNext, asOf);
  return new RecentMessages(from, counts.uidNext, hold);
}

async function openSelected(context: SessionContext, place: MailboxPlace, isReadOnly: boolean): Promise<SelectedMailbox> {
  const opening = context.services.mail.openIndex(place.accountId, place.mailbox.id, place.asOf);
  if (context.enabled.has('IMAP4REV2')) return new SelectedMailbox(place, await opening, isReadOnly);
  const [opened, marked] = await Promise.allSettled([opening, recentOnSelect(context, place, isReadOnly)]);
  if (opened.status === 'fulfilled' && marked.status === 'fulfilled') {
    const { value: index } = opened;
    const last = index.uids().at(-1) ?? 0;
    // What has come since the counts were read.
    if (last >= place.counts.uidNext) marked.value.arrived(place.counts.uidNext, last + 1);
    return new SelectedMailbox(place, index, isReadOnly, marked.value);
  }
  if (opened.status === 'fulfilled') opened.value.release();
  if (marked.status === 'fulfilled') marked.value.close();
  throw opened.status === 'rejected' ? opened.reason : (marked as PromiseRejectedResult).reason;
}

export const select = selecting('SELECT', false);
export const examine = selecting('EXAMINE', true);

/** UIDs that this client knows of and that are \\Deleted now. */
function deletedOf(selected: SelectedMailbox): number[] {
  const view = selected.index.view();
  const found: number[] = [];
  view.uids.forEach((uid, at) => {
    if (view.isDeletedOf(view.flagsAt(at)) && selected.sequenceOf(uid) > 0) found.push(uid);
  });
  return found;
}

export const close: Command = {
  name: 'CLOSE',
  states: withMailbox,
  async run(context, cursor) {
    cursor.end();
    const selected = context.requireSelected();
    if (!selected.isReadOnly) await context.refresh();
    // RFC 4314 section 4: without the right to, nothing is expunged, and that is no failure.
    if (!selected.isReadOnly && selected.place.rights.has('e')) {
      // Only what this client knows of, and no EXPUNGE responses.
      const deleted = deletedOf(selected);
      if (deleted.length > 0) {
        const removed = await context.services.mail.expunge(selected.accountId, selected.mailbox.id, deleted);
        context.notifier?.passOverMessages(selected.accountId, selected.mailbox.id, 'entry-removed', removed);
      }
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
