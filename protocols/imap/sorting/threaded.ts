/** Puts together what a THREAD works on, and runs its algorithm. */
import type { SessionContext } from '../context.js';
import type { ThreadAlgorithm } from '../grammar/sort-keys.js';
import { numbersOf } from '../search/answer.js';
import type { Found } from '../search/run.js';
import { Turns } from '../search/turns.js';
import { messageFacts } from './facts-cache.js';
import type { MessageFacts } from './message-facts.js';
import { orderBy } from './order.js';
import { type ThreadInput, threadByReferences, threadBySubject, threadText } from './threads.js';

const epochOffsetSeconds = 62_135_596_800;

/** The data of the THREAD response, in pieces. Throws KvError, ConnectionClosed. */
export async function threaded(
  context: SessionContext,
  found: Found,
  algorithm: ThreadAlgorithm,
  byUid: boolean,
): Promise<Iterable<string>> {
  const numbers = numbersOf(found, byUid);
  if (numbers.length === 0) return [];
  const facts = await messageFacts(context, context.requireSelected());
  // Copied before anybody waits: the facts are shared.
  const input = inputOf(context, found, facts);
  if (algorithm === 'ORDEREDSUBJECT') return threadText(threadBySubject(input), numbers);
  const turns = new Turns(context);
  const steps = threadByReferences(input, algorithm === 'REFS');
  for (;;) {
    const step = steps.next();
    if (step.done) return threadText(step.value, numbers);
    await turns.give();
  }
}

function inputOf(context: SessionContext, { announced, positions }: Found, facts: MessageFacts): ThreadInput {
  const view = context.requireSelected().index.view();
  const rows = positions.length;
  const uids = positions.map((position) => announced[position]!);
  const slots = facts.slotsOf(uids);
  const ids = new Float64Array(rows);
  const starts = new Uint32Array(rows + 1);
  const subjects = new Uint32Array(rows);
  const isReply = new Uint8Array(rows);
  const arrived = new Float64Array(rows);
  const sent = new Float64Array(rows);
  for (let row = 0, at = -1; row < rows; row++) {
    if (view.uids[++at] !== uids[row]! && (at = view.positionOf(uids[row]!)) < 0) at = -1;
    else arrived[row] = Math.floor(view.receivedAtMsAt(at) / 1000);
    const slot = slots[row]!;
    starts[row + 1] = starts[row]! + (slot < 0 ? 0 : facts.referenceCountAt(slot));
    if (slot < 0) continue;
    ids[row] = facts.idAt(slot);
    subjects[row] = facts.textAt('subject', slot);
    isReply[row] = facts.isReplyAt(slot);
    sent[row] = Math.max(0, facts.sentSecondsAt(slot) + epochOffsetSeconds);
  }
  const references = new Float64Array(starts[rows]!);
  for (let row = 0; row < rows; row++) if (slots[row]! >= 0) facts.copyReferences(slots[row]!, references, starts[row]!);
  const bySent = orderBy([{ values: sent, isReverse: false }], rows);
  return { rows, ids, references, starts, subjects, isReply, bySent, arrived };
}
