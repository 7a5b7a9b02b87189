/**
 * The command line's part of the settings operations: reads files and secrets here, where their user may read them, says who asks, and shows results to
 * people.
 */
import { readFileSync } from 'node:fs';
import { stringify } from 'smol-toml';
import { isTree, parsePath } from '../../store/settings/paths.js';
import { type OperationArguments, OperationRefused } from '../api/operation.js';
import { UsageError } from './arguments.js';
import { type OperationFace, signed } from './face.js';

/** A file's text; `-` is standard input, which can be read once. */
function contentOf(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (error) {
    throw new OperationRefused(`can't read ${file === '-' ? 'standard input' : file}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

function withSecrets(args: OperationArguments): OperationArguments {
  const { 'secret-file': files, ...flags } = args.flags;
  const pairs = Array.isArray(files) ? files : [];
  if (args.positionals.length + pairs.length === 0)
    throw new UsageError('settings set takes PATH=VALUE or --secret-file PATH=FILE');
  if (pairs.filter((pair) => pair.endsWith('=-')).length > 1)
    throw new UsageError('only one secret can come from standard input');
  const secret = pairs.map((pair) => {
    const at = pair.indexOf('=');
    if (at <= 0) throw new UsageError('--secret-file takes PATH=FILE');
    // Editors end files with a line feed; secrets don't.
    return `${pair.slice(0, at)}=${contentOf(pair.slice(at + 1)).replace(/\r?\n$/, '')}`;
  });
  return signed({ ...args, flags: { ...flags, secret } });
}

/** A section comes with its name, so that it can be applied as it was shown. */
function asToml(result: unknown, { positionals: [path] }: OperationArguments): string {
  if (isTree(result) && path !== undefined) {
    const [section, ...within] = parsePath(path);
    if (within.length === 0) return stringify({ [section!]: result }).trimEnd();
  }
  if (isTree(result)) return Object.keys(result).length === 0 ? '(nothing is set)' : stringify(result).trimEnd();
  return result === null ? '(not set)' : typeof result === 'string' ? result : JSON.stringify(result);
}

interface Change {
  path: string;
  old?: unknown;
  new?: unknown;
}

const changeLine = ({ path, old, new: now }: Change) => {
  const side = (value: unknown) => (value === undefined ? 'default' : JSON.stringify(value));
  return `${path}: ${side(old)} -> ${side(now)}`;
};

function changeResult(result: unknown): string {
  const { version, isChanged, changes, note } = result as {
    version: number;
    isChanged: boolean;
    changes: Change[];
    note?: string;
  };
  if (!isChanged) return `nothing to change: the settings are at version ${version}`;
  return [`version ${version}`, ...changes.map((change) => `  ${changeLine(change)}`), ...(note ? [note] : [])].join('\n');
}

interface HistoryRow {
  version: number;
  at: string;
  who: string;
  comment: string;
  changes: Change[];
  unlistedChanges: number;
  rollbackTo?: number;
}

function history(result: unknown): string {
  const rows = result as HistoryRow[];
  if (rows.length === 0) return '(nothing was ever set)';
  return rows
    .flatMap(({ version, at, who, comment, changes, unlistedChanges, rollbackTo }) => [
      [`${version}`, at, who, comment, ...(rollbackTo === undefined ? [] : [`(back to ${rollbackTo})`])]
        .filter(Boolean)
        .join('  '),
      ...changes.map((change) => `    ${changeLine(change)}`),
      ...(unlistedChanges > 0 ? [`    and ${unlistedChanges} more`] : []),
    ])
    .join('\n');
}

const change = { prepare: signed, print: changeResult } satisfies OperationFace;

/** By the operation's name. */
export const settingsFaces: Readonly<Record<string, OperationFace>> = {
  'settings show': { print: asToml },
  'settings set': { prepare: withSecrets, print: changeResult },
  'settings unset': change,
  'settings apply': {
    prepare: (args) => signed({ ...args, flags: { ...args.flags, text: contentOf(args.positionals[0]!) } }),
    print: changeResult,
  },
  'settings rollback': change,
  'settings history': { print: history },
  'settings schema': { print: (result) => JSON.stringify(result, null, 2) },
};
