/**
 * The short way: a small message for one local mailbox goes there in the transaction that the client's 250 waits for, without a stay in the queue. It is the
 * same insert that the queue's local delivery makes, and everything else (several recipients, lists, reports, a mailbox that refuses) goes through the queue.
 *
 * Exactly once without a queue record: what is stored is unique, because its Received field carries the queue id. After an unknown commit the body looks whether
 * the store has that very content already; it stays there for a while even when its owner has read and removed it meanwhile. No claim and no fence: nobody
 * else knows of the message until this commit, and nobody works on it afterwards.
 */
import type { Clock, Logger } from '../../ops/telemetry/index.js';
import { summarizeWithin } from '../../protocols/message/index.js';
import type { BlobStore } from '../../store/blobs/contract.js';
import type { Directory } from '../../store/directory/contract.js';
import type { KvStore, KvTransaction } from '../../store/kv/contract.js';
import {
  AccountCombiner,
  type AccountWriter,
  MailError,
  mailLimits,
  type NewMessage,
  type OpenMailStore,
  type Outcome,
} from '../../store/mail/index.js';
import type { History, HistoryEvent, HistoryRecord } from '../../store/queue/history-contract.js';
import { domainOfAddress } from './addresses.js';
import { needsExpansion } from './expand.js';
import { createMailboxFinder } from './mailbox-finder.js';
import { attemptsTotal, combinedMessages, deliverySeconds, messagesTotal } from './metrics.js';
import { Notices } from './notice.js';
import { isStoreTrouble } from './settle.js';
import type { DeliverDirect } from './types.js';

export interface DirectDependencies {
  kv: KvStore;
  blobs: Pick<BlobStore, 'stat'>;
  mail: Pick<OpenMailStore, 'openWriter' | 'announce' | 'announcePerhaps' | 'mailboxByPath' | 'ensureAccount' | 'gate'>;
  directory: Pick<Directory, 'resolve' | 'principalById'>;
  clock: Clock;
  logger: Logger;
  history?: Pick<History, 'append'>;
}

interface Insert {
  message: NewMessage;
  queueId: string;
  address: string;
  accepted: HistoryRecord | undefined;
  quotaLimitBytes?: number;
}

const maxCombinedMessages = 32;
const maxCombinedBytes = 4_000_000;
/** Summary, entry and change log of one message. */
const overheadBytes = 12_000;
/** When so many wait for one account, its clients need not: the queue takes what comes on top. */
const maxWaitingPerAccount = 64;

export function createDirectDelivery(d: DirectDependencies): DeliverDirect {
  const finder = createMailboxFinder(d.mail);
  const waiting = new Map<string, number>();

  /** A refusal (MailError) comes before the first write of its message and concerns that message alone. */
  async function insert(tx: KvTransaction, writer: AccountWriter, one: Insert): Promise<Outcome<void>> {
    const { message, quotaLimitBytes } = one;
    if (tx.mayHaveCommitted && (await d.blobs.stat(tx, message.blob.id))) return { value: undefined };
    try {
      await writer.insertMessage(message, { quotaLimitBytes });
      if (one.accepted) d.history?.append(tx, one.queueId, one.accepted, attemptOf(one.address), { kind: 'done' });
      return { value: undefined };
    } catch (error) {
      if (error instanceof MailError) return { error };
      throw error;
    }
  }

  async function run(accountId: string, inserts: Insert[]): Promise<Outcome<void>[]> {
    const notices = new Notices(d.mail);
    const transact = () =>
      d.kv.transact(
        async (tx) => {
          notices.begin();
          const writer = await d.mail.openWriter(
            tx,
            accountId,
            inserts.map(({ message }) => message),
          );
          // Side by side: however many they are, what they read shares a round trip.
          const done = await Promise.all(inserts.map((one) => insert(tx, writer, one)));
          notices.finish(tx, writer);
          return done;
        },
        { label: 'deliver-direct' },
      );
    const outcomes = await notices.around(transact);
    combinedMessages.observe(inserts.length);
    return outcomes;
  }

  const combiner = new AccountCombiner<Insert, void>({
    gate: d.mail.gate,
    run,
    maxItems: maxCombinedMessages,
    maxBytes: maxCombinedBytes,
    bytesOf: ({ message }) => message.blob.sizeBytes + message.summary.length + overheadBytes,
    shouldSplit: (error) => !isStoreTrouble(error),
  });

  /** The one account that takes the message; undefined where there is more to decide. */
  async function targetOf(
    address: string,
  ): Promise<{ accountId: string; mailboxId: string; quotaLimitBytes?: number } | undefined> {
    const resolution = await d.directory.resolve(address);
    if (resolution.kind !== 'local' || resolution.targets.length !== 1 || needsExpansion(resolution)) return undefined;
    const { accountId, detail } = resolution.targets[0]!;
    const mailboxId = await finder.find(accountId, detail).catch(undefinedIfRefused);
    if (mailboxId === undefined) return undefined;
    return { accountId, mailboxId, quotaLimitBytes: (await d.directory.principalById(accountId))?.quotaLimitBytes };
  }

  async function submit(accountId: string, one: Insert): Promise<boolean> {
    waiting.set(accountId, (waiting.get(accountId) ?? 0) + 1);
    try {
      await combiner.submit(accountId, one);
      return true;
    } catch (error) {
      if (!(error instanceof MailError)) throw error;
      finder.forget(accountId);
      return false;
    } finally {
      const left = waiting.get(accountId)! - 1;
      if (left === 0) waiting.delete(accountId);
      else waiting.set(accountId, left);
    }
  }

  return async ({ queueId, address, blob, bytes, receivedAtMs, accepted }) => {
    const target = await targetOf(address);
    if (!target) return false;
    const { accountId, mailboxId, quotaLimitBytes } = target;
    // Nothing is awaited from here to the line: of many that come at once, each counts those before it.
    if ((waiting.get(accountId) ?? 0) >= maxWaitingPerAccount) return false;
    const { encoded: summary, ...facts } = summarizeWithin(bytes, mailLimits.maxSummaryBytes);
    const { messageIds, missingLineEndBytes } = facts;
    const message: NewMessage = { blob, mailboxIds: [mailboxId], receivedAtMs, summary, messageIds, missingLineEndBytes };
    if (!(await submit(accountId, { message, quotaLimitBytes, queueId, address, accepted }))) return false;
    const seconds = Math.max(0, d.clock.nowMs() - receivedAtMs) / 1000;
    attemptsTotal.inc({ kind: 'local', result: 'delivered' });
    messagesTotal.inc({ event: 'completed' });
    deliverySeconds.observe(seconds);
    d.logger.info({ queueId, recipients: 1, accountId, accounts: 1, seconds, direct: true }, 'delivered');
    return true;
  };
}

/** What the history tells of it: the one attempt that there was. */
function attemptOf(address: string): HistoryEvent {
  const result = { address, verdict: 'delivered', code: 250, enhanced: '2.1.5', text: 'In its mailbox with the acceptance' };
  return {
    kind: 'attempt',
    domain: domainOfAddress(address),
    isLocal: true,
    attempt: 1,
    epoch: 0,
    results: [result],
    omitted: 0,
  };
}

function undefinedIfRefused(error: unknown): undefined {
  if (!(error instanceof MailError)) throw error;
}
