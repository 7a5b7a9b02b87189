/** UNAUTHENTICATE (RFC 8437): the connection goes on as if nobody had logged in. */
import { capabilities } from '../capabilities.js';
import { type Command, loggedIn } from '../command.js';
import { ok } from '../replies.js';

export const unauthenticate: Command = {
  name: 'UNAUTHENTICATE',
  states: loggedIn,
  run(context, cursor) {
    cursor.end();
    context.leave();
    return ok('Nobody is logged in now', `CAPABILITY ${capabilities(context)}`);
  },
};
