/** The replies of the receiving side, so that the same refusal always has the same code and sentence. */

import type { Reply } from '../../protocols/smtp/grammar/index.js';
import { reply } from '../../protocols/smtp/grammar/index.js';
import { KvError } from '../../store/kv/contract.js';

export const replies = {
  draining: reply(421, '4.3.2', 'Service is shutting down, try another server'),
  banned: reply(421, '4.7.0', 'Nothing is taken from your address now'),
  authenticationRequired: reply(530, '5.7.0', 'Authentication required'),
  senderNotYours: reply(553, '5.7.1', 'You may not send as this address'),
  fromNotYours: reply(550, '5.7.1', 'You may not send with this From address'),
  unknownRecipient: reply(550, '5.1.1', 'No such recipient here'),
  disabledRecipient: reply(550, '5.2.1', 'This mailbox is disabled'),
  relayDenied: reply(550, '5.7.1', 'Relaying denied'),
  badDomain: reply(550, '5.1.2', 'The recipient domain is not valid'),
  tooManyRecipients: reply(452, '4.5.3', 'Too many recipients for one message'),
  fullTemporary: reply(452, '4.2.2', 'The mailbox is full'),
  fullPermanent: reply(552, '5.2.2', 'The mailbox is full'),
  loop: reply(554, '5.4.6', 'Too many hops: this message is in a loop'),
  headerTooLarge: reply(552, '5.3.4', 'The message header is too large'),
  malformedHeader: reply(554, '5.6.0', 'The message header begins with a continuation line'),
  severalFrom: reply(554, '5.6.0', 'The message has more than one From field'),
  queueFull: reply(452, '4.3.1', 'Too much is waiting to be delivered, try again later'),
  messageTooLarge: reply(552, '5.3.4', 'The message is larger than what is taken from you'),
  badRewrite: reply(451, '4.3.5', 'This address can not be handled now'),
  noSpace: reply(452, '4.3.1', 'Insufficient storage, try again later'),
  storeDown: reply(451, '4.3.0', 'Temporary failure, try again later'),
} as const satisfies Record<string, Reply>;

/** What a client is told of an error of the store. */
export function replyOfError(error: unknown): Reply {
  if (!(error instanceof KvError)) return replies.storeDown;
  if (error.code === 'too-large') return replies.tooManyRecipients;
  return error.reason === 'no-space' ? replies.noSpace : replies.storeDown;
}
