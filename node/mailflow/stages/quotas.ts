/**
 * How much may wait in the queue under one name: of all, of a sender, for a domain, whatever a rule's key says. The queue counts over all nodes what was
 * queued under a name since there is such a rule, a second or so behind: a quota is no lock.
 */
import type { Reply } from '../../../protocols/smtp/grammar/index.js';
import type { Queue } from '../../../store/queue/index.js';
import { replies } from '../replies.js';
import type { Asker } from './ask.js';
import type { QuotaRule } from './contract.js';
import type { Facts } from './facts.js';
import { stageVerdicts } from './metrics.js';

/** A message is counted under so many names at most; rules beyond are passed over. */
const maxNames = 16;
const maxKeyCharacters = 256;

/** Asked at RCPT. `names`: those that the message will be counted under; a name that is among them was asked about already. */
export async function overQuota(
  rules: readonly QuotaRule[],
  { asker, queue }: { asker: Asker; queue: Pick<Queue, 'usage'> },
  names: Set<string>,
  sizeBytes: number,
  facts: () => Facts,
): Promise<Reply | undefined> {
  for (const rule of rules) {
    if (!(await asker.ask(rule.match, facts))) continue;
    const key = await asker.ask(rule.key, facts);
    if (key === '' || names.size >= maxNames) continue;
    const name = `${rule.name}:${key.toLowerCase().slice(0, maxKeyCharacters)}`;
    if (names.has(name)) continue;
    const waiting = await asker.lenient('quota', () => queue.usage(name), undefined);
    const [maxMessages, maxBytes] = [await asker.ask(rule.maxMessages, facts), await asker.ask(rule.maxBytes, facts)];
    const isOver =
      waiting !== undefined &&
      ((maxMessages > 0 && waiting.messages >= maxMessages) || (maxBytes > 0 && waiting.bytes + sizeBytes > maxBytes));
    if (isOver) {
      stageVerdicts.inc({ check: 'quota', result: 'deferred' });
      return replies.queueFull;
    }
    names.add(name);
  }
  return undefined;
}
