/**
 * Puts messages into one account's mailbox: what waits for the same account shares a transaction, in which each message's insert and its removal
 * from the queue stand together. Exactly once: the body looks at what is still pending.
 */
import type { KvStore, KvTransaction } from '../../store/kv/contract.js';
import {
  AccountCombiner,
  type AccountGate,
  type AccountWriter,
  MailError,
  type MailStore,
  type NewMessage,
  type Outcome,
} from '../../store/mail/index.js';
import { type ClaimedDestination, ClaimLost, type Destination, type Queue, type SaveOutcome } from '../../store/queue/index.js';
import { combinedMessages } from './metrics.js';
import { isPending, isStoreTrouble } from './settle.js';
import type { RecipientVerdict } from './types.js';

export interface MailboxDelivery {
  claimed: ClaimedDestination;
  message: NewMessage;
  quotaLimitBytes?: number;
  /** Of all recipients of the destination: the claim ends with this delivery. */
  verdicts: readonly RecipientVerdict[];
  nowMs: number;
  /** For recipients that were deferred before: when they are tried again. */
  nextDueAtSeconds: number;
}

export interface MailboxWriterDependencies {
  kv: KvStore;
  queue: Queue;
  mail: Pick<MailStore, 'openWriter' | 'announce'>;
  /** Order among all changes that this process makes to an account. */
  gate: AccountGate;
}

const maxCombinedMessages = 32;
const maxCombinedBytes = 4_000_000;
/** Summary, entry, change log and queue keys of one message. */
const overheadBytes = 16_000;

/** Answers a function that delivers one message. It throws ClaimLost, MailError (nothing was written), KvError. */
export function createMailboxWriter({ kv, queue, mail, gate }: MailboxWriterDependencies) {
  /** A mailbox's refusal (MailError) comes before its first write and concerns this message alone. */
  async function insert(
    tx: KvTransaction,
    writer: AccountWriter | undefined,
    { claimed, message, quotaLimitBytes, verdicts, nowMs, nextDueAtSeconds }: MailboxDelivery,
    current: Destination,
  ): Promise<Outcome<SaveOutcome>> {
    const isLinkedElsewhere = writer !== undefined && isOpen(current, verdicts);
    if (isLinkedElsewhere) {
      try {
        await writer.insertMessage(message, { quotaLimitBytes });
      } catch (error) {
        if (error instanceof MailError) return { error };
        throw error;
      }
    }
    const results = verdicts.map(({ address, reply }) => ({ address, status: 'delivered' as const, lastReply: reply }));
    return {
      value: await queue.save(tx, claimed, { results, current, nextDueAtSeconds, attempted: { atMs: nowMs }, isLinkedElsewhere }),
    };
  }

  async function run(accountId: string, items: MailboxDelivery[]): Promise<Outcome<SaveOutcome>[]> {
    const { outcomes, notice } = await kv.transact(
      async (tx) => {
        const currents = await queue.currentAll(
          tx,
          items.map(({ claimed }) => claimed),
        );
        const done: Outcome<SaveOutcome>[] = [];
        const isAnyOpen = items.some(({ verdicts }, i) => isOpen(currents[i], verdicts));
        const writer = isAnyOpen ? await mail.openWriter(tx, accountId) : undefined;
        for (const [i, item] of items.entries()) {
          const current = currents[i];
          done.push(current ? await insert(tx, writer, item, current) : { error: lost(item.claimed) });
        }
        return { outcomes: done, notice: writer?.finish() };
      },
      { label: 'deliver' },
    );
    mail.announce(notice);
    combinedMessages.observe(items.length);
    return outcomes;
  }

  const combiner = new AccountCombiner<MailboxDelivery, SaveOutcome>({
    gate,
    run,
    maxItems: maxCombinedMessages,
    maxBytes: maxCombinedBytes,
    bytesOf: ({ message }) => Math.min(message.blob.sizeBytes, 140_000) + message.summary.length + overheadBytes,
    // One message's fault (quota, too large) must not be the others': each is then tried alone.
    shouldSplit: (error) => !isStoreTrouble(error),
  });
  return (accountId: string, delivery: MailboxDelivery): Promise<SaveOutcome> => combiner.submit(accountId, delivery);
}

function lost({ message, destination }: ClaimedDestination): ClaimLost {
  return new ClaimLost(`claim on ${message.id} ${destination.domain} is lost`);
}

/** Exactly once: what an earlier run of the transaction committed after all is not pending any more. */
function isOpen(current: Destination | undefined, verdicts: readonly RecipientVerdict[]): boolean {
  return (
    current?.recipients.some(
      (recipient) => isPending(recipient) && verdicts.some(({ address }) => address === recipient.address),
    ) ?? false
  );
}
