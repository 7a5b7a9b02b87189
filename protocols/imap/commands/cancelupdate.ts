/** CANCELUPDATE (RFC 5267 4.3.5): changes of these searches are no longer told. */
import { type Command, withMailbox } from '../command.js';
import { bad, ok } from '../replies.js';
import { cancel } from '../search/updates.js';

export const cancelUpdate: Command = {
  name: 'CANCELUPDATE',
  states: withMailbox,
  run(context, cursor) {
    const tags: string[] = [];
    do {
      cursor.space();
      tags.push(cursor.quoted());
    } while (!cursor.isAtEnd);
    const unknown = tags.filter((tag) => !cancel(context, tag));
    return unknown.length > 0 ? bad('No such search is followed') : ok('No further updates');
  },
};
