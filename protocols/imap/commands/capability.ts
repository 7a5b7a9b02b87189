/** CAPABILITY (RFC 9051 6.1.1). */
import { capabilities } from '../capabilities.js';
import { anyState, type Command } from '../command.js';
import { ok } from '../replies.js';

export const capability: Command = {
  name: 'CAPABILITY',
  states: anyState,
  run(context, cursor) {
    cursor.end();
    context.untagged(`CAPABILITY ${capabilities(context)}`);
    return ok('CAPABILITY completed');
  },
};
