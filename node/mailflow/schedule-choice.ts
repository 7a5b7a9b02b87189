/** Which schedule a destination keeps to: named by an expression over what is known of it. */
import type { Admission, ClaimedDestination } from '../../store/queue/index.js';
import type { StageEvaluator, StageFacts } from '../expressions/index.js';
import { errorClassOf, queueFacts } from './outbound/facts.js';
import { defaultSchedule, delayReportsSent, expiryMs, nextDeadlineMs, type RetrySchedule } from './retry-schedule.js';
import type { MailflowSettings } from './settings.js';
import type { RecipientVerdict } from './types.js';

/** `stageVariables.queue` of a destination; `verdict`: what was just said to its first recipient. */
export function outcomeFacts(
  { message, destination, claim }: ClaimedDestination,
  verdict: RecipientVerdict | undefined,
  settings: MailflowSettings,
  nowMs: number,
): Partial<StageFacts> {
  const schedule = defaultSchedule(settings);
  const pending = destination.recipients.find(({ address }) => address === verdict?.address) ?? destination.recipients[0];
  const reply = verdict?.reply ?? pending?.lastReply;
  return {
    ...queueFacts({ message, destination }, { node_id: claim.nodeId, hostname: settings.hostname }, nowMs),
    notify_num: pending ? delayReportsSent(message, schedule, destination, pending) : 0,
    last_error: errorClassOf(reply),
    last_status: reply?.code ?? 0,
    expires_in: Math.max(0, Math.floor((expiryMs(message, schedule) - nowMs) / 1000)),
    recipient: pending?.address ?? '',
  };
}

/** The schedule of a destination of which something waits on, deferred now or before (a delivery may save in several steps); the default one where nothing does. */
export async function chooseSchedule(
  settings: MailflowSettings,
  {
    claimed,
    verdicts,
    keepClaim = false,
  }: { claimed: ClaimedDestination; verdicts: readonly RecipientVerdict[]; keepClaim?: boolean | undefined },
  nowMs: number,
  evaluator: StageEvaluator,
): Promise<RetrySchedule> {
  const { scheduleFor, schedules } = settings.outcomes;
  const deferred = verdicts.find(({ verdict }) => verdict === 'deferred') ?? (keepClaim ? undefined : waiting(claimed, verdicts));
  if (!scheduleFor || !deferred) return defaultSchedule(settings);
  const name = await scheduleFor(outcomeFacts(claimed, deferred, settings, nowMs), evaluator);
  return withDefaults(schedules.get(name), settings);
}

/** A recipient that these verdicts leave as an earlier one has left it. */
function waiting({ destination }: ClaimedDestination, verdicts: readonly RecipientVerdict[]): RecipientVerdict | undefined {
  const decided = new Set(verdicts.map(({ address }) => address));
  const rest = destination.recipients.find(({ address, status }) => status === 'pending' && !decided.has(address));
  return rest?.lastReply && { address: rest.address, verdict: 'deferred', reply: rest.lastReply };
}

function withDefaults(schedule: RetrySchedule | undefined, settings: MailflowSettings): RetrySchedule {
  return schedule ? { ...schedule, acceptedForSeconds: settings.messageLifetimeSeconds } : defaultSchedule(settings);
}

/** All that may be chosen for some destination, the default one first: for `nextDeadlineMs`, which must answer at once. */
export function allSchedules(settings: MailflowSettings): [RetrySchedule, ...RetrySchedule[]] {
  const { scheduleFor, schedules } = settings.outcomes;
  const named = scheduleFor ? [...schedules.values()].map((one) => withDefaults(one, settings)) : [];
  return [defaultSchedule(settings), ...named];
}

/** For the queue's runner: when something must happen to a destination that waits without being tried. */
export function deadlineSecondsOf(settings: () => MailflowSettings): Admission['deadlineSecondsOf'] {
  return (message, destination) => Math.ceil(nextDeadlineMs(message, destination, ...allSchedules(settings())) / 1000);
}
