/** UTF8 and LANG (RFC 6856). Messages go out byte for byte in either mode; our own sentences are English and ASCII in every language that we have. */
import { words } from '../grammar/command.js';
import { err, ok, sent } from '../replies.js';
import { anyState, beforeLogin, type Command } from './command.js';

const languages = new Map([
  ['en', 'English'],
  ['i-default', 'Default language'],
]);

export const utf8: Command = {
  name: 'UTF8',
  states: beforeLogin,
  run: (_context, rest) => (rest.trim() === '' ? ok('UTF8 enabled') : err('UTF8 takes no arguments')),
};

export const lang: Command = {
  name: 'LANG',
  states: anyState,
  run(context, rest) {
    const [wanted, more] = words(rest);
    if (wanted === undefined) {
      const lines = [...languages].map(([tag, name]) => `${tag} ${name}\r\n`);
      context.output.write(`+OK Languages follow\r\n${lines.join('')}.\r\n`);
      return sent;
    }
    // RFC 6856 section 3: "*" leaves the choice to the server.
    const tag = wanted === '*' ? 'i-default' : wanted.toLowerCase().replace(/^en-[a-z0-9-]+$/, 'en');
    if (more !== undefined || !languages.has(tag)) return err('That language is not spoken here');
    return ok(`${tag} This is the language of the answers now`);
  },
};
