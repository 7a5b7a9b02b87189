import { describe, expect, it } from 'vitest';
import type { QueueRecipient } from '../../store/queue/index.js';
import {
  delayReportsSent,
  expiryMs,
  isExpired,
  nextAttemptAtSeconds,
  nextDeadlineMs,
  type RetrySchedule,
  wantsDelayReport,
  wantsRelayTrace,
} from './retry-schedule.js';

const hour = 3_600_000;
const receivedAtMs = 1_000 * hour;
const message = { from: 'a@b.test', receivedAtMs, expiresAtMs: receivedAtMs + 120 * hour };
const schedule: RetrySchedule = { retryDelaysSeconds: [60, 600], notifyAfterSeconds: [3600, 4 * 3600] };
const pending: QueueRecipient = { address: 'x@y.test', status: 'pending' };
const told: QueueRecipient = { ...pending, isDelayNotified: true };
const waiting = (recipient: QueueRecipient, lastAttemptAtMs?: number) => ({
  attempts: 1,
  recipients: [recipient],
  ...(lastAttemptAtMs !== undefined && { lastAttemptAtMs }),
});
const midway = { float: () => 0.5, bytes: () => Buffer.alloc(0) };

describe('the next attempt', () => {
  it('follows the waits, of which the last repeats, and is not after the end or the time that the sender set', () => {
    const nowMs = receivedAtMs;
    const at = (attempts: number, change = {}, own = schedule) =>
      nextAttemptAtSeconds({ ...message, ...change }, own, attempts, nowMs, midway) - nowMs / 1000;
    expect([at(1), at(2), at(9)]).toEqual([60, 600, 600]);
    expect(at(2, { expiresAtMs: nowMs + 5_000 })).toBe(6);
    expect(at(2, {}, { ...schedule, expireAfterSeconds: 30 })).toBe(31);
    expect(at(2, { deliverBy: { untilMs: nowMs + 90_000, mode: 'return', isTraced: false } })).toBe(91);
    expect(at(2, { deliverBy: { untilMs: nowMs + 90_000, mode: 'notify', isTraced: false } })).toBe(91);
    expect(at(2, { deliverBy: { untilMs: nowMs - 1, mode: 'notify', isTraced: false } })).toBe(600);
  });
});

describe('the end', () => {
  it('counts from when a message that was held back could be delivered', () => {
    const held = { ...message, expiresAtMs: receivedAtMs + 220 * hour };
    const own = { ...schedule, expireAfterSeconds: 24 * 3600, acceptedForSeconds: 120 * 3600 };
    expect(expiryMs(message, own) - receivedAtMs).toBe(24 * hour);
    expect(expiryMs(held, own) - receivedAtMs).toBe(124 * hour);
    expect(isExpired(held, own, receivedAtMs + 100 * hour)).toBe(false);
    expect(wantsDelayReport(held, own, waiting(pending), pending, receivedAtMs + 50 * hour)).toBe(false);
  });
});

describe('delay reports', () => {
  it('are due once at each age, also when several were missed', () => {
    const due = (recipient: QueueRecipient, last: number | undefined, now: number) => {
      const destination = waiting(recipient, last === undefined ? undefined : receivedAtMs + last * hour);
      return wantsDelayReport(message, schedule, destination, recipient, receivedAtMs + now * hour);
    };
    expect(due(pending, undefined, 0.9)).toBe(false);
    expect(due(pending, 0.5, 1.1)).toBe(true);
    expect(due(told, 1.1, 2)).toBe(false);
    expect(due(told, 3.9, 4.1)).toBe(true);
    expect(due(told, 4.1, 90)).toBe(false);
    expect(due(pending, 0.5, 10)).toBe(true);
    expect(due(told, 10, 11)).toBe(false);
    expect(due({ ...pending, notify: ['FAILURE'] }, 0.5, 10)).toBe(false);
    expect(delayReportsSent(message, schedule, waiting(told, receivedAtMs + 10 * hour), told)).toBe(2);
  });
});

describe('deadlines of what waits without being tried', () => {
  const deadline = (recipient: QueueRecipient, last?: number, ...more: RetrySchedule[]) =>
    (nextDeadlineMs(message, waiting(recipient, last === undefined ? undefined : receivedAtMs + last * hour), schedule, ...more) -
      receivedAtMs) /
    hour;

  it('are the next notice, then the end', () => {
    expect(deadline(pending)).toBe(1);
    expect(deadline(told, 1.2)).toBe(4);
    expect(deadline(told, 5)).toBe(120);
    expect(deadline({ ...pending, notify: ['NEVER'] })).toBe(120);
    expect(nextDeadlineMs({ ...message, from: '' }, waiting(pending), schedule)).toBe(message.expiresAtMs);
  });

  it('are the earliest of all schedules, and never again what has been judged', () => {
    const quick: RetrySchedule = { retryDelaysSeconds: [60], notifyAfterSeconds: [600], expireAfterSeconds: 7200 };
    expect(deadline(pending, undefined, quick)).toBeCloseTo(1 / 6);
    expect(deadline({ ...pending, notify: ['NEVER'] }, 1, quick)).toBe(2);
    expect(deadline({ ...pending, notify: ['NEVER'] }, 3, quick)).toBe(120);
    // Overdue, and yet nobody has given it up: not at once again.
    expect(deadline(told, 121)).toBeGreaterThan(121);
  });
});

describe('RFC 2852 traces', () => {
  it('are sent when asked for or when the next server can’t keep the time, and not with NEVER', () => {
    const by = (mode: 'return' | 'notify', isTraced: boolean) => ({ deliverBy: { untilMs: 1, mode, isTraced } });
    expect(wantsRelayTrace({}, pending, false)).toBe(false);
    expect(wantsRelayTrace(by('return', true), pending, true)).toBe(true);
    expect(wantsRelayTrace(by('notify', false), pending, true)).toBe(false);
    expect(wantsRelayTrace(by('notify', false), pending, false)).toBe(true);
    expect(wantsRelayTrace(by('notify', true), { notify: ['NEVER'] }, false)).toBe(false);
  });
});
