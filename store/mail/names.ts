/** Names and paths of mailboxes: what is allowed, and their one spelling. */
import { MailError, mailLimits } from './contract.js';

// C0, DEL, C1, and the line and paragraph separators; half surrogates can't be written as UTF-8.
const forbidden = /[\u0000-\u001f\u007f-\u009f\u2028\u2029/]|\p{Surrogate}/u;

/** Whether this path is the top INBOX, in whatever case (RFC 9051 5.1). */
export function isInbox(path: readonly string[]): boolean {
  return path.length === 1 && path[0]!.length === 5 && path[0]!.toUpperCase() === 'INBOX';
}

/** The path in its one spelling: NFC, and INBOX at the top in capitals. Checks nothing; for look-ups. */
export function normalPath(path: readonly string[]): string[] {
  return path.map((name, depth) => (depth === 0 && isInbox([name]) ? 'INBOX' : name.normalize('NFC')));
}

/** The path in its one spelling. Throws `bad-name` for what may not be made. */
export function checkedPath(path: readonly string[]): string[] {
  if (path.length === 0) throw new MailError('bad-name', 'a mailbox needs a name');
  if (path.length > mailLimits.maxMailboxDepth) {
    throw new MailError('bad-name', `mailboxes nest at most ${mailLimits.maxMailboxDepth} deep`);
  }
  const normal = normalPath(path);
  for (const name of normal) {
    if (name.length === 0) throw new MailError('bad-name', 'a mailbox name must not be empty');
    if (Buffer.byteLength(name) > mailLimits.maxMailboxNameBytes) {
      throw new MailError('bad-name', `a mailbox name has at most ${mailLimits.maxMailboxNameBytes} bytes`);
    }
    if (forbidden.test(name)) throw new MailError('bad-name', "a mailbox name must not contain '/' or control characters");
    if (name.trim() !== name) throw new MailError('bad-name', 'a mailbox name must not begin or end with white space');
  }
  return normal;
}
