/** What one host's answers mean: for each recipient, for the other hosts of the destination, and for the destination's standing. */
import type { Logger } from '../../../ops/telemetry/index.js';
import type { RecipientResult, SendResult } from '../../../protocols/smtp/client/contract.js';
import type { ClaimedDestination, QueueRecipient } from '../../../store/queue/index.js';
import { attemptsTotal } from '../metrics.js';
import type { DeliveryReply, RecipientVerdict } from '../types.js';
import type { PaceResult } from './contract.js';

/** Recipients that no host has decided about, each with what was said last. */
export type OpenRecipients = Map<string, RecipientVerdict>;

export interface Answer {
  verdicts: RecipientVerdict[];
  /** Another host may do better for these; what this one said is kept in case that there is none. */
  open: OpenRecipients;
  /** Addresses (in `open`, too) that did not fit into this transaction: the same host takes them in the next. */
  again: ReadonlySet<string>;
  /** `unreachable`: the host could not be brought to take any message. `ours`: it was not asked. */
  standing: 'reached' | 'unreachable' | 'ours';
  pace: PaceResult;
  reply?: DeliveryReply;
  /** How the connection was protected. */
  tls?: string | undefined;
  /** The peer has taken over the watch over RFC 2852's time. */
  isDeliverByPassedOn?: boolean | undefined;
  /** This machine has no way to the address's family: no attempt at the host. */
  isNetworkMissing?: boolean;
}

/** Whom was spoken to. */
export interface Peer {
  host: string;
  address: string;
  tls: string | undefined;
}

export function sameVerdict(
  recipients: readonly QueueRecipient[],
  verdict: Omit<RecipientVerdict, 'address'>,
): RecipientVerdict[] {
  return recipients.map(({ address }) => ({ address, ...verdict }));
}

/** The connection was gone before the peer could say a word about this message. */
export function isDeadConnection({ outcome, code, stage }: RecipientResult): boolean {
  return outcome === 'temporary' && (stage === 'mail' || stage === 'rset') && (code === 0 || code === 421);
}

/** What the peer said of the message or of a recipient stands for its whole domain; what it said of its own state does not. */
function mayOtherHostDoBetter({ wide, code, stage, outcome }: RecipientResult): boolean {
  if (!wide || code === 0) return wide;
  return outcome === 'temporary' && stage !== 'data' && stage !== 'end-of-data';
}

/** RFC 5321 4.5.3.1.10: too many recipients for one transaction. */
const isTooMany = ({ outcome, stage, enhanced }: RecipientResult): boolean =>
  outcome === 'temporary' && stage === 'rcpt' && enhanced === '4.5.3';

/** The peer hung up or said farewell before the message was its. */
const isSessionLost = ({ outcome, code, wide }: RecipientResult): boolean =>
  outcome === 'temporary' && wide && (code === 0 || code === 421);

/** Content has no part in it: one message that makes its host hang up, or that can't be read here, must not stop the mail of a whole domain. */
const isBeforeContent = ({ stage }: RecipientResult): boolean => stage !== 'data' && stage !== 'end-of-data';

export function answerOf(logger: Logger, peer: Peer, claimed: ClaimedDestination, result: SendResult): Answer {
  const { recipients: results, dsnPassedOn, deliverByPassedOn } = result;
  const isProgress = results.some((one) => !isTooMany(one));
  const verdicts: RecipientVerdict[] = [];
  const open: OpenRecipients = new Map();
  const again = new Set<string>();
  for (const one of results) {
    const { address, outcome, code, enhanced, text } = one;
    const reply: DeliveryReply = { code, enhanced, text, host: peer.host };
    const facts = { address, reply, ip: peer.address, tls: peer.tls };
    if (outcome === 'delivered') {
      verdicts.push({ ...facts, verdict: 'relayed', dsnPassedOn });
    } else if (outcome === 'unknown') {
      attemptsTotal.inc({ kind: 'remote', result: 'unknown' });
      verdicts.push({ ...facts, verdict: 'deferred', isUnknown: true });
    } else {
      const verdict = { ...facts, verdict: outcome === 'permanent' ? ('failed' as const) : ('deferred' as const) };
      const isOver = isProgress && isTooMany(one);
      if (isOver) again.add(address);
      if (isOver || mayOtherHostDoBetter(one)) open.set(address, verdict);
      else verdicts.push(verdict);
    }
  }
  logAnswer(logger, peer, claimed, results);
  const first = results[0];
  const isLost = results.length > 0 && results.every(isSessionLost);
  const standing = isLost && results.every(isBeforeContent) ? 'unreachable' : 'reached';
  const isUnwilling = results.every(({ outcome, stage, wide }) => outcome === 'temporary' && wide && stage === 'mail');
  const answer: Answer = {
    verdicts,
    open,
    again,
    standing,
    pace: isLost || isUnwilling ? 'bad' : 'good',
    tls: peer.tls,
    isDeliverByPassedOn: deliverByPassedOn,
  };
  if (first) answer.reply = { code: first.code, enhanced: first.enhanced, text: first.text, host: peer.host };
  return answer;
}

function logAnswer(
  logger: Logger,
  peer: Peer,
  { message, destination }: ClaimedDestination,
  results: readonly RecipientResult[],
): void {
  const counts: Record<string, number> = {};
  for (const { outcome } of results) counts[outcome] = (counts[outcome] ?? 0) + 1;
  const facts = {
    queueId: message.id,
    domain: destination.domain,
    ...peer,
    ...counts,
    code: results[0]?.code,
    text: results[0]?.text,
  };
  if (counts['unknown']) logger.warn(facts, 'the peer may have taken the message without saying so; it will be sent again');
  else logger.info(facts, 'delivery attempt');
}
