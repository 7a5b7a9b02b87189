/** What a setting says to a client that is turned away, as a reply. */
import { type Reply, reply } from '../../../protocols/smtp/grammar/index.js';

const coded = /^([45]\d\d)(?: (\d\.\d{1,3}\.\d{1,3}))? +(.*)$/s;

/**
 * A refusal from its text: `550 5.7.1 No mail from there`, `450 Later`, or a sentence alone, which takes code and enhanced code of `otherwise`.
 * '' refuses nothing.
 */
export function refusalOf(text: string, otherwise: Reply): Reply | undefined {
  const trimmed = text.trim();
  if (trimmed === '') return undefined;
  const [, code, enhanced, rest] = coded.exec(trimmed) ?? [];
  if (code === undefined) return { ...otherwise, text: trimmed };
  const isFitting = enhanced?.[0] === code[0];
  return reply(Number(code), isFitting ? enhanced! : `${code[0]}.7.1`, rest || 'Refused');
}

export const refusals = {
  connect: reply(554, '5.7.1', 'No mail from there'),
  ehlo: reply(550, '5.7.1', 'That name is not welcome'),
  auth: reply(535, '5.7.8', 'You may not log in here now'),
  mail: reply(550, '5.7.1', 'This sender is not welcome'),
  rcpt: reply(550, '5.7.1', 'Not for this recipient'),
  data: reply(554, '5.7.1', 'This message is not welcome'),
  rate: reply(450, '4.7.1', 'Too much at once, please try again later'),
  concurrency: reply(421, '4.7.0', 'Too many connections, please try again later'),
  greylisted: reply(450, '4.7.1', 'Greylisted, please try again later'),
  undecided: reply(451, '4.3.5', 'This can not be decided now, please try again later'),
  blocklisted: reply(554, '5.7.1', 'Your address is on a blocklist'),
} as const satisfies Record<string, Reply>;

/** The reply with a hint when to come back. */
export function withDelay(refusal: Reply, retryAfterSeconds: number): Reply {
  const seconds = Math.max(1, Math.ceil(retryAfterSeconds));
  return { ...refusal, text: `${[refusal.text].flat().join(' ')} (in ${seconds} s)` };
}
