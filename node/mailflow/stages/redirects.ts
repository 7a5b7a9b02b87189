/** Where mail goes that a script has sent elsewhere. Operators' scripts may send it to any address; what the directory refuses can't be done. */
import type { Reply } from '../../../protocols/smtp/grammar/index.js';
import type { MailCommand, RecipientCommand } from '../../../protocols/smtp/server/handler.js';
import { replies } from '../replies.js';
import type { AcceptedRecipient } from '../types.js';
import { rewrittenRecipient } from './paths.js';
import { type RoutingDependencies, routeRecipient } from './recipient.js';

/** A copy's sender knows nothing of it, so nothing is told of it. */
const ofCopies: RecipientCommand['parameters'] = { notify: ['NEVER'] };

/** @param original the recipient in whose place they are: reports name that one (RFC 3461 5.2.7.1); `none` where they replace all, `copies` where they come on top. */
export async function routeRedirects(
  d: RoutingDependencies,
  mail: MailCommand,
  addresses: readonly string[],
  original: RecipientCommand | 'none' | 'copies',
): Promise<AcceptedRecipient[] | Reply> {
  const routed: AcceptedRecipient[] = [];
  for (const written of addresses) {
    const address = rewrittenRecipient(written);
    if (address === undefined) return { ...replies.badRewrite, text: `A script gives ${written.slice(0, 100)} as an address` };
    const command = typeof original === 'object' ? original : { address, parameters: original === 'copies' ? ofCopies : {} };
    const one = await routeRecipient(d, mail, command, address, () => true);
    if ('code' in one) return one;
    routed.push(one);
  }
  return routed;
}

/** For the log. */
export function unroutable({ code, text }: Reply): Error {
  return new Error(`a redirection is not possible: ${code} ${[text].flat().join(' ')}`);
}
