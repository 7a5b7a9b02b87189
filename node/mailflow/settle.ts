/**
 * Saves what an attempt brought: statuses, the next attempt, and the reports that follow from them, in one transaction (TRAPS 14). Used by remote
 * and local delivery for everything but the plain insert into a mailbox.
 */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import { BlobCorrupt, BlobMissing, type BlobStore, maxPreparedBytes, type PreparedBlob } from '../../store/blobs/index.js';
import type { Directory } from '../../store/directory/contract.js';
import { KvError, type KvStore, type KvTransaction } from '../../store/kv/contract.js';
import type {
  ClaimedDestination,
  NewQueueMessage,
  Queue,
  QueueMessage,
  QueueRecipient,
  SaveInput,
  SaveOutcome,
} from '../../store/queue/index.js';
import { domainOfAddress } from './addresses.js';
import { buildReport, type ReportAction, type ReportedRecipient, type ReportKind } from './dsn.js';
import { attemptsTotal, messagesTotal } from './metrics.js';
import {
  attemptNumber,
  isExpired,
  nextAttemptAtSeconds,
  wantsDelayReport,
  wantsFailureReport,
  wantsSuccessReport,
} from './retry-schedule.js';
import type { MailflowSettings } from './settings.js';
import type { RecipientVerdict } from './types.js';

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
}

export interface SettleInput {
  claimed: ClaimedDestination;
  verdicts: readonly RecipientVerdict[];
  /** For metrics and log. */
  kind: 'local' | 'remote';
  /** More of this destination is still being worked on by this claim. */
  keepClaim?: boolean;
  /** Runs in the same transaction, after the claim was asserted: what the verdicts stand for (mailbox inserts, a list's new message). */
  alongside?: (tx: KvTransaction) => Promise<void>;
}

/** A report is prepared in memory: whatever is set, the rest of it (two lines per recipient) must fit beside what it returns. */
const maxReportedBytes = maxPreparedBytes - 1_048_576;

interface PlannedReport {
  message: NewQueueMessage;
  kind: ReportKind;
  addresses: string[];
}

interface Plan {
  results: SaveInput['results'];
  reports: PlannedReport[];
  nextDueAtSeconds: number;
  /** Failed with nobody to tell. */
  doubleBounced: number;
}

/** Saves verdicts. Throws ClaimLost when they may not be saved, KvError when the store can't. */
export type Settle = (input: SettleInput) => Promise<SaveOutcome>;

