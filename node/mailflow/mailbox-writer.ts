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
import {
  type ClaimedDestination,
  ClaimLost,
  createHistory,
  type Destination,
  type Queue,
  type SaveOutcome,
} from '../../store/queue/index.js';
import { combinedMessages } from './metrics.js';
import { Notices } from './notice.js';
import { attemptEvent } from './outcome-history.js';
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
  mail: Pick<MailStore, 'openWriter' | 'announce' | 'announcePerhaps'>;
  /** Order among all changes that this process makes to an account. */
  gate: AccountGate;
}

const maxCombinedMessages = 32;
const maxCombinedBytes = 4_000_000;
/** Summary, entry, change log and queue keys of one message. */
const overheadBytes = 16_000;

/** Answers a function that delivers one message. It throws ClaimLost, MailError (nothing was written), KvError. */
export function createMailboxWriter({ kv, queue, mail, gate }: MailboxWriterDependencies) {
  const history = createHistory({ kv });

  /** Whether the message is in the mailbox now. A mailbox's refusal (MailError) comes before its first write and concerns this message alone. */
  async function insert(
    writer: AccountWriter,
    { claimed, message, quotaLimitBytes, verdicts }: MailboxDelivery,
    current: Destination | undefined,
  ): Promise<Outcome<boolean>> {
    if (!current) return { error: lost(claimed) };
    if (!isOpen(current, verdicts)) return { value: false };
    try {
      await writer.insertMessage(message, { quotaLimitBytes });
      return { value: true };
    } catch (error) {
      if (error instanceof MailError) return { error };
      throw error;
    }
  }

  async function save(
    tx: KvTransaction,
    { claimed, verdicts, nowMs, nextDueAtSeconds }: MailboxDelivery,
    current: Destination,
    isInserted: boolean,
  ): Promise<SaveOutcome> {
    const results = verdicts.map(({ address, reply }) => ({ address, status: 'delivered' as const, lastReply: reply }));
    const attempted = { atMs: nowMs };
    const outcome = await queue.save(tx, claimed, {
      results,
      current,
      nextDueAtSeconds,
      attempted,
      isLinkedElsewhere: isInserted,
    });
    if (isInserted) {
      const record = { atMs: nowMs, nodeId: claimed.claim.nodeId, event: attemptEvent(claimed, verdicts) };
      history.append(tx, claimed.message.id, record, ...(outcome.isMessageDone ? [{ kind: 'done' as const }] : []));
    }
    return outcome;
  }

  async function run(accountId: string, items: MailboxDelivery[]): Promise<Outcome<SaveOutcome>[]> {
    const notices = new Notices(mail);
    const transact = () =>
      kv.transact(
        async (tx) => {
          notices.begin();
          // Side by side: what all of them read shares two round trips.
          const [currents, writer] = await Promise.all([
            queue.currentAll(
              tx,
              items.map(({ claimed }) => claimed),
            ),
            mail.openWriter(
              tx,
              accountId,
              items.map(({ message }) => message),
            ),
          ]);
          const inserted = await Promise.all(items.map((item, i) => insert(writer, item, currents[i])));
          const done: Outcome<SaveOutcome>[] = [];
          // One after another: parts of one message must see which of them is the last.
          for (const [i, outcome] of inserted.entries()) {
            done.push('value' in outcome ? { value: await save(tx, items[i]!, currents[i]!, outcome.value) } : outcome);
          }
          notices.finish(tx, writer);
          return done;
        },
        { label: 'deliver' },
      );
    const outcomes = await notices.around(transact);
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
