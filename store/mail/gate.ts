/**
 * Order among the changes that this process makes to one account. Correctness does not need it (the store detects conflicts); without it,
 * writers of one process would fight over the account's state key, and each would pay for the others' retries.
 */
import type { AccountId } from './contract.js';

/** One change at a time per account, in the order asked; accounts don't wait for one another. Not re-entrant. */
export class AccountGate {
  private readonly tails = new Map<AccountId, Promise<void>>();

  /** Runs `work` once all earlier work on this account is done (or failed). What it throws is thrown on. */
  runExclusive<T>(accountId: AccountId, work: () => Promise<T>): Promise<T> {
    const previous = this.tails.get(accountId);
    const running = previous ? previous.then(work) : work();
    const tail: Promise<void> = running.then(
      () => this.leave(accountId, tail),
      () => this.leave(accountId, tail),
    );
    this.tails.set(accountId, tail);
    return running;
  }

  /** Accounts with work running or waiting. */
  get busyAccounts(): number {
    return this.tails.size;
  }

  private leave(accountId: AccountId, tail: Promise<void>): void {
    if (this.tails.get(accountId) === tail) this.tails.delete(accountId);
  }
}

/** The outcome of one of several changes that shared a transaction. */
export type Outcome<R> = { value: R } | { error: unknown };

export interface CombinerOptions<Item, Result> {
  gate: AccountGate;
  /** Does all items in one transaction and answers one outcome for each, in order. */
  run(accountId: AccountId, items: Item[]): Promise<Outcome<Result>[]>;
  /** Items of one transaction. */
  maxItems: number;
  /** Sum of `bytesOf` in one transaction; a single item may be larger. */
  maxBytes: number;
  bytesOf(item: Item): number;
  /** Whether a failure of the whole may be due to its size, so that the items are tried one by one. Others fail all items. */
  shouldSplit(error: unknown): boolean;
}

interface Waiting<Item, Result> {
  item: Item;
  resolve(value: Result): void;
  reject(error: unknown): void;
}

/**
 * Combines what waits for one account into one transaction: while one batch is being committed the next one gathers, so that the time of a
 * commit is shared by all who wait.
 */
export class AccountCombiner<Item, Result> {
  private readonly waiting = new Map<AccountId, Waiting<Item, Result>[]>();

  constructor(private readonly options: CombinerOptions<Item, Result>) {}

  submit(accountId: AccountId, item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      const entry = { item, resolve, reject };
      const queue = this.waiting.get(accountId);
      if (queue) {
        queue.push(entry);
        return;
      }
      this.waiting.set(accountId, [entry]);
      this.schedule(accountId);
    });
  }

  private schedule(accountId: AccountId): void {
    void this.options.gate.runExclusive(accountId, async () => {
      // Let those who were woken by the same event come along.
      await Promise.resolve();
      await this.runBatch(this.take(accountId), accountId);
    });
  }

  private take(accountId: AccountId): Waiting<Item, Result>[] {
    const queue = this.waiting.get(accountId) ?? [];
    let count = 0;
    let bytes = 0;
    while (count < queue.length && count < this.options.maxItems) {
      bytes += this.options.bytesOf(queue[count]!.item);
      if (count > 0 && bytes > this.options.maxBytes) break;
      count++;
    }
    const batch = queue.splice(0, count);
    if (queue.length === 0) this.waiting.delete(accountId);
    else this.schedule(accountId);
    return batch;
  }

  private async runBatch(batch: Waiting<Item, Result>[], accountId: AccountId): Promise<void> {
    try {
      const outcomes = await this.options.run(
        accountId,
        batch.map((waiting) => waiting.item),
      );
      batch.forEach((waiting, place) => {
        const outcome = outcomes[place];
        if (outcome && 'value' in outcome) waiting.resolve(outcome.value);
        else waiting.reject(outcome ? outcome.error : new Error('an item of a batch got no outcome'));
      });
    } catch (error) {
      if (batch.length > 1 && this.options.shouldSplit(error)) {
        for (const waiting of batch) await this.runBatch([waiting], accountId);
      } else {
        for (const waiting of batch) waiting.reject(error);
      }
    }
  }
}
