/**
 * MESSAGELIMIT (RFC 9738): how many messages one command works on. Of more, the highest UIDs are worked on, and the reply says how far down it got; what must
 * be done as a whole is refused. EXPUNGE, CLOSE and STATUS are never limited.
 */
import type { UidList } from '../../store/mail/contract.js';
import type { SessionContext } from './context.js';
import { no, Refusal, type Reply } from './replies.js';

/** Messages of one command; infinite where there is no limit. */
export function messageLimit(context: SessionContext): number {
  return context.services.limits.maxMessagesPerCommand || Number.POSITIVE_INFINITY;
}

/** Without brackets. `lowestUid` is the last that is, or would have been, worked on. */
function limitCode(context: SessionContext, lowestUid?: number): string {
  const code = `MESSAGELIMIT ${messageLimit(context)}`;
  return lowestUid === undefined ? code : `${code} ${lowestUid}`;
}

/** What of these UIDs (ascending) one command may work on; with `lowestUid` where that is not all of them. */
export function withinLimit<List extends UidList | number[]>(
  context: SessionContext,
  uids: List,
): { uids: List; lowestUid?: number } {
  const limit = messageLimit(context);
  if (uids.length <= limit) return { uids };
  const highest = uids.slice(-limit) as List;
  return { uids: highest, lowestUid: highest[0]! };
}

/** Of a command that does everything or nothing. */
export function refusedByLimit(context: SessionContext, lowestUid?: number): Refusal {
  return new Refusal(no('Too many messages for one command, name fewer', limitCode(context, lowestUid)));
}

/** The reply of a command that has done all it may: says where to go on, if there is more (3.1). */
export function repliedWithinLimit(context: SessionContext, reply: Reply, lowestUid: number | undefined): Reply {
  if (lowestUid === undefined) return reply;
  const code = limitCode(context, lowestUid);
  const text = `Only the last ${messageLimit(context)} messages were worked on`;
  if (reply.status === 'OK' && reply.code === undefined) return { ...reply, code, text };
  context.untagged(`NO [${code}] ${text}`);
  // 3.1: with both codes, EXPUNGEISSUED comes with OK.
  return reply.code === 'EXPUNGEISSUED' ? { ...reply, status: 'OK' } : reply;
}
