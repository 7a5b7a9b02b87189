/** DELE, RSET and NOOP (RFC 1939 section 5). Nothing is removed before QUIT. */
import { words } from '../grammar/command.js';
import { err, ok } from '../replies.js';
import { afterLogin, type Command } from './command.js';

export const dele: Command = {
  name: 'DELE',
  states: afterLogin,
  run(context, rest) {
    const [number, more] = words(rest);
    if (more !== undefined) return err('Too many arguments');
    context.maildrop.markDeleted(context.messageAt(number));
    return ok('Marked to be deleted');
  },
};

export const rset: Command = {
  name: 'RSET',
  states: afterLogin,
  run(context) {
    context.maildrop.unmarkAll();
    const { count, bytes } = context.maildrop.left;
    return ok(`${count} messages (${bytes} octets)`);
  },
};

export const noop: Command = { name: 'NOOP', states: afterLogin, run: () => ok('Nothing done') };
