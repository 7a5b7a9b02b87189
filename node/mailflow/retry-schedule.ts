/**
 * When a destination that could not be served is tried again, when its sender is told, and when it is given up. Pure: a schedule, a message and the time in,
 * decisions out.
 */
import type { Random } from '../../ops/telemetry/index.js';
import type { Destination, QueueMessage, QueueRecipient } from '../../store/queue/index.js';
import type { RetrySchedule } from './outcome-settings.js';
import type { MailflowSettings } from './settings.js';

export type { RetrySchedule } from './outcome-settings.js';

type TimedMessage = Pick<QueueMessage, 'receivedAtMs' | 'expiresAtMs' | 'deliverBy'> & { from?: string };
type TimedDestination = Pick<Destination, 'attempts' | 'lastAttemptAtMs'> & { recipients: readonly QueueRecipient[] };

/** The schedule of what has none of its own. */
export function defaultSchedule(
  settings: Pick<MailflowSettings, 'retryDelaysSeconds' | 'delayReportAfterSeconds' | 'messageLifetimeSeconds'>,
): RetrySchedule {
  return {
    retryDelaysSeconds: settings.retryDelaysSeconds,
    notifyAfterSeconds: [settings.delayReportAfterSeconds],
    acceptedForSeconds: settings.messageLifetimeSeconds,
  };
}

/** From when on a message could be delivered. */
function startMs({ receivedAtMs, expiresAtMs }: TimedMessage, { acceptedForSeconds }: RetrySchedule): number {
  return acceptedForSeconds === undefined ? receivedAtMs : Math.max(receivedAtMs, expiresAtMs - acceptedForSeconds * 1000);
}

/** When a message is given up: by its schedule, and never after the time that its sender set (RFC 2852, `R`). */
export function expiryMs(message: TimedMessage, schedule: RetrySchedule): number {
  const { expireAfterSeconds } = schedule;
  const { deliverBy } = message;
  const byAge = expireAfterSeconds === undefined ? message.expiresAtMs : startMs(message, schedule) + expireAfterSeconds * 1000;
  return deliverBy?.mode === 'return' ? Math.min(byAge, deliverBy.untilMs) : byAge;
}

/** Whether a message's time is over: what is deferred now fails. */
export function isExpired(message: TimedMessage, schedule: RetrySchedule, nowMs: number): boolean {
  return nowMs >= expiryMs(message, schedule);
}

/** RFC 2852 4.1.3: what its sender wants back by then is not delivered any more. */
export function isPastDeliverBy({ deliverBy }: Pick<QueueMessage, 'deliverBy'>, nowMs: number): boolean {
  return deliverBy?.mode === 'return' && nowMs >= deliverBy.untilMs;
}

/**
 * Wall-clock seconds of the attempt after this one: the schedule's next wait, up to a tenth longer or shorter so that what failed together is not tried
 * together, and not after the message's end or the time by which its sender wants to hear of it.
 */
export function nextAttemptAtSeconds(
  message: TimedMessage,
  schedule: RetrySchedule,
  attempts: number,
  nowMs: number,
  random: Random,
): number {
  const delays = schedule.retryDelaysSeconds;
  const delaySeconds = delays[Math.min(Math.max(attempts, 1), delays.length) - 1] ?? 60;
  const jittered = delaySeconds * (0.9 + 0.2 * random.float());
  let latestMs = Math.max(expiryMs(message, schedule), nowMs);
  const { deliverBy } = message;
  if (deliverBy?.mode === 'notify' && deliverBy.untilMs > nowMs) latestMs = Math.min(latestMs, deliverBy.untilMs);
  return Math.ceil(Math.min(nowMs / 1000 + jittered, latestMs / 1000 + 1));
}

/** Times at which the sender is told of a delay, ascending: the schedule's, and that of RFC 2852 (`N`). */
function noticeTimesMs(message: TimedMessage, schedule: RetrySchedule): number[] {
  const times = schedule.notifyAfterSeconds.map((seconds) => startMs(message, schedule) + seconds * 1000);
  if (message.deliverBy?.mode === 'notify') times.push(message.deliverBy.untilMs);
  return times.sort((a, b) => a - b);
}

