/** Operations on the queue: list and show, retry, hold, cancel, reroute (one message, or all that a filter means), pause and resume destinations. */
// From their files: a command on a running node loads no queue.
import { domainOf } from '../../store/queue/filter.js';
import { isQueueId } from '../../store/queue/ids.js';
import type {
  HistoryRecord,
  OperatorAction,
  QueuedMessage,
  QueueFilter,
  QueueRecipient,
  RouteOverride,
} from '../../store/queue/index.js';
import { isoTime, operatorOf, textFlag, wholeNumber } from './flags.js';
import { type Operation, type OperationArguments, type OperationContext, OperationRefused } from './operation.js';
import { choiceOf, filterUsage, hasFilters, wantedBy, wantedMessages } from './queue-filters.js';

const defaultListed = 100;
const maxListed = 10_000;
const maxNoteCharacters = 200;

const nowSecondsOf = ({ stores }: OperationContext) => Math.floor(stores.clock.nowMs() / 1_000);

/** One line of `queue list`. */
export function queueRow({ message, destinations }: QueuedMessage, nowMs: number): Record<string, unknown> {
  const next = destinations.filter(({ state }) => state === 'due').map(({ dueAtSeconds }) => dueAtSeconds);
  const pending = destinations.flatMap(({ recipients }) => recipients.filter(({ status }) => status === 'pending'));
  const states = destinations.map(({ state, line }) => (state === 'due' && line !== undefined ? 'waiting' : state));
  return {
    id: message.id,
    from: message.from,
    sizeBytes: message.sizeBytes,
    receivedAt: isoTime(message.receivedAtMs),
    ageSeconds: Math.max(0, Math.floor((nowMs - message.receivedAtMs) / 1_000)),
    queue: message.queueName ?? 'default',
    states: [...new Set(states)],
    domains: [...new Set(destinations.map(({ domain }) => domain))],
    pending: pending.length,
    attempts: Math.max(0, ...destinations.map(({ attempts }) => attempts)),
    nextAttemptAt: next.length === 0 ? null : isoTime(Math.min(...next) * 1_000),
    lastReply: replyText(pending.findLast(({ lastReply }) => lastReply)?.lastReply),
  };
}

/** `451 4.3.0 Try later (mx.example.net)`; null without a reply. */
export function replyText(reply: QueueRecipient['lastReply']): string | null {
  if (!reply) return null;
  const words = [reply.code > 0 ? String(reply.code) : '', reply.enhanced, reply.text, reply.host ? `(${reply.host})` : ''];
  return words.filter(Boolean).join(' ');
}

async function listQueue(context: OperationContext, args: OperationArguments): Promise<Record<string, unknown>[]> {
  const limit = Math.min(wholeNumber(textFlag(args.flags['limit']) ?? String(defaultListed), '--limit'), maxListed);
  const after = textFlag(args.flags['after']);
  if (after !== undefined && !isQueueId(after))
    throw new OperationRefused(`--after takes an id of the queue, not '${after.slice(0, 40)}'`);
  const nowMs = context.stores.clock.nowMs();
  const rows: Record<string, unknown>[] = [];
  if (limit === 0) return rows;
  for await (const found of wantedMessages(context, wantedBy(args, nowMs), after)) {
    rows.push(queueRow(found, nowMs));
    if (rows.length >= limit) break;
  }
  return rows;
}

/** What happened to a message, oldest first. */
export function historyOf({ stores }: OperationContext, id: string): Promise<HistoryRecord[]> {
  return stores.kv.read((reads) => stores.history.read(reads, id), { label: 'history' });
}

async function showMessage(context: OperationContext, id: string): Promise<unknown> {
  const found = await context.stores.queue.show(id);
  if (!found) throw new OperationRefused(`${id} is not in the queue`);
  return { ...found, history: await historyOf(context, id) };
}

/** How an operator's change is signed in histories. */
function signatureOf(args: OperationArguments): { by: string; note?: string } {
  const note = textFlag(args.flags['note'])?.slice(0, maxNoteCharacters);
  return { by: operatorOf(args), ...(note !== undefined && { note }) };
}

