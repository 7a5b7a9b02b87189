/** NAMESPACE (RFC 9051 6.3.10): one's own mailboxes, those of other people, and those of groups. */
import { type Command, loggedIn } from '../command.js';
import type { SessionContext } from '../context.js';
import { formatMailbox, formatString } from '../grammar/format.js';
import { separator } from '../grammar/mailbox-name.js';
import { ok } from '../replies.js';

export const namespace: Command = {
  name: 'NAMESPACE',
  states: loggedIn,
  run(context, cursor) {
    cursor.end();
    const { sharing } = context.services;
    const others = sharing ? `${space(context, sharing.otherUsers)} ${space(context, sharing.groups)}` : 'NIL NIL';
    context.untagged(`NAMESPACE (("" "${separator}")) ${others}`);
    return ok('NAMESPACE completed');
  },
};

function space(context: SessionContext, top: string): string {
  const text = formatMailbox(top + separator, context.utf8);
  // The prefix is a string, never an atom.
  return `((${text.startsWith('"') || text.startsWith('{') ? text : formatString(text)} "${separator}"))`;
}
