/** THREAD (RFC 5256; REFS: draft-ietf-morg-inthread-01 section 4). */
import { type Command, withMailbox } from '../command.js';
import { readThreadAlgorithm } from '../grammar/sort-keys.js';
import { ok } from '../replies.js';
import { threaded } from '../sorting/threaded.js';
import { find, readProgram } from './search.js';

export const thread: Command = {
  name: 'THREAD',
  states: withMailbox,
  takesUid: true,
  holdsExpunges: true,
  async run(context, cursor, { byUid }) {
    cursor.space();
    const algorithm = readThreadAlgorithm(cursor);
    cursor.space();
    const criteria = readProgram(context, cursor, { charset: 'mandatory', saves: false, byUid });
    const { found } = await find(context, criteria, false, true);
    const pieces = await threaded(context, found, algorithm, byUid);
    context.output.write('* THREAD');
    for (const piece of pieces) {
      context.output.write(piece);
      await context.output.ready();
    }
    context.output.write('\r\n');
    return ok('THREAD completed');
  },
};
