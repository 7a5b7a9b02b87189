/** NAMESPACE (RFC 9051 6.3.10): one personal namespace, no others. */
import { type Command, loggedIn } from '../command.js';
import { ok } from '../replies.js';

export const namespace: Command = {
  name: 'NAMESPACE',
  states: loggedIn,
  run(context, cursor) {
    cursor.end();
    context.untagged('NAMESPACE (("" "/")) NIL NIL');
    return ok('NAMESPACE completed');
  },
};
