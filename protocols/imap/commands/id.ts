/** ID (RFC 2971). What the client says of itself is read and forgotten; of ourselves we tell the name only. */
import { anyState, type Command } from '../command.js';
import { ImapSyntaxError } from '../grammar/limits.js';
import { ok } from '../replies.js';

const maxFields = 30;

export const id: Command = {
  name: 'ID',
  states: anyState,
  run(context, cursor) {
    cursor.space();
    if (cursor.sees('(')) {
      let fields = 0;
      cursor.list(() => {
        if (++fields > maxFields) throw new ImapSyntaxError('Too many ID fields');
        cursor.string();
        cursor.space();
        return cursor.nstring();
      }, true);
    } else if (cursor.nstring() !== undefined) {
      cursor.fail('Expected NIL or a list');
    }
    cursor.end();
    context.untagged('ID ("name" "Starling")');
    return ok('ID completed');
  },
};
