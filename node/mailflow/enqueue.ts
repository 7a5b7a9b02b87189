/**
 * The transaction between a message's last byte and its 250. What waits at the same time shares one: while a transaction is made durable the next
 * messages gather, so that under load a commit costs each of them little.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import type { KvStore, KvTransaction } from '../../store/kv/contract.js';
import { AccountCombiner, AccountGate, type Outcome } from '../../store/mail/index.js';
import type { History, HistoryRecord } from '../../store/queue/history-contract.js';
import {
  type ClaimedDestination,
  ClaimLost,
  type NewQueueMessage,
  type NodeIdentity,
  type Queue,
} from '../../store/queue/index.js';
import { isStoreTrouble } from './settle.js';
import type { DeliveryDesk } from './types.js';

export interface EnqueueDependencies {
  kv: KvStore;
  queue: Queue;
  clock: Clock;
  desk?: DeliveryDesk;
  history?: Pick<History, 'append'>;
}

/** Queues a message durably; answers the destinations that were born claimed by this node. Throws KvError and what the queue throws: nothing was kept then. */
export type Enqueue = (message: NewQueueMessage, accepted?: HistoryRecord) => Promise<ClaimedDestination[]>;

interface Waiting {
  message: NewQueueMessage;
  /** Written with it. */
  accepted: HistoryRecord | undefined;
}

const maxCombinedMessages = 64;
const maxCombinedBytes = 4_000_000;
/** Upper bounds of what one message and one recipient write besides the content. */
const messageBytes = 2_000;
const recipientBytes = 700;
/** Longer content is in the store already and is only linked. */
const maxInlineBytes = 140_000;
/** There is one queue, hence one line in front of it. */
const line = 'queue';

export function createEnqueue({ kv, queue, clock, desk, history }: EnqueueDependencies): Enqueue {
  /**
   * A node that takes no more claims (it drains, or was fenced) queues all the same, for whoever works the queue. In the same transaction: a new one would
   * not know that an earlier run may have been committed, and would write over what another node has in hand by now.
   */
  async function enqueueOne(tx: KvTransaction, message: NewQueueMessage, nowSeconds: number, claimFor: NodeIdentity | undefined) {
    try {
      return await queue.enqueue(tx, message, { nowSeconds, claimFor });
    } catch (error) {
      if (!(error instanceof ClaimLost)) throw error;
      // It comes before the first write.
      return queue.enqueue(tx, message, { nowSeconds });
    }
  }

  async function run(_line: string, waiting: Waiting[]): Promise<Outcome<ClaimedDestination[]>[]> {
    // Decided before the transaction, which may run again.
    const claimsFor = waiting.map(({ message }) => (desk?.hasRoom(message.blob.sizeBytes) ? desk.node : undefined));
    return kv.transact(
      async (tx) => {
        const nowSeconds = Math.floor(clock.nowMs() / 1000);
        // Side by side: however many they are, what they read shares two round trips.
        return Promise.all(
          waiting.map(async ({ message, accepted }, place) => {
            const value = await enqueueOne(tx, message, nowSeconds, claimsFor[place]);
            if (accepted) history?.append(tx, message.id, accepted);
            return { value };
          }),
        );
      },
      { label: 'enqueue' },
    );
  }

  const combiner = new AccountCombiner<Waiting, ClaimedDestination[]>({
    gate: new AccountGate(),
    run,
    maxItems: maxCombinedMessages,
    maxBytes: maxCombinedBytes,
    bytesOf: ({ message: { blob, destinations } }) => {
      const recipients = destinations.reduce((sum, destination) => sum + destination.recipients.length, 0);
      return Math.min(blob.sizeBytes, maxInlineBytes) + messageBytes + recipients * recipientBytes;
    },
    // What is wrong with one message must not fail the others.
    shouldSplit: (error) => !isStoreTrouble(error),
  });
  return (message, accepted) => combiner.submit(line, { message, accepted });
}