/** RFC 3461 4.1: a delay is reported unless NOTIFY leaves DELAY out. */
export function wantsDelayReports({ notify }: Pick<QueueRecipient, 'notify'>): boolean {
  return notify === undefined || notify.includes('DELAY');
}

/** Delay reports that this recipient's sender has had: those whose time had come by the last attempt. */
export function delayReportsSent(
  message: TimedMessage,
  schedule: RetrySchedule,
  destination: Pick<Destination, 'lastAttemptAtMs'>,
  recipient: QueueRecipient,
): number {
  if (!recipient.isDelayNotified) return 0;
  const { lastAttemptAtMs } = destination;
  // Told by a delivery that has not come to its end.
  if (lastAttemptAtMs === undefined) return 1;
  return Math.max(1, noticeTimesMs(message, schedule).filter((time) => time <= lastAttemptAtMs).length);
}

/** Whether a notice's time has come since the last one. Several that were missed together are one. */
export function wantsDelayReport(
  message: TimedMessage,
  schedule: RetrySchedule,
  destination: Pick<Destination, 'lastAttemptAtMs'>,
  recipient: QueueRecipient,
  nowMs: number,
): boolean {
  if (!wantsDelayReports(recipient)) return false;
  const times = noticeTimesMs(message, schedule);
  const sent = delayReportsSent(message, schedule, destination, recipient);
  const next = times[sent];
  return next !== undefined && nowMs >= next;
}

/**
 * When something must happen to a destination that waits without being tried (its domain is down, or paused): the next delay notice, or its end under any of
 * the schedules that may be chosen for it. Milliseconds of the wall clock; in the past when it has come already.
 */
export function nextDeadlineMs(
  message: TimedMessage,
  destination: TimedDestination,
  ...schedules: readonly [RetrySchedule, ...RetrySchedule[]]
): number {
  const pending = destination.recipients.filter(({ status }) => status === 'pending');
  const seenMs = destination.lastAttemptAtMs ?? message.receivedAtMs;
  let deadlineMs = Number.POSITIVE_INFINITY;
  for (const schedule of schedules) {
    const times = [expiryMs(message, schedule)];
    if (message.from !== '') {
      const notices = noticeTimesMs(message, schedule);
      for (const recipient of pending) {
        if (!wantsDelayReports(recipient)) continue;
        const next = notices[delayReportsSent(message, schedule, destination, recipient)];
        if (next !== undefined) times.push(next);
      }
    }
    // What had come by the last attempt was judged there, by the schedule that held.
    for (const time of times)
      if (time > seenMs || destination.lastAttemptAtMs === undefined) deadlineMs = Math.min(deadlineMs, time);
  }
  return deadlineMs === Number.POSITIVE_INFINITY
    ? Math.max(expiryMs(message, schedules[0]), seenMs + retryOverdueMs)
    : deadlineMs;
}

/** What is overdue and yet was not given up is looked at again after this. */
const retryOverdueMs = 600_000;

/** Failures are reported unless NOTIFY leaves FAILURE out (RFC 3461 4.1). */
export function wantsFailureReport(recipient: Pick<QueueRecipient, 'notify'>): boolean {
  return recipient.notify === undefined || recipient.notify.includes('FAILURE');
}

export function wantsSuccessReport(recipient: Pick<QueueRecipient, 'notify'>): boolean {
  return recipient.notify?.includes('SUCCESS') ?? false;
}

/** RFC 2852 4.1.4: relaying is told when a trace is asked for, or when the next server can't keep the time; NOTIFY=NEVER silences that too. */
export function wantsRelayTrace(
  { deliverBy }: Pick<QueueMessage, 'deliverBy'>,
  { notify }: Pick<QueueRecipient, 'notify'>,
  isPassedOn: boolean,
): boolean {
  if (!deliverBy || notify?.includes('NEVER')) return false;
  return deliverBy.isTraced || (deliverBy.mode === 'notify' && !isPassedOn);
}

/** Attempts so far, this one included. */
export function attemptNumber(destination: Pick<Destination, 'attempts'>): number {
  return destination.attempts + 1;
}
