/** Tells the story of a message in plain text: one line for each thing that happened, with the replies of other servers below. */

import type { Destination, HistoryEvent, HistoryRecord, QueuedMessage } from '../../store/queue/index.js';
import type { Explanation } from '../api/explain-operation.js';
import type { OperationFace } from './face.js';
import { printable } from './output.js';

/** Enough of a node's id to give it to `node show`. */
const shownIdCharacters = 12;
const shownRecipients = 10;
const indent = ' '.repeat(4);

const time = (ms: number) => new Date(ms).toISOString().replace('T', ' ').replace('Z', '');
const address = (text: string) => (text === '' ? '<>' : printable(text));

function byteText(bytes: number): string {
  if (bytes < 10_000) return `${bytes} bytes`;
  return bytes < 10_000_000 ? `${Math.round(bytes / 1_000)} kB` : `${Math.round(bytes / 1_000_000)} MB`;
}

function listed(items: readonly string[], count: number): string {
  const shown = items.slice(0, shownRecipients).map(address).join(', ');
  return count > Math.min(items.length, shownRecipients)
    ? `${shown} and ${count - Math.min(items.length, shownRecipients)} more`
    : shown;
}

type Reply = { code: number; enhanced: string; text: string; host?: string };

function reply({ code, enhanced, text, host }: Reply): string {
  const words = [code > 0 ? String(code) : '', enhanced, text].filter(Boolean).join(' ');
  return `${printable(words)}${host ? ` (${printable(host)})` : ''}`;
}

type Accepted = Extract<HistoryEvent, { kind: 'accepted' }>;

function acceptedLines(event: Accepted): string[] {
  const { remoteAddress, helo, login, tls, messageId, checks } = event;
  const how = [
    `accepted by ${printable(event.protocol)}`,
    remoteAddress && `from ${printable(remoteAddress)}`,
    helo && `(${printable(helo)})`,
    login && `as ${printable(login)}`,
    tls && `over ${printable(tls)}`,
  ];
  const checked = Object.entries(checks).map(([name, result]) => `${printable(name)}: ${printable(result)}`);
  return [
    how.filter(Boolean).join(' '),
    `from ${address(event.from)} to ${listed(event.recipients, event.recipientCount)}, ${byteText(event.sizeBytes)}`,
    ...(messageId ? [`Message-ID ${printable(messageId)}`] : []),
    ...(checked.length > 0 ? [`checks: ${checked.join('; ')}`] : []),
  ];
}

type Attempt = Extract<HistoryEvent, { kind: 'attempt' }>;

/** Recipients that were told the same are told together. */
function resultLines(results: Attempt['results']): string[] {
  const groups = new Map<string, string[]>();
  for (const result of results) {
    const said = `${printable(result.verdict)}: ${reply(result)}`;
    groups.set(said, [...(groups.get(said) ?? []), result.address]);
  }
  return [...groups].map(([said, addresses]) => `${listed(addresses, addresses.length)} ${said}`);
}

function attemptLines(event: Attempt): string[] {
  const { domain, isLocal, attempt, tls, nextAttemptAtMs, results, omitted } = event;
  const what = `attempt ${attempt} ${isLocal ? 'to deliver here, for' : 'to reach'} ${printable(domain)}`;
  return [
    `${what}${tls ? ` over ${printable(tls)}` : ''}`,
    ...resultLines(results),
    ...(omitted > 0 ? [`and ${omitted} more recipients`] : []),
    ...(nextAttemptAtMs === undefined ? [] : [`next attempt at ${time(nextAttemptAtMs)}`]),
  ];
}

const reportNames = { failed: 'a report of failure', delayed: 'a report of delay', success: 'a report of success' } as const;
const actionNames = {
  retry: 'wanted it tried at once',
  hold: 'held it',
  unhold: 'let it go on',
  cancel: 'cancelled it',
  reroute: 'sent it another way',
} as const;

