/** LOGOUT (RFC 9051 6.1.3). */
import { anyState, type Command } from '../command.js';
import { ok } from '../replies.js';

export const logout: Command = {
  name: 'LOGOUT',
  states: anyState,
  run(context, cursor) {
    cursor.end();
    context.untagged('BYE Logging out');
    context.isLoggingOut = true;
    return ok('LOGOUT completed');
  },
};
