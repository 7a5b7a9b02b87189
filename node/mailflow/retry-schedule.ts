/** When a destination that could not be served is tried again, and when its sender is told. */
import type { Random } from '../../ops/telemetry/index.js';
import type { Destination, QueueMessage, QueueRecipient } from '../../store/queue/index.js';
import type { MailflowSettings } from './settings.js';

/**
 * Wall-clock seconds of the attempt after `attempts` (this one included): the schedule's next wait, up to a tenth longer or shorter so that what failed
 * together is not tried together, and not after the message's end.
 */
export function nextAttemptAtSeconds(
  settings: Pick<MailflowSettings, 'retryDelaysSeconds'>,
  attempts: number,
  nowMs: number,
  expiresAtMs: number,
  random: Random,
): number {
  const delays = settings.retryDelaysSeconds;
  const delaySeconds = delays[Math.min(Math.max(attempts, 1), delays.length) - 1] ?? 60;
  const jittered = delaySeconds * (0.9 + 0.2 * random.float());
  return Math.ceil(Math.min(nowMs / 1000 + jittered, Math.max(expiresAtMs, nowMs) / 1000 + 1));
}

/** Whether a message's time is over: what is deferred now fails. */
export function isExpired(message: Pick<QueueMessage, 'expiresAtMs'>, nowMs: number): boolean {
  return nowMs >= message.expiresAtMs;
}

/** RFC 3461 4.1: a delay is reported unless NOTIFY leaves DELAY out; once per recipient. */
export function wantsDelayReport(
  settings: Pick<MailflowSettings, 'delayReportAfterSeconds'>,
  message: Pick<QueueMessage, 'receivedAtMs'>,
  recipient: QueueRecipient,
  nowMs: number,
): boolean {
  if (recipient.isDelayNotified || nowMs - message.receivedAtMs < settings.delayReportAfterSeconds * 1000) return false;
  return recipient.notify === undefined || recipient.notify.includes('DELAY');
}

export function wantsFailureReport(recipient: Pick<QueueRecipient, 'notify'>): boolean {
  return recipient.notify === undefined || recipient.notify.includes('FAILURE');
}

export function wantsSuccessReport(recipient: Pick<QueueRecipient, 'notify'>): boolean {
  return recipient.notify?.includes('SUCCESS') ?? false;
}

/** Attempts so far, this one included. */
export function attemptNumber(destination: Pick<Destination, 'attempts'>): number {
  return destination.attempts + 1;
}
