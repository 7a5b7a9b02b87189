/** The way from a recipient that may be named to where its mail goes. */
import type { Reply } from '../../../protocols/smtp/grammar/index.js';
import type { RecipientCommand, SessionInfo } from '../../../protocols/smtp/server/handler.js';
import type { AcceptedRecipient } from '../types.js';
import { type RoutingDependencies, routeRecipient } from './recipient.js';
import { routeRedirects, unroutable } from './redirects.js';
import type { AdmittedRecipient, StageRoom } from './stage-room.js';
import type { Transaction } from './state.js';

/** The recipient as the script at RCPT has left it: with copies for others, or others in its place. */
export async function routeAdmitted(
  d: RoutingDependencies,
  room: StageRoom,
  session: SessionInfo,
  transaction: Transaction,
  command: RecipientCommand,
  { address, script }: Pick<AdmittedRecipient, 'address' | 'script'>,
): Promise<AcceptedRecipient | Reply> {
  const { mail } = transaction;
  if (script && !script.isKept) {
    const routed = await routeRedirects(d, mail, script.redirects, command);
    if ('code' in routed) return routed;
    const [first, ...also] = routed;
    return also.length === 0 ? first! : { ...first!, also };
  }
  const routed = await routeRecipient(d, mail, command, address, () => room.mayRelay(session, transaction, command));
  if ('code' in routed || !script) return routed;
  const also = await routeRedirects(d, mail, script.redirects, 'copies');
  if (!('code' in also)) return { ...routed, also };
  return room.scripts?.failed('rcpt', script.script, session, transaction, unroutable(also))?.refusal ?? routed;
}
