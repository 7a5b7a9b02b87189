/**
 * Plans the reports that follow from an attempt: who is told what, in which language, with how much of the message, and under which limit. What it answers is
 * queued in the transaction that saves the statuses (TRAPS 14).
 */
import type { Clock, Logger } from '../../ops/telemetry/index.js';
import { BlobCorrupt, BlobMissing, type BlobStore, maxPreparedBytes } from '../../store/blobs/index.js';
import type { Directory } from '../../store/directory/contract.js';
import type { NewQueueMessage, Queue, QueueMessage } from '../../store/queue/index.js';
import type { StageEvaluator, StageFacts } from '../expressions/index.js';
import { domainOfAddress } from './addresses.js';
import { buildReport, type ReportedRecipient, type ReportKind } from './dsn.js';
import { knownLanguages } from './report-texts.js';
import type { MailflowSettings } from './settings.js';

/** A report is prepared in memory: whatever is set, the rest of it (two lines per recipient) must fit beside what it returns. */
const maxReportedBytes = maxPreparedBytes - 1_048_576;

export interface ReportDependencies {
  queue: Queue;
  blobs: BlobStore;
  directory: Pick<Directory, 'isLocalDomain'>;
  clock: Clock;
  logger: Logger;
  settings: () => MailflowSettings;
  evaluator: StageEvaluator;
}

export interface PlannedReport {
  message: NewQueueMessage;
  kind: ReportKind;
  addresses: string[];
}

export interface ReportPlan {
  kind: ReportKind;
  message: QueueMessage;
  recipients: ReportedRecipient[];
  nowMs: number;
  expiresAtMs: number;
  lastAttemptAtMs?: number | undefined;
  facts: Partial<StageFacts>;
}

/** Prepares a report as a message of its own. Throws KvError where the original can't be read now. */
export async function planReport(d: ReportDependencies, plan: ReportPlan): Promise<PlannedReport> {
  const { message, kind, recipients, nowMs } = plan;
  const settings = d.settings();
  const { outcomes } = settings;
  const id = d.queue.newId();
  const returned = await returnedBytes(d, message, kind).catch((error: unknown) => {
    // The loss itself is reported by whoever needed the bytes; the sender must still be told.
    if (error instanceof BlobMissing || error instanceof BlobCorrupt) return { bytes: Buffer.alloc(0), isHeaderOnly: true };
    throw error;
  });
  const chosen = (await outcomes.reportLanguagesFor?.(plan.facts, d.evaluator)) ?? [];
  const report = buildReport({
    kind,
    hostname: settings.hostname,
    message,
    recipients,
    returned,
    nowMs,
    expiresAtMs: plan.expiresAtMs,
    ...(plan.lastAttemptAtMs !== undefined && { lastAttemptAtMs: plan.lastAttemptAtMs }),
    id,
    languages: knownLanguages(outcomes.reportTexts, chosen.length > 0 ? chosen : outcomes.reportLanguages),
    texts: outcomes.reportTexts,
  });
  const domain = domainOfAddress(message.from);
  return {
    kind,
    addresses: recipients.map(({ recipient }) => recipient.address),
    message: {
      id,
      blob: d.blobs.prepare(report.bytes, { isUnique: true }),
      relayOffsetBytes: report.relayOffsetBytes,
      from: '',
      receivedAtMs: nowMs,
      expiresAtMs: nowMs + settings.reportLifetimeSeconds * 1000,
      isUtf8: report.isUtf8,
      body: report.isEightBit ? '8BITMIME' : '7BIT',
      priority: 0,
      // RFC 8689 5: what it says of a message that must not be seen on the way must not be seen either.
      ...(message.requiresTls && { requiresTls: true }),
      source: { protocol: 'local' },
      destinations: [{ domain, isLocal: await d.directory.isLocalDomain(domain), recipients: [{ address: message.from }] }],
    },
  };
}

/** RFC 3461 4.3: the whole message only in failure reports, when neither RET nor RFC 8689 5 forbids it and it is small; else its header. */
async function returnedBytes(d: ReportDependencies, message: QueueMessage, kind: ReportKind) {
  const { maxReturnedBytes, maxHeaderBytes } = d.settings();
  const start = message.relayOffsetBytes;
  const mayBeWhole = kind === 'failed' && message.ret !== 'HDRS' && !message.requiresTls && message.body !== 'BINARYMIME';
  if (mayBeWhole && message.sizeBytes - start <= Math.min(maxReturnedBytes, maxReportedBytes)) {
    return { bytes: await d.blobs.read(message.blobId, { start }), isHeaderOnly: false };
  }
  const end = Math.min(message.sizeBytes, start + Math.min(maxHeaderBytes, maxReturnedBytes, maxReportedBytes));
  const front = await d.blobs.read(message.blobId, { start, end });
  const emptyLine = front.indexOf('\r\n\r\n');
  const header = emptyLine < 0 ? front.subarray(0, front.lastIndexOf('\r\n') + 2) : front.subarray(0, emptyLine + 2);
  return { bytes: header, isHeaderOnly: true };
}

const windowMs = 3_600_000;
const maxSenders = 10_000;

/**
 * Counts reports to senders outside, so that a forged sender is not flooded with what others have sent in its name. Of this node alone: it is a brake, not an
 * account.
 */
export class ReportBrake {
  readonly #senders = new Map<string, { sinceMs: number; count: number }>();

  constructor(private readonly clock: Pick<Clock, 'monotonicMs'>) {}

  /** Whether one more may go to this address. */
  allows(sender: string, max: number): boolean {
    return max === 0 || (this.#current(sender)?.count ?? 0) < max;
  }

  /** One has gone. */
  add(sender: string): void {
    const current = this.#current(sender);
    if (current) {
      current.count++;
      return;
    }
    if (this.#senders.size >= maxSenders) this.#senders.delete(this.#senders.keys().next().value!);
    this.#senders.set(sender.toLowerCase(), { sinceMs: this.clock.monotonicMs(), count: 1 });
  }

  #current(sender: string) {
    const key = sender.toLowerCase();
    const entry = this.#senders.get(key);
    if (entry && this.clock.monotonicMs() - entry.sinceMs < windowMs) return entry;
    this.#senders.delete(key);
    return undefined;
  }
}
