/** What the history tells of an outcome. */
import type { ClaimedDestination, HistoryEvent, NewQueueMessage, QueueId } from '../../store/queue/index.js';
import { attemptNumber } from './retry-schedule.js';
import type { RecipientVerdict } from './types.js';

export interface AttemptFacts {
  tls?: string | undefined;
  nextAttemptAtMs?: number | undefined;
}

/** One attempt with what was said to each recipient. */
export function attemptEvent(
  { destination, claim }: ClaimedDestination,
  verdicts: readonly Pick<RecipientVerdict, 'address' | 'verdict' | 'reply'>[],
  { tls, nextAttemptAtMs }: AttemptFacts = {},
): HistoryEvent {
  return {
    kind: 'attempt',
    domain: destination.domain,
    isLocal: destination.isLocal,
    attempt: attemptNumber(destination),
    epoch: claim.epoch,
    results: verdicts.map(({ address, verdict, reply: { code, enhanced, text, host } }) =>
      host === undefined ? { address, verdict, code, enhanced, text } : { address, verdict, code, enhanced, text, host },
    ),
    omitted: 0,
    ...(tls !== undefined && { tls }),
    ...(nextAttemptAtMs !== undefined && { nextAttemptAtMs }),
  };
}

/** The beginning of a message that this node itself has made: a report, or what goes to a list's members. `madeFrom`: of which one. */
export function madeEvent(message: NewQueueMessage, madeFrom: QueueId): HistoryEvent {
  const recipients: string[] = [];
  let recipientCount = 0;
  for (const destination of message.destinations) {
    recipientCount += destination.recipients.length;
    for (const { address } of destination.recipients) if (recipients.length < 100) recipients.push(address);
  }
  return {
    kind: 'accepted',
    from: message.from,
    recipients,
    recipientCount,
    sizeBytes: message.blob.sizeBytes,
    protocol: message.source.protocol,
    checks: { 'made-from': madeFrom },
  };
}
