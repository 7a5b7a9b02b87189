/** What the mail flow counts. */
import { counter, histogram } from '../../ops/telemetry/index.js';

/**
 * `event`: accepted, refused (at the end of its body), completed (last destination done), bounced (a failure report was queued), delayed (a delay
 * report), reported (a success report), double-bounced (a report could not be delivered), report-suppressed
 * (above the limit of its sender), expanded (a list), dropped (taken and thrown away: spam traps, scripts).
 */
export const messagesTotal = counter('starling_queue_messages_total', 'Messages by what happened to them.', ['event']);

/** `kind`: local or remote. `result` per recipient: delivered, relayed, expanded, failed, deferred, unknown; lost: the claim was. */
export const attemptsTotal = counter('starling_delivery_attempts_total', 'Recipients by the result of an attempt.', [
  'kind',
  'result',
]);

/** From the acceptance to the commit that put a message into a mailbox. */
export const deliverySeconds = histogram('starling_delivery_seconds', 'From accept to mailbox.');

/** Messages in one transaction of a mailbox. */
export const combinedMessages = histogram(
  'starling_delivery_combined_messages',
  'Messages that one local delivery transaction carried.',
  [],
  [1, 2, 4, 8, 16, 32],
);
