/**
 * Writes an expansion: all batches but the last in transactions of their own, the last one with the recipient's status. Each asserts the claim, and that the mark
 * is where the batch before it has left it: so a member gets one copy, whatever is run again, by whom.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import type { KvStore, KvTransaction } from '../../store/kv/contract.js';
import {
  type ClaimedDestination,
  clearExpansionMark,
  createHistory,
  type HistoryEvent,
  type Queue,
  readExpansionMark,
  setExpansionMark,
} from '../../store/queue/index.js';
import type { Expansion, MemberBatch } from './expand.js';
import { madeEvent } from './outcome-history.js';
import { isPending } from './settle.js';

export interface BatchDependencies {
  kv: KvStore;
  queue: Queue;
  clock: Clock;
}

/** Up to where members have their copies; undefined before the first. Throws KvError. */
export async function expandedUpTo(kv: KvStore, claimed: ClaimedDestination, address: string): Promise<string | undefined> {
  return (await kv.read((reads) => readExpansionMark(reads, claimed.message.id, address)))?.last;
}

/** Writes all batches but the last. Throws ClaimLost, KvError; what is written by then is written, and the next run goes on from there. */
export async function writeEarlyBatches(d: BatchDependencies, claimed: ClaimedDestination, expansion: Expansion): Promise<void> {
  const { batches, address } = expansion;
  while (batches.length > 1) {
    const batch = batches[0]!;
    const atMs = d.clock.nowMs();
    await d.kv.transact(
      async (tx) => {
        const current = await d.queue.current(tx, claimed);
        const isOpen = current.recipients.some((recipient) => recipient.address === address && isPending(recipient));
        const mark = await readExpansionMark(tx, claimed.message.id, address);
        // An earlier run of this body was committed after all.
        if (tx.mayHaveCommitted && mark?.last === batch.last) return;
        if (!isOpen || mark?.last !== expansion.after) throw new Error(`the expansion of ${address} has moved`);
        await enqueueBatch(d, tx, claimed, batch, atMs);
        const members = (mark?.members ?? 0) + batch.members;
        setExpansionMark(tx, claimed.message.id, address, { last: batch.last, members });
        const [event, ...more] = expandedEvents(claimed, batch);
        if (event) {
          createHistory(d).append(tx, claimed.message.id, { atMs, nodeId: claimed.claim.nodeId, event }, ...more);
        }
      },
      { label: 'expand' },
    );
    d.queue.announceDue();
    batches.shift();
    expansion.after = batch.last;
    // Its content has an owner now.
    expansion.abort = async () => {};
  }
}

/** The last batch, in the transaction that saves the recipient's status, after the claim was asserted. */
export async function writeLastBatch(
  d: BatchDependencies,
  tx: KvTransaction,
  claimed: ClaimedDestination,
  expansion: Expansion,
  atMs: number,
): Promise<void> {
  const mark = await readExpansionMark(tx, claimed.message.id, expansion.address);
  if (mark?.last !== expansion.after) throw new Error(`the expansion of ${expansion.address} has moved`);
  if (mark) clearExpansionMark(tx, claimed.message.id, expansion.address);
  await enqueueBatch(d, tx, claimed, expansion.batches[0]!, atMs);
}

async function enqueueBatch(
  d: BatchDependencies,
  tx: KvTransaction,
  claimed: ClaimedDestination,
  { messages }: MemberBatch,
  atMs: number,
): Promise<void> {
  const nowSeconds = Math.floor(atMs / 1000);
  const history = createHistory(d);
  for (const message of messages) {
    await d.queue.enqueue(tx, message, { nowSeconds });
    history.append(tx, message.id, { atMs, nodeId: claimed.claim.nodeId, event: madeEvent(message, claimed.message.id) });
  }
}

/** What the history tells of a batch; of a message for each member, the first ones. */
export function expandedEvents({ destination }: ClaimedDestination, { messages }: MemberBatch): HistoryEvent[] {
  return messages.slice(0, 20).map(({ id, destinations }) => ({
    kind: 'expanded',
    domain: destination.domain,
    into: id,
    members: destinations.reduce((sum, { recipients }) => sum + recipients.length, 0),
  }));
}