export function createSettle(dependencies: SettleDependencies): Settle {
  const { kv, queue, clock, logger } = dependencies;
  return async (input) => {
    const { claimed, kind } = input;
    const nowMs = clock.nowMs();
    const plan = await planResults(dependencies, input, nowMs);
    const { outcome, recipients } = await kv.transact(
      async (tx) => {
        const current = await queue.current(tx, claimed);
        const pending = new Set(current.recipients.filter(({ status }) => status === 'pending').map(({ address }) => address));
        const isFresh = plan.results.every(({ address }) => pending.has(address));
        // Not fresh only when an earlier run of this body was committed after all, with the claim kept.
        if (isFresh) {
          await input.alongside?.(tx);
          for (const report of plan.reports) {
            await queue.enqueue(tx, report.message, { nowSeconds: Math.floor(nowMs / 1000) });
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
        return { outcome, recipients: withResults(current.recipients, results) };
      },
      { label: 'settle' },
    );
    // What is saved is known to the claim's next try, too: a delivery that begins anew must not serve anybody twice.
    claimed.destination = { ...claimed.destination, recipients };
    announce(dependencies, input, plan, outcome);
    for (const { address, verdict, reply } of input.verdicts) {
      attemptsTotal.inc({ kind, result: verdict });
      if (verdict === 'failed') logger.info({ queueId: claimed.message.id, recipient: address, reply }, 'recipient failed');
    }
    return outcome;
  };
}

/** The recipients as a save leaves them. */
function withResults(recipients: QueueRecipient[], results: Plan['results']): QueueRecipient[] {
  const byAddress = new Map(results.map((result) => [result.address, result]));
  return recipients.map((recipient) => {
    const result = byAddress.get(recipient.address);
    if (!result || !isPending(recipient)) return recipient;
    return { ...recipient, status: result.status, isDelayNotified: result.isDelayNotified ?? recipient.isDelayNotified };
  });
}

/** Everything that follows from the verdicts, decided before the transaction; inside it only the claim is asserted. */
async function planResults(d: SettleDependencies, input: SettleInput, nowMs: number): Promise<Plan> {
  const { message, destination } = input.claimed;
  const settings = d.settings();
  const byAddress = new Map(destination.recipients.map((recipient) => [recipient.address, recipient]));
  const reported: Record<ReportKind, ReportedRecipient[]> = { failed: [], delayed: [], success: [] };
  const plan: Plan = {
    results: [],
    reports: [],
    doubleBounced: 0,
    nextDueAtSeconds: nextAttemptAtSeconds(settings, attemptNumber(destination), nowMs, message.expiresAtMs, d.random),
  };
  for (const { address, verdict, reply, dsnPassedOn } of input.verdicts) {
    const recipient = byAddress.get(address);
    if (!recipient) continue;
    if (verdict === 'deferred' && !isExpired(message, nowMs)) {
      const isDelayed = wantsDelayReport(settings, message, recipient, nowMs);
      if (isDelayed) reported.delayed.push({ recipient, action: 'delayed', reply });
      plan.results.push({ address, status: 'pending', lastReply: reply, isDelayNotified: isDelayed || undefined });
    } else if (verdict === 'deferred' || verdict === 'failed') {
      if (message.from === '') plan.doubleBounced++;
      else if (wantsFailureReport(recipient)) reported.failed.push({ recipient, action: 'failed', reply });
      plan.results.push({ address, status: 'failed', lastReply: reply });
    } else {
      const action: ReportAction = verdict;
      if (wantsSuccessReport(recipient) && !dsnPassedOn) reported.success.push({ recipient, action, reply });
      plan.results.push({ address, status: verdict, lastReply: reply });
    }
  }
  if (message.from === '') return plan;
  for (const kind of ['failed', 'delayed', 'success'] as const) {
    if (reported[kind].length > 0) plan.reports.push(await planReport(d, message, kind, reported[kind], nowMs));
  }
  return plan;
}

async function planReport(
  d: SettleDependencies,
  message: QueueMessage,
  kind: ReportKind,
  recipients: ReportedRecipient[],
  nowMs: number,
): Promise<PlannedReport> {
  const { queue, blobs } = d;
  const settings = d.settings();
  const id = queue.newId();
  const returned = await returnedBytes(d, message, kind).catch((error: unknown) => {
    // The loss itself is reported by whoever needed the bytes; the sender must still be told.
    if (error instanceof BlobMissing || error instanceof BlobCorrupt) return { bytes: Buffer.alloc(0), isHeaderOnly: true };
    throw error;
  });
  const report = buildReport({ kind, hostname: settings.hostname, message, recipients, returned, nowMs, id });
  const domain = domainOfAddress(message.from);
  const blob: PreparedBlob = blobs.prepare(report.bytes);
  return {
    kind,
    addresses: recipients.map(({ recipient }) => recipient.address),
    message: {
      id,
      blob,
      relayOffsetBytes: report.relayOffsetBytes,
      from: '',
      receivedAtMs: nowMs,
      expiresAtMs: nowMs + settings.reportLifetimeSeconds * 1000,
      isUtf8: report.isUtf8,
      body: report.isEightBit ? '8BITMIME' : '7BIT',
      priority: 0,
      source: { protocol: 'local' },
      destinations: [{ domain, isLocal: await d.directory.isLocalDomain(domain), recipients: [{ address: message.from }] }],
    },
  };
}

/** RFC 3461 4.3: the whole message only in failure reports, when RET does not forbid it and it is small; else its header. */
async function returnedBytes(d: SettleDependencies, message: QueueMessage, kind: ReportKind) {
  const { maxReturnedBytes, maxHeaderBytes } = d.settings();
  const start = message.relayOffsetBytes;
  const isWhole =
    kind === 'failed' && message.ret !== 'HDRS' && message.sizeBytes - start <= Math.min(maxReturnedBytes, maxReportedBytes);
  if (isWhole && message.body !== 'BINARYMIME') {
    return { bytes: await d.blobs.read(message.blobId, { start }), isHeaderOnly: false };
  }
  const end = Math.min(message.sizeBytes, start + Math.min(maxHeaderBytes, maxReturnedBytes, maxReportedBytes));
  const front = await d.blobs.read(message.blobId, { start, end });
  const emptyLine = front.indexOf('\r\n\r\n');
  const header = emptyLine < 0 ? front.subarray(0, front.lastIndexOf('\r\n') + 2) : front.subarray(0, emptyLine + 2);
  return { bytes: header, isHeaderOnly: true };
}

/** After the commit: wakes the queue, counts and logs. */
function announce(d: SettleDependencies, input: SettleInput, plan: Plan, outcome: SaveOutcome): void {
  const { message, destination } = input.claimed;
  if (plan.reports.length > 0) d.queue.announceDue();
  const events = { failed: 'bounced', delayed: 'delayed', success: 'reported' } as const;
  for (const { kind, message: report, addresses } of plan.reports) {
    messagesTotal.inc({ event: events[kind] });
    d.logger.info(
      { queueId: message.id, reportId: report.id, kind, to: message.from, recipients: addresses.slice(0, 10) },
      'report queued',
    );
  }
  if (plan.doubleBounced > 0) {
    messagesTotal.inc({ event: 'double-bounced' });
    d.logger.warn(
      { queueId: message.id, domain: destination.domain, recipients: plan.doubleBounced },
      'report undeliverable, dropped',
    );
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
