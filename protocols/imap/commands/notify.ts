/** NOTIFY (RFC 5465): which events of which mailboxes the client wants to hear of, at any time. */
import { type Command, loggedIn } from '../command.js';
import type { SessionContext } from '../context.js';
import type { Cursor } from '../grammar/cursor.js';
import { type FetchRequest, readFetchItems } from '../grammar/fetch-items.js';
import { ImapSyntaxError } from '../grammar/limits.js';
import { type EventGroup, Notifier, type NotifyEvent, type NotifyRequest, nameOf, statusItems } from '../notifier.js';
import { no, ok, Refusal } from '../replies.js';
import { formatStatus } from './status.js';

/** Spellings of what we know, in the order in which BADEVENT lists them. */
const eventNames: Record<NotifyEvent, string> = {
  MESSAGENEW: 'MessageNew',
  MESSAGEEXPUNGE: 'MessageExpunge',
  FLAGCHANGE: 'FlagChange',
  MAILBOXNAME: 'MailboxName',
  SUBSCRIPTIONCHANGE: 'SubscriptionChange',
  MAILBOXMETADATACHANGE: 'MailboxMetadataChange',
  SERVERMETADATACHANGE: 'ServerMetadataChange',
};
const messageEvents: ReadonlySet<NotifyEvent> = new Set(['MESSAGENEW', 'MESSAGEEXPUNGE', 'FLAGCHANGE']);
const maxGroups = 100;
/** Names of all groups together; every change in the account is compared with each of them. */
const maxNames = 1_000;

interface Events {
  events: Set<NotifyEvent>;
  fetch?: FetchRequest;
}

function readEvents(cursor: Cursor): Events {
  const found: Events = { events: new Set() };
  if (!cursor.sees('(')) {
    if (cursor.word() !== 'NONE') cursor.fail('Expected events');
    return found;
  }
  let isUnknown = false;
  cursor.list(() => {
    const name = cursor.word();
    if (Object.hasOwn(eventNames, name)) found.events.add(name as NotifyEvent);
    else isUnknown = true;
    if (name === 'MESSAGENEW' && cursor.seesWord(' (')) {
      cursor.space();
      found.fetch = readFetchItems(cursor);
    }
  });
  const has = (event: NotifyEvent) => found.events.has(event);
  // Section 5: whoever follows one of them would lose count without the other.
  if (has('MESSAGENEW') !== has('MESSAGEEXPUNGE')) cursor.fail('MessageNew and MessageExpunge go together');
  if (has('FLAGCHANGE') && !has('MESSAGENEW')) cursor.fail('FlagChange needs MessageNew and MessageExpunge');
  if (isUnknown) throw new BadEvent();
  return found;
}

class BadEvent extends Refusal {
  constructor() {
    super(no('There are no such events here', `BADEVENT (${Object.values(eventNames).join(' ')})`));
  }
}

function readSelected(cursor: Cursor, isDelayed: boolean): NotifyRequest['selected'] {
  const { events, fetch } = readEvents(cursor);
  for (const event of events) if (!messageEvents.has(event)) cursor.fail('The selected mailbox has message events only');
  if (events.size === 0) return undefined;
  // 5.2: what a notification reads stays unread.
  for (const section of fetch?.sections ?? []) section.peek = true;
  return { isDelayed, flags: events.has('FLAGCHANGE'), ...(fetch ? { fetch } : {}) };
}

function readNames(context: SessionContext, cursor: Cursor): string[] {
  cursor.space();
  const readOne = () => nameOf(context.path(cursor.astring()));
  return cursor.sees('(') ? cursor.list(readOne) : [readOne()];
}

function readGroup(context: SessionContext, cursor: Cursor, filter: string): EventGroup {
  const names = filter === 'SUBTREE' || filter === 'MAILBOXES' ? readNames(context, cursor) : [];
  cursor.space();
  const { events, fetch } = readEvents(cursor);
  if (fetch) cursor.fail('Only for the selected mailbox there are fetch items');
  switch (filter) {
    // Any mailbox may be delivered to, by Sieve: 6.3 makes `inboxes` the same as `personal` then.
    case 'INBOXES':
    case 'PERSONAL':
      return { filter: 'personal', names, events };
    case 'SUBSCRIBED':
      return { filter: 'subscribed', names, events };
    case 'SUBTREE':
      return { filter: 'subtree', names, events };
    case 'MAILBOXES':
      return { filter: 'mailboxes', names, events };
    default:
      return cursor.fail('Unknown mailbox filter');
  }
}

function readGroups(context: SessionContext, cursor: Cursor): NotifyRequest {
  const groups: EventGroup[] = [];
  let selected: NotifyRequest['selected'];
  let hasSelected = false;
  let names = 0;
  do {
    cursor.open();
    const filter = cursor.word();
    if (filter === 'SELECTED' || filter === 'SELECTED-DELAYED') {
      if (hasSelected) cursor.fail('The selected mailbox can be named once');
      hasSelected = true;
      cursor.space();
      selected = readSelected(cursor, filter === 'SELECTED-DELAYED');
    } else {
      const group = readGroup(context, cursor, filter);
      names += group.names.length;
      if (group.events.size > 0) groups.push(group);
    }
    cursor.close();
    if (groups.length > maxGroups || names > maxNames)
      throw new ImapSyntaxError('Too much to watch', 'NOTIFICATIONOVERFLOW', 'NO');
  } while (cursor.takes(' ') && !cursor.isAtEnd);
  return { groups, ...(selected ? { selected } : {}) };
}

/** Replaces what the client hears of; what is given up is let go of first. */
async function listen(context: SessionContext, request: NotifyRequest, tellsStatus: boolean): Promise<void> {
  const notifier = new Notifier(context, request);
  try {
    const watched = await notifier.open();
    // Before the change takes hold: a NOOP of its own (3.1).
    await context.refresh();
    if (request.selected) context.announce(true);
    context.notifier?.close();
    context.notifier = notifier;
    context.onNotice = notifier.isListening ? context.wake : undefined;
    // What came since it began to follow has been heard of, and not told.
    context.hasOtherNotice = true;
    if (!tellsStatus) return;
    // Section 3.1: where FlagChange is asked for, the first STATUS says from where on.
    const tellsModseq = context.condstore || request.groups.some(({ events }) => events.has('FLAGCHANGE'));
    for (const place of watched) {
      context.untagged(await formatStatus(context, place, statusItems(context, true, tellsModseq)));
      await context.output.ready();
    }
  } catch (error) {
    if (context.notifier !== notifier) notifier.close();
    throw error;
  }
}

export const notify: Command = {
  name: 'NOTIFY',
  states: loggedIn,
  async run(context, cursor) {
    cursor.space();
    const verb = cursor.word();
    if (verb === 'NONE') {
      cursor.end();
      await listen(context, { groups: [] }, false);
      return ok('NOTIFY completed');
    }
    if (verb !== 'SET') cursor.fail('Expected SET or NONE');
    cursor.space();
    let tellsStatus = false;
    if (cursor.seesWord('STATUS ')) {
      cursor.word();
      cursor.space();
      tellsStatus = true;
    }
    const request = readGroups(context, cursor);
    cursor.end();
    await listen(context, request, tellsStatus);
    return ok('NOTIFY completed');
  },
};
