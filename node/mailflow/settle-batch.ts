/**
 * Saves that are ready at the same time share a transaction: while one is made durable the next ones gather, so that under load a commit costs each of them
 * little. Only for those that write nothing before they may still be refused: a refusal concerns one, and the others go through.
 */
import type { KvStore, KvTransaction } from '../../store/kv/contract.js';
import { AccountCombiner, AccountGate, type Outcome } from '../../store/mail/index.js';
import { type ClaimedDestination, ClaimLost, type Destination, type Queue } from '../../store/queue/index.js';

export interface SaveItem<T> {
  claimed: ClaimedDestination;
  /** What it writes at most. */
  sizeBytes: number;
  /** `current`: the destination as it is in this run of the transaction. May run several times. Throws ClaimLost before its first write or never. */
  save(tx: KvTransaction, current: Destination): Promise<T>;
}

const maxItems = 64;
const maxBytes = 2_000_000;
/** There is one line in front of the store. */
const line = 'settle';

/** Answers what each item's last run answered. Throws its ClaimLost, or KvError when the store can't. */
export function createSettleBatch<T>(
  kv: Pick<KvStore, 'transact'>,
  queue: Pick<Queue, 'current' | 'currentAll'>,
  isStoreTrouble: (error: unknown) => boolean,
): (item: SaveItem<T>) => Promise<T> {
  async function attempt(tx: KvTransaction, item: SaveItem<T>, current: Currents[number]): Promise<Outcome<T>> {
    try {
      const now = current === 'stale' ? await queue.current(tx, item.claimed) : assertOurs(item, current);
      return { value: await item.save(tx, now) };
    } catch (error) {
      if (error instanceof ClaimLost) return { error };
      throw error;
    }
  }

  async function run(_line: string, items: SaveItem<T>[]): Promise<Outcome<T>[]> {
    return kv.transact(
      async (tx) => {
        const read = await queue.currentAll(
          tx,
          items.map(({ claimed }) => claimed),
        );
        const currents = onceEach(items, read);
        const outcomes = new Array<Outcome<T>>(items.length);
        const save = async (places: readonly number[]) => {
          for (const place of places) outcomes[place] = await attempt(tx, items[place]!, currents[place]);
        };
        // Side by side, so that what they read shares round trips; but destinations of one message in turn: the last one removes the message.
        await Promise.all([...placesByMessage(items).values()].map(save));
        return outcomes;
      },
      { label: 'settle' },
    );
  }

  const combiner = new AccountCombiner<SaveItem<T>, T>({
    gate: new AccountGate(),
    run,
    maxItems,
    maxBytes,
    bytesOf: ({ sizeBytes }) => sizeBytes,
    // What is wrong with one must not fail the others.
    shouldSplit: (error) => !isStoreTrouble(error),
  });
  return (item) => combiner.submit(line, item);
}

/** Undefined: the claim is lost. `stale`: another save of the same destination comes before. */
type Currents = (Destination | undefined | 'stale')[];

function assertOurs({ claimed: { message, destination } }: SaveItem<unknown>, current: Destination | undefined): Destination {
  if (!current) throw new ClaimLost(`claim on ${message.id} ${destination.domain} is lost`);
  return current;
}

/** What was read holds for the first save of each destination. (One after the other is the rule: a claim is worked by one delivery.) */
function onceEach(items: readonly SaveItem<unknown>[], read: readonly (Destination | undefined)[]): Currents {
  const seen = new Set<string>();
  return items.map(({ claimed: { destination } }, place) => {
    const ref = `${destination.queueId}/${destination.domain}/${destination.part}`;
    if (seen.has(ref)) return 'stale';
    seen.add(ref);
    return read[place];
  });
}

function placesByMessage(items: readonly SaveItem<unknown>[]): Map<string, number[]> {
  const byMessage = new Map<string, number[]>();
  for (const [place, { claimed }] of items.entries()) {
    const places = byMessage.get(claimed.message.id);
    if (places) places.push(place);
    else byMessage.set(claimed.message.id, [place]);
  }
  return byMessage;
}
