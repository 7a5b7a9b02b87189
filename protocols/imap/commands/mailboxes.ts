/**
 * CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE (RFC 9051 6.3.4 to 6.3.8; CREATE with USE: RFC 6154 section 3; in the mailboxes of others: RFC 4314 section 4).
 */
import { type MailboxRole, MailError, type Right } from '../../../store/mail/contract.js';
import { type Command, loggedIn } from '../command.js';
import type { SessionContext } from '../context.js';
import type { Cursor } from '../grammar/cursor.js';
import { separator } from '../grammar/mailbox-name.js';
import { ownersRights, requirePlace, requireRights } from '../places.js';
import { no, ok, Refusal } from '../replies.js';
import type { NewPlace } from '../shared-places.js';

const roles: Record<string, MailboxRole> = {
  '\\DRAFTS': 'drafts',
  '\\SENT': 'sent',
  '\\TRASH': 'trash',
  '\\JUNK': 'junk',
  '\\ARCHIVE': 'archive',
};

function readMailbox(context: SessionContext, cursor: Cursor): string[] {
  cursor.space();
  return context.path(cursor.astring());
}

function readUse(cursor: Cursor): MailboxRole | undefined {
  if (!cursor.takes(' ')) return undefined;
  let role: MailboxRole | undefined;
  cursor.list(() => {
    if (cursor.word() !== 'USE') cursor.fail('Unknown CREATE parameter');
    cursor.space();
    const uses = cursor.list(() => cursor.flag().toUpperCase());
    // One mailbox has one role; \All, \Flagged and \Important are views that we don't keep.
    role = roles[uses[0]!];
    if (!role || uses.length > 1) throw new Refusal(no('This special use is not available', 'USEATTR'));
  });
  return role;
}

/** Where a new name belongs. Throws where nothing can be made: `k` on what is above it is needed (RFC 4314 section 4). */
async function newPlace(context: SessionContext, path: string[]): Promise<NewPlace> {
  if (!context.shared?.isOutside(path)) return { accountId: context.accountId, path, rights: ownersRights };
  // An own mailbox of this name from before there were others' stays one's own, with what is in it.
  const own = await context.services.mail.mailboxByPath(context.accountId, path.slice(0, -1));
  if (path.length > 1 && own) return { accountId: context.accountId, path, rights: ownersRights };
  const place = await context.shared.newPlace(path);
  if (place?.rights.has('k')) return place;
  // What is above may be hidden: then it is as if it were not there.
  throw new Refusal(place?.rights.has('l') ? no('Permission denied', 'NOPERM') : no('No mailbox can be made here', 'CANNOT'));
}

export const create: Command = {
  name: 'CREATE',
  states: loggedIn,
  async run(context, cursor) {
    const path = readMailbox(context, cursor);
    const role = readUse(cursor);
    cursor.end();
    const { mail } = context.services;
    const place = await newPlace(context, path);
    if (role) {
      // What others file their mail by is for them to say.
      if (place.rights !== ownersRights) return no('Special uses are up to the owner', 'USEATTR');
      const taken = (await mail.mailboxes(place.accountId)).some(({ mailbox }) => mailbox.role === role);
      if (taken) return no('Another mailbox has this special use', 'USEATTR');
    }
    const isOther = place.accountId !== context.accountId;
    // A group has mailboxes from its first message on, or from its members' first wish.
    if (isOther && place.rights === ownersRights) await mail.ensureAccount(place.accountId);
    try {
      const mailbox = await mail.createMailbox(place.accountId, place.path, role ? { role } : {});
      return ok('CREATE completed', `MAILBOXID (${mailbox.id})`);
    } catch (error) {
      if (isOther && isExisting(error)) await requireKnown(context, path);
      throw error;
    }
  },
};

const isExisting = (error: unknown) => error instanceof MailError && error.code === 'mailbox-exists';

/** That a name is taken must not tell of a mailbox that the user may not look up. */
async function requireKnown(context: SessionContext, path: readonly string[]): Promise<void> {
  const place = await context.find(path);
  if (!place?.rights.has('l')) throw new Refusal(no('Permission denied', 'NOPERM'));
}

export const deleteMailbox: Command = {
  name: 'DELETE',
  states: loggedIn,
  async run(context, cursor) {
    const path = readMailbox(context, cursor);
    cursor.end();
    const { accountId, mailbox } = requirePlace(await context.find(path), 'NONEXISTENT', 'x');
    await context.services.mail.deleteMailbox(accountId, mailbox.path);
    if (mailbox.id === context.selected?.mailbox.id) {
      context.unselect();
      context.untagged('OK [CLOSED] The selected mailbox was deleted');
    }
    return ok('DELETE completed');
  },
};

export const rename: Command = {
  name: 'RENAME',
  states: loggedIn,
  looksForNews: true,
  async run(context, cursor) {
    const from = readMailbox(context, cursor);
    const to = readMailbox(context, cursor);
    cursor.end();
    const source = requirePlace(await context.find(from), 'NONEXISTENT', 'x');
    const target = await newPlace(context, to);
    if (target.accountId !== source.accountId) return no('A mailbox stays with its owner', 'CANNOT');
    try {
      await context.services.mail.renameMailbox(source.accountId, source.mailbox.path, target.path);
    } catch (error) {
      if (source.accountId !== context.accountId && isExisting(error)) await requireKnown(context, to);
      throw error;
    }
    // RFC 9051 6.3.9.7: OLDNAME tells other parts of the client what has become of the name.
    if (context.enabled.has('IMAP4REV2') && source.mailbox.role !== 'inbox')
      context.untagged(`LIST () "${separator}" ${context.mailboxText(to)} ("OLDNAME" (${context.mailboxText(source.path)}))`);
    return ok('RENAME completed');
  },
};

export const subscribe: Command = {
  name: 'SUBSCRIBE',
  states: loggedIn,
  async run(context, cursor) {
    const path = readMailbox(context, cursor);
    cursor.end();
    const { mail } = context.services;
    const place = requirePlace(await context.find(path), 'NONEXISTENT', 'l' satisfies Right);
    if (place.accountId === context.accountId) await mail.setSubscribed(context.accountId, path, true);
    else {
      const { accountId, mailbox } = place;
      await mail.sharing.subscribeOther(context.accountId, { accountId, mailboxId: mailbox.id, path: [...place.path] });
    }
    return ok('SUBSCRIBE completed');
  },
};

export const unsubscribe: Command = {
  name: 'UNSUBSCRIBE',
  states: loggedIn,
  async run(context, cursor) {
    const path = readMailbox(context, cursor);
    cursor.end();
    const { mail } = context.services;
    const place = await context.find(path);
    if (place?.accountId === context.accountId) {
      await mail.setSubscribed(context.accountId, path, false);
      return ok('UNSUBSCRIBE completed');
    }
    // Also of what is gone, or hidden by now: a subscription is the subscriber's own.
    const name = path.join(separator);
    const others = (await mail.sharing.otherSubscriptions(context.accountId)).filter(
      (one) => one.path.join(separator) === name || one.mailboxId === place?.mailbox.id,
    );
    for (const one of others) await mail.sharing.unsubscribeOther(context.accountId, one);
    if (others.length === 0 && !place) return no('No such mailbox', 'NONEXISTENT');
    if (others.length === 0) requireRights(place!.rights, 'l');
    return ok('UNSUBSCRIBE completed');
  },
};