/** Throws unless either one id is given, or filters or --all. */
function meansWhat(args: OperationArguments, verb: string): string | undefined {
  const [id] = args.positionals;
  const means = [id !== undefined, hasFilters(args) || args.flags['all'] === true].filter(Boolean).length;
  // With an id, --domain chooses among its destinations.
  const isDomainOnly = id !== undefined && filterlessExceptDomain(args);
  if (means === 1 || isDomainOnly) return id;
  throw new OperationRefused(`queue ${verb} takes an ID, or options that say which messages, or --all`);
}

function filterlessExceptDomain(args: OperationArguments): boolean {
  return args.flags['all'] !== true && !hasFilters({ ...args, flags: { ...args.flags, domain: undefined } });
}

async function change(
  context: OperationContext,
  args: OperationArguments,
  verb: string,
  action: OperatorAction,
): Promise<unknown> {
  const id = meansWhat(args, verb);
  const facts = { nowSeconds: nowSecondsOf(context), ...signatureOf(args) };
  if (id !== undefined) {
    const domain = domainChoice(args);
    const destinations = await context.stores.queue.change(id, action, { ...facts, ...(domain !== undefined && { domain }) });
    if (destinations === 0) throw new OperationRefused(`nothing to do for ${id} in the queue`);
    return { id, destinations };
  }
  const filter = wantedBy(args, context.stores.clock.nowMs());
  return { destinations: await changeMany(context, filter, action, facts) };
}

async function changeMany(
  context: OperationContext,
  filter: QueueFilter,
  action: OperatorAction,
  facts: { nowSeconds: number; by: string; note?: string },
): Promise<number> {
  const { queue } = context.stores;
  let changed = 0;
  let afterQueueId: string | undefined;
  do {
    context.signal?.throwIfAborted();
    const step = await queue.changeAll({
      filter,
      action,
      ...facts,
      ...(afterQueueId !== undefined && { afterQueueId }),
    });
    changed += step.changed;
    afterQueueId = step.readOnAfter;
  } while (afterQueueId !== undefined);
  return changed;
}

async function retry(context: OperationContext, args: OperationArguments): Promise<unknown> {
  const domain = domainChoice(args);
  // Who asks for a domain knows better than the cluster that it is up again.
  if (domain !== undefined && args.positionals.length === 0) await context.stores.destinations.forget(domain);
  return change(context, args, 'retry', { kind: 'retry' });
}

function cancelAction({ flags }: OperationArguments): OperatorAction {
  if (flags['bounce'] !== true) return { kind: 'cancel' };
  const note = textFlag(flags['note'])
    ?.slice(0, maxNoteCharacters)
    .replace(/[^\x20-\x7e\u00a0-\uffff]/g, ' ');
  const text = `Cancelled by the administrator of the mail system${note ? `: ${note}` : ''}`;
  return { kind: 'cancel', reply: { code: 550, enhanced: '5.3.0', text } };
}

function domainChoice(args: OperationArguments): string | undefined {
  const domain = choiceOf(args, 'domain');
  return domain === undefined ? undefined : domainOf(domain);
}

