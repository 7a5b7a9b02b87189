/**
 * The transaction between a message's last byte and its 250. What waits at the same time shares one: while a transaction is made durable the next
 * messages gather, so that under load a commit costs each of them little.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import type { KvStore } from '../../store/kv/contract.js';
import { AccountCombiner, AccountGate, type Outcome } from '../../store/mail/index.js';
import { type ClaimedDestination, ClaimLost, type NewQueueMessage, type Queue } from '../../store/queue/index.js';
import { isStoreTrouble } from './settle.js';
import type { DeliveryDesk } from './types.js';

export interface EnqueueDependencies {
  kv: KvStore;
  queue: Queue;
  clock: Clock;
  desk?: DeliveryDesk;
}

/** Queues a message durably; answers the destinations that were born claimed by this node. Throws KvError and what the queue throws: nothing was kept then. */
export type Enqueue = (message: NewQueueMessage) => Promise<ClaimedDestination[]>;

const maxCombinedMessages = 64;
const maxCombinedBytes = 4_000_000;
/** Upper bounds of what one message and one recipient write besides the content. */
const messageBytes = 2_000;
const recipientBytes = 700;
/** Longer content is in the store already and is only linked. */
const maxInlineBytes = 140_000;
/** There is one queue, hence one line in front of it. */
const line = 'queue';

export function createEnqueue({ kv, queue, clock, desk }: EnqueueDependencies): Enqueue {
  async function enqueueAll(messages: readonly NewQueueMessage[], isClaiming: boolean): Promise<ClaimedDestination[][]> {
    // Decided before the transaction, which may run again.
    const claimsFor = messages.map(({ blob }) => (isClaiming && desk?.hasRoom(blob.sizeBytes) ? desk.node : undefined));
    return kv.transact(
      async (tx) => {
        const nowSeconds = Math.floor(clock.nowMs() / 1000);
        const claimed: ClaimedDestination[][] = [];
        for (const [place, message] of messages.entries()) {
          claimed.push(await queue.enqueue(tx, message, { nowSeconds, claimFor: claimsFor[place] }));
        }
        return claimed;
      },
      { label: 'enqueue' },
    );
  }

  async function run(_line: string, messages: NewQueueMessage[]): Promise<Outcome<ClaimedDestination[]>[]> {
    let claimed: ClaimedDestination[][];
    try {
      claimed = await enqueueAll(messages, true);
    } catch (error) {
      if (!(error instanceof ClaimLost)) throw error;
      // This node takes no more claims (it drains, or was fenced): the messages are safe in the queue all the same, for whoever works it.
      claimed = await enqueueAll(messages, false);
    }
    return claimed.map((value) => ({ value }));
  }

  const combiner = new AccountCombiner<NewQueueMessage, ClaimedDestination[]>({
    gate: new AccountGate(),
    run,
    maxItems: maxCombinedMessages,
    maxBytes: maxCombinedBytes,
    bytesOf: ({ blob, destinations }) => {
      const recipients = destinations.reduce((sum, destination) => sum + destination.recipients.length, 0);
      return Math.min(blob.sizeBytes, maxInlineBytes) + messageBytes + recipients * recipientBytes;
    },
    // What is wrong with one message must not fail the others.
    shouldSplit: (error) => !isStoreTrouble(error),
  });
  return (message) => combiner.submit(line, message);
}
