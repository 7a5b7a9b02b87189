/** `explain ID`: everything that is known of a message, from its acceptance to mailbox, relay or report, on whichever nodes. */
import { isQueueId } from '../../store/queue/ids.js';
import type { HistoryRecord, QueuedMessage } from '../../store/queue/index.js';
import { type Operation, type OperationContext, OperationRefused } from './operation.js';
import { historyOf } from './queue-operations.js';

export interface Explanation {
  id: string;
  /** `gone`: its history ends, but not with its end (kept from a release before, or forgotten in part). */
  state: 'queued' | 'done' | 'gone';
  /** As it is in the queue now. */
  queued: QueuedMessage | null;
  history: HistoryRecord[];
  /** With `--deep`: messages that were made of it (expansions, reports). */
  children?: Explanation[];
}

const maxMessages = 200;

async function explain(context: OperationContext, id: string): Promise<Explanation | undefined> {
  // The record first: what ends between the two reads is then in the history.
  const queued = (await context.stores.queue.show(id)) ?? null;
  const history = await historyOf(context, id);
  if (!queued && history.length === 0) return undefined;
  const isDone = history.some(({ event }) => event.kind === 'done');
  return { id, state: isDone ? 'done' : queued ? 'queued' : 'gone', queued, history };
}

/** Ids of messages that were made of this one. */
export function childrenOf(history: readonly HistoryRecord[]): string[] {
  const ids = history.flatMap(({ event }) =>
    event.kind === 'expanded' ? [event.into] : event.kind === 'report' ? [event.id] : [],
  );
  return [...new Set(ids)];
}

/** Breadth first, each message once, so that the limit cuts off the farthest. */
async function explainDeep(context: OperationContext, root: Explanation): Promise<void> {
  const seen = new Set([root.id]);
  const open = [root];
  for (let parent = open.shift(); parent; parent = open.shift()) {
    parent.children = [];
    for (const id of childrenOf(parent.history)) {
      if (seen.has(id) || seen.size >= maxMessages) continue;
      seen.add(id);
      const child = await explain(context, id);
      if (!child) continue;
      parent.children.push(child);
      open.push(child);
    }
  }
}

export const explainOperations: Record<string, Operation> = {
  explain: {
    usage: 'ID [--deep]',
    summary: 'the story of a message: acceptance, checks, attempts, replies, its end; --deep: also of what was made of it',
    run: async (context, { positionals, flags }) => {
      const id = positionals[0]!;
      if (!isQueueId(id))
        throw new OperationRefused(
          `'${id.slice(0, 60)}' is no id of the queue: it is in the reply to the message and in the log`,
        );
      const found = await explain(context, id);
      if (!found)
        throw new OperationRefused(`nothing is known of ${id}: it never was in this queue, or its history is forgotten`);
      if (flags['deep'] === true) await explainDeep(context, found);
      return found;
    },
  },
};
