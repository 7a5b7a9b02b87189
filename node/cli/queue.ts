/** The command line's part of the queue operations: who asks, what must be said at least, and the queue as people want to see it. */
import type { OperationArguments } from '../api/operation.js';
import { hasFilters } from '../api/queue-filters.js';
import { UsageError } from './arguments.js';
import { explanationText } from './explain.js';
import { type OperationFace, signed } from './face.js';
import { printable, table } from './output.js';

type Row = Record<string, unknown>;

/** `3d 4h`, `5m 2s`: the two largest units. */
export function ageText(seconds: unknown): string {
  if (typeof seconds !== 'number') return '-';
  const parts = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3_600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'm'],
    [Math.floor(seconds) % 60, 's'],
  ] as const;
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return '0s';
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count}${unit}`)
    .join(' ');
}

const shownReplyCharacters = 60;
const shortened = (text: string, length: number) => (text.length <= length ? text : `${text.slice(0, length - 1)}…`);

function glance(row: Row): Row {
  return {
    id: row['id'],
    age: ageText(row['ageSeconds']),
    from: row['from'] === '' ? '<>' : row['from'],
    size: row['sizeBytes'],
    state: row['states'],
    to: Array.isArray(row['domains']) ? shortened(row['domains'].join(','), 40) : null,
    rcpts: row['pending'],
    tries: row['attempts'],
    next: typeof row['nextAttemptAt'] === 'string' ? row['nextAttemptAt'].slice(0, 19).replace('T', ' ') : null,
    'last reply': typeof row['lastReply'] === 'string' ? shortened(row['lastReply'], shownReplyCharacters) : null,
  };
}

/** `limit`: how many were asked for. */
export function queueTable(rows: Row[], limit: number): string {
  if (rows.length === 0) return '(none)';
  const more = rows.length >= limit ? [`(perhaps more: --after ${printable(String(rows.at(-1)!['id']))})`] : [];
  return [table(rows.map(glance)), ...more].join('\n');
}

/** One message is meant, or all that options say: never everything by an oversight. */
function meaningSomething(args: OperationArguments): OperationArguments {
  const [id] = args.positionals;
  const { domain: _domain, ...others } = args.flags;
  const isMany = hasFilters(args) || args.flags['all'] === true;
  if (id === undefined && !isMany) throw new UsageError('say which: an ID, options such as --domain D, or --all');
  if (id !== undefined && (args.flags['all'] === true || hasFilters({ ...args, flags: others })))
    throw new UsageError('either an ID (with --domain D: only that destination of it), or options for many');
  return signed(args);
}

function rerouting(args: OperationArguments): OperationArguments {
  const { host, via, back } = args.flags;
  if ([host !== undefined, via !== undefined, back === true].filter(Boolean).length !== 1)
    throw new UsageError('queue reroute takes one of --host HOST [--port N], --via DOMAIN and --back');
  return meaningSomething(args);
}

const many = { prepare: meaningSomething } satisfies OperationFace;

export const queueFaces: Readonly<Record<string, OperationFace>> = {
  'queue list': {
    print: (result, { flags }) => queueTable(result as Row[], Number(flags['limit'] ?? 100)),
  },
  'queue show': {
    print(result) {
      const { history, ...queued } = result as { message: { id: string }; destinations: unknown[]; history: unknown[] };
      return explanationText({ id: queued.message.id, state: 'queued', queued, history } as never);
    },
  },
  'queue retry': many,
  'queue hold': many,
  'queue unhold': many,
  'queue cancel': many,
  'queue reroute': { prepare: rerouting },
  'queue pause': { prepare: signed },
};
