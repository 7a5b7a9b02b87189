/**
 * Saves what an attempt brought: statuses, the next attempt, the reports that follow from them and the history, in one transaction (TRAPS 14). Used by
 * remote and local delivery for everything but the plain insert into a mailbox.
 */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { BlobStore } from '../../store/blobs/index.js';
import type { Directory } from '../../store/directory/contract.js';
import { KvError, type KvStore, type KvTransaction } from '../../store/kv/contract.js';
import {
  type ClaimedDestination,
  createHistory,
  type Destination,
  type HistoryEvent,
  type Queue,
  type QueueMessage,
  type QueueRecipient,
  type SaveInput,
  type SaveOutcome,
} from '../../store/queue/index.js';
import { createStageEvaluator, type ExpressionHost, type StageEvaluator } from '../expressions/index.js';
import type { ReportAction, ReportedRecipient, ReportKind } from './dsn.js';
import { attemptsTotal, messagesTotal } from './metrics.js';
import { attemptEvent, madeEvent } from './outcome-history.js';
import { type PlannedReport, planReport, ReportBrake } from './reports.js';
import {
  attemptNumber,
  expiryMs,
  isExpired,
  isPastDeliverBy,
  nextAttemptAtSeconds,
  type RetrySchedule,
  wantsDelayReport,
  wantsFailureReport,
  wantsRelayTrace,
  wantsSuccessReport,
} from './retry-schedule.js';
import { chooseSchedule, outcomeFacts } from './schedule-choice.js';
import type { MailflowSettings } from './settings.js';
import { createSettleBatch } from './settle-batch.js';
import type { DeliveryReply, RecipientVerdict } from './types.js';

export interface SettleDependencies {
  kv: KvStore;
  queue: Queue;
  blobs: BlobStore;
  directory: Pick<Directory, 'isLocalDomain'>;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** What holds now; read once for what must fit together. */
  settings: () => MailflowSettings;
  /** Whom expressions ask. */
  host?: ExpressionHost | undefined;
}

export interface SettleInput {
  claimed: ClaimedDestination;
  verdicts: readonly RecipientVerdict[];
  /** For metrics and log. */
  kind: 'local' | 'remote';
  /** More of this destination is still being worked on by this claim. */
  keepClaim?: boolean | undefined;
  /** How the connection was protected; for the history. */
  tls?: string | undefined;
  /** The server that has taken it keeps to the time of RFC 2852. */
  isDeliverByPassedOn?: boolean | undefined;
  /** Recipients that are lists. */
  lists?: ReadonlySet<string> | undefined;
  /** Nothing was tried: the destination is down or paused, or an operator has ended it. */
  isUnattempted?: boolean | undefined;
  /** Further events of the same transaction. */
  events?: readonly HistoryEvent[] | undefined;
  /** Runs in the same transaction, after the claim was asserted: what the verdicts stand for (mailbox inserts, a list's new message). */
  alongside?: ((tx: KvTransaction) => Promise<void>) | undefined;
}

interface Plan {
  results: SaveInput['results'];
  /** What became of each recipient, the message's end considered. */
  verdicts: RecipientVerdict[];
  reports: PlannedReport[];
  nextDueAtSeconds: number;
  /** Failed with nobody to tell. */
  doubleBounced: number;
  /** Reports that the limit swallowed. */
  suppressed: number;
}

/** Saves verdicts. Throws ClaimLost when they may not be saved, KvError when the store can't. */
export type Settle = (input: SettleInput) => Promise<SaveOutcome>;

export function createSettle(dependencies: SettleDependencies): Settle {
  const { kv, queue, clock, logger } = dependencies;
  const history = createHistory(dependencies);
  const planning: Planning = { ...dependencies, evaluator: createStageEvaluator(dependencies) };
  const brake = new ReportBrake(clock);
  const together = createSettleBatch<Saved>(kv, queue, isStoreTrouble);
  return async (input) => {
    const { claimed, kind } = input;
    const nowMs = clock.nowMs();
    const plan = await planResults(planning, brake, input, nowMs);
    const nodeId = claimed.claim.nodeId;
    const save = async (tx: KvTransaction, current: Destination): Promise<Saved> => {
      const pending = new Set(current.recipients.filter(isPending).map(({ address }) => address));
      const isFresh = plan.results.every(({ address }) => pending.has(address));
      // Not fresh only when an earlier run of this body was committed after all, with the claim kept.
      if (isFresh) {
        await input.alongside?.(tx);
        for (const { message } of plan.reports) {
          await queue.enqueue(tx, message, { nowSeconds: Math.floor(nowMs / 1000) });
          history.append(tx, message.id, { atMs: nowMs, nodeId, event: madeEvent(message, claimed.message.id) });
        }
      }
      const results = isFresh ? plan.results : [];
      const outcome = await queue.save(tx, claimed, {
        results,
        nextDueAtSeconds: plan.nextDueAtSeconds,
        keepClaim: input.keepClaim,
        attempted: isFresh && !input.keepClaim ? { atMs: nowMs } : undefined,
        current,
      });
      const [event, ...more] = isFresh ? eventsOf(input, plan, outcome) : [];
      if (event) history.append(tx, claimed.message.id, { atMs: nowMs, nodeId, event }, ...more);
      return { outcome, recipients: withResults(current.recipients, results) };
    };
    // What writes nothing else can't fail half-way, and goes together with others that are ready now.
    const isPlain = input.alongside === undefined && plan.reports.length === 0;
    const { outcome, recipients } = isPlain
      ? await together({ claimed, sizeBytes: savedBytes(claimed), save })
      : await kv.transact(async (tx) => save(tx, await queue.current(tx, claimed)), { label: 'settle' });
    // What is saved is known to the claim's next try, too: a delivery that begins anew must not serve anybody twice.
    claimed.destination = { ...claimed.destination, recipients };
    announce(dependencies, brake, input, plan, outcome);
    for (const { address, verdict, reply } of input.verdicts) {
      attemptsTotal.inc({ kind, result: verdict });
      if (verdict === 'failed') logger.info({ queueId: claimed.message.id, recipient: address, reply }, 'recipient failed');
    }
    return outcome;
  };
}

