/** What the command prints: JSON with `--json`, otherwise plain lines and tables for people. */
import { operations } from '../api/operations.js';
import { filterUsage } from '../api/queue-filters.js';
import { storeCommands } from './commands/store-usage.js';

export function printHelp(): void {
  const lines = [
    'starling: a mail server node',
    '',
    'Run a node',
    '  starling quickstart [--data DIR] [--port-offset N] [--password PW] [--config FILE]   a first node with three accounts',
    '  starling serve --config FILE                                                         a node as FILE describes it',
    '  both take --store ADDRESS (or STARLING_STORE), --cluster-key-file FILE, and --settings FILE: settings of the cluster at its very first start',
    '  starling cluster-key                                                                 a new cluster key, for nodes that share a store',
    '',
    'Operate (on the node that runs on --data DIR, default ./data; where none runs, on its store)',
    ...Object.entries(operations).map(
      ([name, { usage, summary }]) =>
        `  starling ${`${name} ${usage.replace(filterUsage, '[WHICH ...]')}`.trim().padEnd(62)} ${summary}`,
    ),
    `  WHICH messages: ${filterUsage}`,
    '  TIME: 90s, 15m, 2h, 7d',
    '',
    'Whole stores (ADDRESS: embedded:DIRECTORY, postgres://…, foundationdb:CLUSTERFILE; by default the store of --data, --config or --store)',
    ...Object.entries(storeCommands).map(
      ([name, { usage, summary }]) => `  starling ${`store ${name} ${usage}`.padEnd(62)} ${summary}`,
    ),
    '',
    'All of them take --json. Exit codes: 0 done, 1 refused or failed, 2 usage.',
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}

/** Text from elsewhere (addresses, replies of other servers) without what a terminal would obey. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}

function cell(value: unknown): string {
  if (value === undefined || value === null) return '-';
  if (Array.isArray(value)) return value.map(cell).join(',');
  return printable(typeof value === 'object' ? JSON.stringify(value) : String(value));
}

/** Columns in the order in which the rows name them. */
export function table(rows: Record<string, unknown>[]): string {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cells = [columns, ...rows.map((row) => columns.map((column) => cell(row[column])))];
  const widths = columns.map((_, index) => Math.max(...cells.map((line) => line[index]!.length)));
  return cells
    .map((line) =>
      line
        .map((text, index) => text.padEnd(widths[index]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Prints an operation's result. */
export function printResult(result: unknown, json: boolean): void {
  if (json) {
    process.stdout.write(`${JSON.stringify(result ?? null)}\n`);
  } else if (Array.isArray(result)) {
    const rows = result.every((row) => typeof row === 'object' && row !== null);
    process.stdout.write(
      result.length === 0 ? '(none)\n' : `${rows ? table(result as Record<string, unknown>[]) : result.map(cell).join('\n')}\n`,
    );
  } else if (typeof result === 'object' && result !== null) {
    const entries = Object.entries(result);
    const width = Math.max(...entries.map(([name]) => name.length));
    process.stdout.write(`${entries.map(([name, value]) => `${name.padEnd(width)}  ${cell(value)}`).join('\n')}\n`);
  } else if (result !== undefined && result !== null) {
    process.stdout.write(`${cell(result)}\n`);
  } else {
    process.stdout.write('done\n');
  }
}
