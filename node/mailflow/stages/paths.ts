/** Addresses that an expression has made of others: only what a client could have said itself. */
import { parsePath } from '../../../protocols/smtp/grammar/index.js';

/** The reverse-path of a rewritten sender, '' for null; undefined when it is none. */
export function rewrittenSender(text: string): string | undefined {
  return text === '' ? '' : addressOf(text, 'reverse');
}

/** Undefined when it is no address. */
export function rewrittenRecipient(text: string): string | undefined {
  return addressOf(text, 'forward');
}

function addressOf(text: string, direction: 'reverse' | 'forward'): string | undefined {
  const path = parsePath(`<${text}>`, direction, true);
  return 'problem' in path || path.rest !== '' ? undefined : path.mailbox?.address;
}
