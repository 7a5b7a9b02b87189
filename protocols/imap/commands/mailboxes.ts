/** CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE (RFC 9051 6.3.4 to 6.3.8; CREATE with USE: RFC 6154 section 3). */
import type { MailboxRole } from '../../../store/mail/contract.js';
import { type Command, loggedIn } from '../command.js';
import type { SessionContext } from '../context.js';
import type { Cursor } from '../grammar/cursor.js';
import { no, ok, Refusal } from '../replies.js';

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

export const create: Command = {
  name: 'CREATE',
  states: loggedIn,
  async run(context, cursor) {
    const path = readMailbox(context, cursor);
    const role = readUse(cursor);
    cursor.end();
    const { mail } = context.services;
    if (role) {
      const taken = (await mail.mailboxes(context.accountId)).some(({ mailbox }) => mailbox.role === role);
      if (taken) return no('Another mailbox has this special use', 'USEATTR');
    }
    const mailbox = await mail.createMailbox(context.accountId, path, role ? { role } : {});
    return ok('CREATE completed', `MAILBOXID (${mailbox.id})`);
  },
};

export const deleteMailbox: Command = {
  name: 'DELETE',
  states: loggedIn,
  async run(context, cursor) {
    const path = readMailbox(context, cursor);
    cursor.end();
    const { mail } = context.services;
    const found = context.selected && (await mail.mailboxByPath(context.accountId, path));
    await mail.deleteMailbox(context.accountId, path);
    if (found && found.mailbox.id === context.selected?.mailbox.id) {
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
    await context.services.mail.renameMailbox(context.accountId, from, to);
    return ok('RENAME completed');
  },
};

function subscription(name: string, subscribed: boolean): Command {
  return {
    name,
    states: loggedIn,
    async run(context, cursor) {
      const path = readMailbox(context, cursor);
      cursor.end();
      await context.services.mail.setSubscribed(context.accountId, path, subscribed);
      return ok(`${name} completed`);
    },
  };
}

export const subscribe = subscription('SUBSCRIBE', true);
export const unsubscribe = subscription('UNSUBSCRIBE', false);