interface Saved {
  outcome: SaveOutcome;
  recipients: QueueRecipient[];
}

/** What a save of this destination writes at most: its record with a reply for each recipient, and the same for the history. */
function savedBytes({ destination }: ClaimedDestination): number {
  return 2_000 + destination.recipients.length * 2_000;
}

/** In the order in which it happened. */
function eventsOf(input: SettleInput, plan: Plan, outcome: SaveOutcome): HistoryEvent[] {
  const events: HistoryEvent[] = [];
  if (plan.verdicts.length > 0) {
    const isLater = !outcome.isDestinationDone && !input.keepClaim;
    const nextAttemptAtMs = isLater ? plan.nextDueAtSeconds * 1000 : undefined;
    events.push(attemptEvent(input.claimed, plan.verdicts, { tls: input.tls, nextAttemptAtMs }));
  }
  if (input.events) events.push(...input.events);
  for (const { kind, message, addresses } of plan.reports) {
    events.push({ kind: 'report', report: kind, id: message.id, recipients: addresses.length });
  }
  if (outcome.isMessageDone) events.push({ kind: 'done' });
  return events;
}

/** The recipients as a save leaves them. */
function withResults(recipients: QueueRecipient[], results: Plan['results']): QueueRecipient[] {
  const byAddress = new Map(results.map((result) => [result.address, result]));
  return recipients.map((recipient) => {
    const result = byAddress.get(recipient.address);
    if (!result || !isPending(recipient)) return recipient;
    const { status, lastReply = recipient.lastReply, isDelayNotified = recipient.isDelayNotified } = result;
    return { ...recipient, status, lastReply, isDelayNotified };
  });
}

type Planning = SettleDependencies & { evaluator: StageEvaluator };

type Reported = Record<ReportKind, ReportedRecipient[]>;

/** Everything that follows from the verdicts, decided before the transaction; inside it only the claim is asserted. */
async function planResults(d: Planning, brake: ReportBrake, input: SettleInput, nowMs: number): Promise<Plan> {
  const { claimed } = input;
  const { message, destination } = claimed;
  const settings = d.settings();
  const schedule = await chooseSchedule(settings, input, nowMs, d.evaluator);
  const reported: Reported = { failed: [], delayed: [], success: [] };
  const plan: Plan = {
    results: [],
    verdicts: [],
    reports: [],
    doubleBounced: 0,
    suppressed: 0,
    nextDueAtSeconds: nextAttemptAtSeconds(message, schedule, attemptNumber(destination), nowMs, d.random),
  };
  const byAddress = new Map(destination.recipients.map((recipient) => [recipient.address, recipient]));
  for (const verdict of input.verdicts) {
    const recipient = byAddress.get(verdict.address);
    if (recipient) judge({ input, schedule, nowMs, plan, reported }, recipient, verdict);
  }
  if (message.from === '') return plan;
  for (const kind of ['failed', 'delayed', 'success'] as const) {
    const recipients = reported[kind];
    if (recipients.length === 0) continue;
    if (
      kind !== 'success' &&
      isFromOutside(message) &&
      !brake.allows(message.from, settings.outcomes.maxReportsPerSenderPerHour)
    ) {
      plan.suppressed += recipients.length;
      continue;
    }
    const facts = outcomeFacts(claimed, input.verdicts[0], settings, nowMs);
    const expiresAtMs = expiryMs(message, schedule);
    const lastAttemptAtMs = input.isUnattempted ? destination.lastAttemptAtMs : nowMs;
    plan.reports.push(await planReport(d, { kind, message, recipients, nowMs, expiresAtMs, lastAttemptAtMs, facts }));
  }
  return plan;
}

