/** All extensions that are known here, each with what it adds. */
import { duplicate } from './commands/duplicate.js';
import { fileinto } from './commands/fileinto.js';
import { flagCommands } from './commands/flags.js';
import { hasflag } from './commands/hasflag.js';
import { error, ihave } from './commands/ihave.js';
import { global, include, returnCommand } from './commands/include.js';
import { discard, keep } from './commands/keep.js';
import { allof, anyof, falseTest, not, stop, trueTest } from './commands/logic.js';
import { mailboxExists, mailboxIdExists, specialUseExists } from './commands/mailboxes.js';
import { notify, notifyMethodCapability, validNotifyMethod } from './commands/notify.js';
import { breakCommand, extracttext, foreverypart } from './commands/parts.js';
import { redirect } from './commands/redirect.js';
import { ereject, reject } from './commands/reject.js';
import { set } from './commands/set.js';
import { stringTest } from './commands/string.js';
import { vacation } from './commands/vacation.js';
import type { Extension } from './contract.js';
import { makeRegistry } from './registry.js';
import { testExtensions } from './tests/index.js';

/** Those that only allow a tag, a form of text, or a comparator have nothing but a name here. */
const frameExtensions: readonly Extension[] = [
  { name: '', commands: [stop, keep, discard, redirect], tests: [allof, anyof, not, trueTest, falseTest] },
  { name: 'copy' },
  { name: 'duplicate', tests: [duplicate] },
  { name: 'encoded-character' },
  { name: 'enotify', commands: [notify], tests: [validNotifyMethod, notifyMethodCapability] },
  { name: 'ereject', commands: [ereject] },
  { name: 'extracttext', commands: [extracttext] },
  { name: 'fcc' },
  { name: 'fileinto', commands: [fileinto] },
  { name: 'foreverypart', commands: [foreverypart, breakCommand] },
  { name: 'ihave', commands: [error], tests: [ihave] },
  { name: 'imap4flags', commands: flagCommands, tests: [hasflag] },
  { name: 'include', commands: [include, returnCommand, global], namespace: 'global' },
  { name: 'mailbox', tests: [mailboxExists] },
  { name: 'mailboxid', tests: [mailboxIdExists] },
  { name: 'redirect-deliverby' },
  { name: 'redirect-dsn' },
  { name: 'reject', commands: [reject] },
  { name: 'special-use', tests: [specialUseExists] },
  { name: 'vacation', commands: [vacation] },
  // RFC 6131 2: it needs no `require "vacation"` beside it.
  { name: 'vacation-seconds', implies: ['vacation'] },
  { name: 'variables', commands: [set], tests: [stringTest] },
];

export const sieveRegistry = makeRegistry([...frameExtensions, ...testExtensions]);
