/** Which messages of the queue an operator means: by id, or by the options that all queue commands have in common. */
import { domainOf } from '../../store/queue/filter.js';
import type { QueuedMessage, QueueFilter } from '../../store/queue/index.js';
import { durationSeconds } from './flags.js';
import { type OperationArguments, type OperationContext, OperationRefused } from './operation.js';

/** For usage lines. */
export const filterUsage =
  '[--sender ADDRESS|@DOMAIN] [--recipient ADDRESS] [--domain D] [--state due|claimed|held|waiting] [--queue NAME] [--older-than TIME] [--text TEXT]';

const filterFlags = ['sender', 'recipient', 'domain', 'state', 'queue', 'older-than', 'text'];
const states = ['due', 'claimed', 'held', 'waiting'] as const;

export const hasFilters = ({ flags }: OperationArguments): boolean => filterFlags.some((name) => flags[name] !== undefined);

/** An option that chooses messages. What is empty, as from a script's unset variable, or no text is refused: it would choose others than were meant, or all. */
export function choiceOf({ flags }: OperationArguments, name: string): string | undefined {
  const value = flags[name];
  if (value === undefined || (typeof value === 'string' && value.trim() !== '')) return value;
  throw new OperationRefused(`--${name} says nothing${name === 'sender' ? `; bounces are --sender '<>'` : ''}`);
}

/** What the options say. Throws `OperationRefused`. */
export function wantedBy(args: OperationArguments, nowMs: number): QueueFilter {
  const [sender, recipient, domain, state, queueName, olderThan, text] = filterFlags.map((name) => choiceOf(args, name));
  if (state !== undefined && !(states as readonly string[]).includes(state))
    throw new OperationRefused(`--state is one of ${states.join(', ')}, not '${state.slice(0, 40)}'`);
  return {
    ...(sender !== undefined && { sender }),
    ...(recipient !== undefined && { recipient }),
    ...(domain !== undefined && { domain: domainOf(domain) }),
    ...(state !== undefined && { state: state as (typeof states)[number] }),
    ...(queueName !== undefined && { queueName }),
    ...(olderThan !== undefined && { receivedBeforeMs: nowMs - durationSeconds(olderThan, '--older-than') * 1_000 }),
    ...(text !== undefined && { replyText: text }),
  };
}

/** Page after page of what is wanted, to the end of the queue; `signal` and whoever stops asking end it. */
export async function* wantedMessages(
  { stores, signal }: OperationContext,
  filter: QueueFilter,
  afterQueueId?: string,
): AsyncGenerator<QueuedMessage> {
  let after = afterQueueId;
  do {
    signal?.throwIfAborted();
    const { found, readOnAfter } = await stores.queue.search({
      filter,
      limit: 100,
      ...(after !== undefined && { afterQueueId: after }),
    });
    yield* found;
    after = readOnAfter;
  } while (after !== undefined);
}
