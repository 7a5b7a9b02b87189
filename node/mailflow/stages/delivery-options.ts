/** What a client may ask of the way of its message with MAIL: MT-PRIORITY (RFC 6710), FUTURERELEASE (RFC 4865), DELIVERBY (RFC 2852). */
import { type Reply, reply } from '../../../protocols/smtp/grammar/index.js';
import type { MailParameters } from '../../../protocols/smtp/server/handler.js';
import type { Asker } from './ask.js';
import type { AcceptStages } from './contract.js';
import type { Facts } from './facts.js';
import type { DeliveryOptions } from './state.js';

/** Whether there is anything to decide. */
export function asksForOptions({ mtPriority, hold, deliverBy }: MailParameters): boolean {
  return mtPriority !== undefined || hold !== undefined || deliverBy !== undefined;
}

/** What is granted, or why not. The session has held times against its limits. A priority that is lowered is written back: the client is told of it. */
export async function grantOptions(
  { mail }: AcceptStages,
  asker: Asker,
  parameters: MailParameters,
  facts: () => Facts,
  nowMs: number,
): Promise<DeliveryOptions | { refusal: Reply }> {
  const options: DeliveryOptions = { priority: 0 };
  const { mtPriority, hold, deliverBy } = parameters;
  if (mtPriority !== undefined) {
    const max = await asker.ask(mail.maxPriority, facts);
    const min = await asker.ask(mail.minPriority, facts);
    options.priority = Math.max(-9, Math.min(9, Math.max(min, Math.min(max, mtPriority))));
    // RFC 6710 5.1: the session tells of another priority than the client's own.
    parameters.mtPriority = options.priority;
  }
  if (hold !== undefined) {
    const untilMs = 'untilMs' in hold ? hold.untilMs : nowMs + hold.forSeconds * 1000;
    if (untilMs > nowMs) options.notBeforeSeconds = Math.ceil(untilMs / 1000);
  }
  if (deliverBy !== undefined) {
    const { seconds, mode, isTraced } = deliverBy;
    options.deliverBy = { untilMs: nowMs + seconds * 1000, mode, isTraced };
    // RFC 2852 4: held longer than it may take, it could only come back.
    if (
      mode === 'return' &&
      options.notBeforeSeconds !== undefined &&
      options.notBeforeSeconds * 1000 >= options.deliverBy.untilMs
    )
      return { refusal: reply(501, '5.5.4', 'It can not be delivered before it may be released') };
  }
  return options;
}
