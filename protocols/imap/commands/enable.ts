/** ENABLE (RFC 9051 6.3.1). */
import { type Command, loggedIn } from '../command.js';
import type { Extension } from '../context.js';
import { ok } from '../replies.js';

const extensions: readonly Extension[] = ['IMAP4REV2', 'UTF8=ACCEPT', 'CONDSTORE', 'QRESYNC', 'UIDONLY'];

export const enable: Command = {
  name: 'ENABLE',
  states: loggedIn,
  run(context, cursor) {
    const enabled: string[] = [];
    do {
      cursor.space();
      const name = cursor.word();
      const extension = extensions.find((known) => known === name);
      if (extension && !context.enabled.has(extension)) {
        context.enabled.add(extension);
        // RFC 7162 3.2.3: QRESYNC is CONDSTORE and more.
        if (extension === 'QRESYNC') context.enabled.add('CONDSTORE');
        enabled.push(extension === 'IMAP4REV2' ? 'IMAP4rev2' : extension);
      }
    } while (cursor.sees(' '));
    cursor.end();
    context.untagged(['ENABLED', ...enabled].join(' '));
    return ok('ENABLE completed');
  },
};