interface Judgement {
  input: SettleInput;
  schedule: RetrySchedule;
  nowMs: number;
  plan: Plan;
  reported: Reported;
}

/** What a verdict makes of one recipient. */
function judge({ input, schedule, nowMs, plan, reported }: Judgement, recipient: QueueRecipient, given: RecipientVerdict): void {
  const { message, destination } = input.claimed;
  const { address, verdict } = given;
  if (verdict === 'deferred' && !isExpired(message, schedule, nowMs)) {
    const { reply } = given;
    const isDelayed = wantsDelayReport(message, schedule, destination, recipient, nowMs);
    if (isDelayed) reported.delayed.push({ recipient, action: 'delayed', reply, ...lateStatus(message, nowMs) });
    plan.results.push({ address, status: 'pending', lastReply: reply, isDelayNotified: isDelayed || undefined });
    plan.verdicts.push(given);
  } else if (verdict === 'deferred' || verdict === 'failed') {
    const reply = verdict === 'deferred' && isPastDeliverBy(message, nowMs) ? timeIsOver : given.reply;
    if (message.from === '') plan.doubleBounced++;
    else if (wantsFailureReport(recipient)) reported.failed.push({ recipient, action: 'failed', reply });
    plan.results.push({ address, status: 'failed', lastReply: reply });
    plan.verdicts.push({ ...given, verdict: 'failed', reply });
  } else {
    const { reply } = given;
    const isTrace = verdict === 'relayed' && wantsRelayTrace(message, recipient, input.isDeliverByPassedOn ?? false);
    const isTold = isTrace || (wantsSuccessReport(recipient) && !given.dsnPassedOn);
    if (isTold) reported.success.push({ recipient, action: actionOf(given, input.lists), reply });
    plan.results.push({ address, status: verdict, lastReply: reply });
    plan.verdicts.push(given);
  }
}

/** RFC 3461 5.2.7.3: what a list has taken was delivered; only an alias expands it. */
function actionOf({ address, verdict }: RecipientVerdict, lists: ReadonlySet<string> | undefined): ReportAction {
  return lists?.has(address) ? 'delivered' : (verdict as ReportAction);
}

/** RFC 2852 4.1.3. */
const timeIsOver: DeliveryReply = { code: 0, enhanced: '5.4.7', text: 'The time that the sender set for delivery is over' };

/** RFC 2852 4.1.3: a message that is late by its sender's own measure says so. */
function lateStatus({ deliverBy }: QueueMessage, nowMs: number): { status?: string } {
  return deliverBy?.mode === 'notify' && nowMs >= deliverBy.untilMs ? { status: '4.4.7' } : {};
}

/** What is to become of a claimed destination without an attempt: an operator has ended it, or its sender's time is over. */
export function verdictWithoutAttempt(
  { message, destination }: ClaimedDestination,
  nowMs: number,
): { verdict: 'failed'; reply: DeliveryReply } | undefined {
  if (destination.cancelReply) return { verdict: 'failed', reply: destination.cancelReply };
  return isPastDeliverBy(message, nowMs) ? { verdict: 'failed', reply: timeIsOver } : undefined;
}

/** Anybody may have written this sender's name on it. */
function isFromOutside({ source }: QueueMessage): boolean {
  return source.protocol === 'smtp' && source.accountId === undefined;
}

/** After the commit: wakes the queue, counts and logs. */
function announce(d: SettleDependencies, brake: ReportBrake, input: SettleInput, plan: Plan, outcome: SaveOutcome): void {
  const { message, destination } = input.claimed;
  if (plan.reports.length > 0) d.queue.announceDue();
  const events = { failed: 'bounced', delayed: 'delayed', success: 'reported' } as const;
  for (const { kind, message: report, addresses } of plan.reports) {
    messagesTotal.inc({ event: events[kind] });
    if (kind !== 'success' && isFromOutside(message)) brake.add(message.from);
    d.logger.info(
      { queueId: message.id, reportId: report.id, kind, to: message.from, recipients: addresses.slice(0, 10) },
      'report queued',
    );
  }
  const unsaid = { queueId: message.id, domain: destination.domain };
  if (plan.doubleBounced > 0) {
    messagesTotal.inc({ event: 'double-bounced' });
    d.logger.warn({ ...unsaid, recipients: plan.doubleBounced }, 'report undeliverable, dropped');
  }
  if (plan.suppressed > 0) {
    messagesTotal.inc({ event: 'report-suppressed' });
    d.logger.warn({ ...unsaid, to: message.from, recipients: plan.suppressed }, 'too many reports to this sender, dropped');
  }
  if (outcome.isMessageDone) messagesTotal.inc({ event: 'completed' });
}

/** Whether an error of the store means "the same again, later" rather than a fault of this message. */
export function isStoreTrouble(error: unknown): error is KvError {
  return error instanceof KvError && error.code !== 'too-large';
}

/** A recipient that still waits. */
export function isPending(recipient: QueueRecipient): boolean {
  return recipient.status === 'pending';
}
