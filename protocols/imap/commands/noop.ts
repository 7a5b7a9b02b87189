/** NOOP (RFC 9051 6.1.2) and CHECK (RFC 3501 6.4.1): a moment for news. */
import { anyState, type Command, withMailbox } from '../command.js';
import { ok } from '../replies.js';

export const noop: Command = {
  name: 'NOOP',
  states: anyState,
  looksForNews: true,
  run(_context, cursor) {
    cursor.end();
    return ok('NOOP completed');
  },
};

export const check: Command = {
  name: 'CHECK',
  states: withMailbox,
  looksForNews: true,
  run(_context, cursor) {
    // Everything acknowledged is durable already.
    cursor.end();
    return ok('CHECK completed');
  },
};