function routeOf({ flags }: OperationArguments): RouteOverride | undefined {
  const [host, via, port] = ['host', 'via', 'port'].map((name) => textFlag(flags[name]));
  const ways = [host !== undefined, via !== undefined, flags['back'] === true].filter(Boolean).length;
  if (ways !== 1) throw new OperationRefused('queue reroute takes one of --host HOST, --via DOMAIN and --back');
  if (port !== undefined && host === undefined) throw new OperationRefused('--port goes with --host');
  if (flags['back'] === true) return undefined;
  const target = domainOf((host ?? via)!);
  if (!/^(?=.{1,255}$)(?:[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.?)+$|^[0-9a-f:.]{2,45}$/i.test(target))
    throw new OperationRefused(`no name or address of a host: '${target.slice(0, 60)}'`);
  if (via !== undefined) return { host: target, isDomain: true };
  const number = port === undefined ? undefined : wholeNumber(port, '--port');
  if (number !== undefined && (number < 1 || number > 65_535)) throw new OperationRefused('--port is from 1 to 65535');
  return { host: target, ...(number !== undefined && { port: number }) };
}

/** A domain, `queue:NAME`, or `*` (also `all`). */
function pausable(what: string): string {
  if (what === '*' || what === 'all') return '*';
  if (/^queue:[a-z0-9_.-]{1,64}$/i.test(what)) return `queue:${what.slice('queue:'.length)}`;
  const domain = domainOf(what);
  if (/^(?=.{1,255}$)[a-z0-9_-]+(\.[a-z0-9_-]+)*$|^\[[0-9a-z:.]{2,60}\]$/.test(domain)) return domain;
  throw new OperationRefused(`what is paused is a domain, queue:NAME or 'all', not '${what.slice(0, 60)}'`);
}

async function destinations(context: OperationContext): Promise<Record<string, unknown>[]> {
  const room = context.stores.destinations;
  // On a stopped node's store it has never looked.
  await room.reload();
  const paused = room.pauses().map(({ what, by, note, sinceMs }) => ({
    what,
    state: 'paused',
    since: isoTime(sinceMs),
    failures: null,
    nextProbeAt: null,
    by,
    why: note,
  }));
  const down = room.down().map(({ domain, failures, lastReply, downSinceMs, nextProbeAtSeconds }) => ({
    what: domain,
    state: 'down',
    since: isoTime(downSinceMs),
    failures,
    nextProbeAt: isoTime(nextProbeAtSeconds * 1_000),
    by: null,
    why: replyText(lastReply),
  }));
  return [...paused, ...down];
}

const many = `[ID] ${filterUsage} [--all] [--note TEXT]`;

export const queueOperations: Record<string, Operation> = {
  'queue list': {
    usage: `${filterUsage} [--limit N] [--after ID]`,
    summary: 'messages in the queue, oldest first; --text looks in last replies',
    run: listQueue,
  },
  'queue show': {
    usage: 'ID',
    summary: 'one message with every recipient and its history',
    run: (context, { positionals }) => showMessage(context, positionals[0]!),
  },
  'queue retry': {
    usage: many,
    summary: 'try again now; with --domain even though it is known to be down',
    run: retry,
  },
  'queue hold': {
    usage: many,
    summary: 'keep, but do not try',
    run: (context, args) => change(context, args, 'hold', { kind: 'hold' }),
  },
  'queue unhold': {
    usage: many,
    summary: 'try again after a hold',
    run: (context, args) => change(context, args, 'unhold', { kind: 'unhold' }),
  },
  'queue cancel': {
    usage: `${many} [--bounce]`,
    summary: 'remove without a word, or with --bounce and a report to the sender that says TEXT',
    run: async (context, args) => change(context, args, 'cancel', cancelAction(args)),
  },
  'queue reroute': {
    usage: `${many} [--host HOST] [--port N] [--via DOMAIN] [--back]`,
    summary: 'send to HOST, or where mail for DOMAIN goes, instead of where it belongs',
    run: async (context, args) => change(context, args, 'reroute', { kind: 'reroute', route: routeOf(args) }),
  },
  'queue pause': {
    usage: 'WHAT [--note TEXT]',
    summary: 'try nothing of a domain, of queue:NAME or of all, on any node',
    run: async (context, args) => {
      const what = pausable(args.positionals[0]!);
      const { by, note = '' } = signatureOf(args);
      await context.stores.destinations.pause(what, by, note);
      return { paused: what };
    },
  },
  'queue resume': {
    usage: 'WHAT',
    summary: 'go on with what was paused',
    run: async (context, { positionals }) => {
      const what = pausable(positionals[0]!);
      if (await context.stores.destinations.resume(what)) return { resumed: what };
      throw new OperationRefused(`${what} is not paused`);
    },
  },
  'queue destinations': {
    usage: '',
    summary: 'what is paused and which domains are down, with the next probe',
    run: destinations,
  },
  'queue counts': {
    usage: '',
    summary: 'how much is due, scheduled, waiting for a destination, claimed',
    run: async (context) => context.stores.queue.counts(nowSecondsOf(context)),
  },
};