function eventLines(event: HistoryEvent): string[] {
  switch (event.kind) {
    case 'accepted':
      return acceptedLines(event);
    case 'attempt':
      return attemptLines(event);
    case 'expanded':
      return [`expanded for ${printable(event.domain)} into ${event.into} with ${event.members} members`];
    case 'report':
      return [`${reportNames[event.report] ?? event.report} on ${event.recipients} recipients was sent as ${event.id}`];
    case 'freed': {
      const node = event.fromNode.slice(0, shownIdCharacters);
      const why = event.reason === 'dead' ? `node ${node} was declared dead` : `node ${node} gave it back`;
      return [`delivery for ${printable(event.domain)} came free: ${why}`];
    }
    case 'operator': {
      const note = event.note ? `: ${printable(event.note)}` : '';
      return [
        `${event.by === '' ? 'an operator' : `operator ${printable(event.by)}`} ${actionNames[event.action] ?? event.action}${note}`,
      ];
    }
    case 'done':
      return ['done: nothing of it is left in the queue'];
    default:
      return [`${(event as { kind: string }).kind} (of a later release)`];
  }
}

function recordLines({ atMs, nodeId, event }: HistoryRecord): string[] {
  const [first, ...details] = eventLines(event);
  return [`${time(atMs)}  ${nodeId.slice(0, shownIdCharacters)}  ${first}`, ...details.map((line) => `${indent}${line}`)];
}

function destinationState(destination: Destination): string {
  const { state, claim, line, dueAtSeconds, attempts, route } = destination;
  const next = `due at ${time(dueAtSeconds * 1_000)}`;
  const what =
    state === 'claimed'
      ? `being delivered by node ${claim?.nodeId.slice(0, shownIdCharacters) ?? '?'}`
      : state === 'held'
        ? 'held by an operator'
        : line === undefined
          ? next
          : `waits for ${printable(line)}, at most until ${time(dueAtSeconds * 1_000)}`;
  const way = route ? `, by way of ${printable(route.host)}${route.port === undefined ? '' : `:${route.port}`}` : '';
  return `${printable(destination.domain)}: ${what}, ${attempts} attempts${way}`;
}

function queuedLines({ message, destinations }: QueuedMessage): string[] {
  const lines = [`in the queue '${printable(message.queueName ?? 'default')}', expires at ${time(message.expiresAtMs)}`];
  for (const destination of destinations) {
    lines.push(destinationState(destination));
    const said = new Map<string, string[]>();
    for (const { address: recipient, status, lastReply } of destination.recipients) {
      const text = `${status}${lastReply ? `: ${reply(lastReply)}` : ''}`;
      said.set(text, [...(said.get(text) ?? []), recipient]);
    }
    for (const [text, recipients] of said) lines.push(`${indent}${listed(recipients, recipients.length)} ${text}`);
  }
  return lines;
}

const stateNames = { queued: 'is in the queue', done: 'is done', gone: 'is not in the queue any more' } as const;

function headline({ id, state, queued }: Explanation): string {
  if (!queued) return `${id} ${stateNames[state]}`;
  const { from, sizeBytes, receivedAtMs } = queued.message;
  return `${id} from ${address(from)}, ${byteText(sizeBytes)}, accepted at ${time(receivedAtMs)}, ${stateNames[state]}`;
}

/** The whole story, children below their parent. */
export function explanationText(explanation: Explanation): string {
  const { queued, history, children = [] } = explanation;
  const lines = [
    headline(explanation),
    ...(history.length === 0 ? ['(no history: a node of an earlier release accepted it)'] : []),
    ...history.flatMap(recordLines),
    ...(queued ? ['now:', ...queuedLines(queued).map((line) => `${indent}${line}`)] : []),
  ];
  const below = children.map((child) =>
    explanationText(child)
      .split('\n')
      .map((line) => `${indent}${line}`)
      .join('\n'),
  );
  return [...lines, ...below].join('\n');
}

export const explainFaces: Readonly<Record<string, OperationFace>> = {
  explain: { print: (result) => explanationText(result as Explanation) },
};
