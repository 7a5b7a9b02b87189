/** The table of commands. */
import { auth } from './auth.js';
import { capa } from './capa.js';
import type { Command } from './command.js';
import { lang, utf8 } from './language.js';
import { list, stat, uidl } from './listing.js';
import { pass, user } from './login.js';
import { dele, noop, rset } from './marking.js';
import { quit } from './quit.js';
import { retr, top } from './retrieval.js';
import { stls } from './stls.js';

/** By keyword, upper case. No APOP: it needs passwords in clear on the server. */
export const commands: ReadonlyMap<string, Command> = new Map(
  [auth, capa, dele, lang, list, noop, pass, quit, retr, rset, stat, stls, top, uidl, user, utf8].map((command) => [
    command.name,
    command,
  ]),
);
