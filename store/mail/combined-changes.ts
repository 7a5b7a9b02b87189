/**
 * Small changes of one account that wait for each other share a transaction, and so the time of one durable commit. To everybody else they are as many changes as
 * ever: each has its own modseq and token, and its own item in the log; the next one sees what the one before it has written.
 */
import { counter } from '../../ops/telemetry/index.js';
import { KvError } from '../kv/contract.js';
import { maxCombinedBytes } from './account-changes.js';
import {
  type ChangeBody,
  type ChangeContext,
  type ChangeTogether,
  type Done,
  makeChange,
  noteChanges,
  type PlannedChange,
  planChange,
} from './context.js';
import type { AccountId } from './contract.js';
import { AccountCombiner, type Outcome } from './gate.js';

const combined = counter(
  'starling_mail_combined_changes_total',
  'Changes of flags and expunges that shared a transaction with others',
);

/** Each reads a few rows before the next one begins, and all must be done within a transaction's time. */
const maxChanges = 50;
/** Changes of more messages are transactions of their own. */
export const maxCombinedMessages = 100;
/** After so many runs that came to nothing, each is made alone: less is read at a time, and less of it can be changed by others meanwhile. */
const maxRuns = 4;
/** About what such a change writes for one message. */
const bytesPerMessage = 2_000;

/** They lost again and again, against other nodes or against time. */
class Crowded extends Error {}

interface Item extends PlannedChange<unknown> {
  messages: number;
}

export function combinedChanges(context: ChangeContext): ChangeTogether {
  const combiner = new AccountCombiner<Item, unknown>({
    gate: context.gate,
    maxItems: maxChanges,
    maxBytes: maxCombinedBytes,
    bytesOf: ({ messages }) => messages * bytesPerMessage,
    // A body that throws may have written already, and its writes must not be kept: all are made again, each alone.
    shouldSplit: (error) => !(error instanceof KvError) || error.code === 'too-large',
    run: (accountId, items) => runTogether(context, accountId, items),
  });
  return <T>(accountId: AccountId, operation: string, messages: number, body: ChangeBody<T>) =>
    combiner.submit(accountId, { ...planChange(context, operation, body), messages }) as Promise<T>;
}

async function runTogether(context: ChangeContext, accountId: AccountId, items: readonly Item[]): Promise<Outcome<unknown>[]> {
  const [first] = items;
  const isMixed = items.some(({ operation }) => operation !== first!.operation);
  let runs = 0;
  const outcomes = await context.kv.transact(
    async (tx) => {
      // Also of those that are not come to because one before them throws.
      if (tx.mayHaveCommitted) for (const item of items) item.mayHaveCommitted = true;
      if (++runs > maxRuns && items.length > 1) throw new Crowded();
      const made: Done<unknown>[] = [];
      for (const item of items) made.push(await makeChange(context, tx, accountId, item));
      return made;
    },
    { label: isMixed ? 'mail-combined' : `mail-${first!.operation}` },
  );
  if (items.length > 1) combined.inc(items.length);
  noteChanges(context, items, outcomes);
  return outcomes;
}
