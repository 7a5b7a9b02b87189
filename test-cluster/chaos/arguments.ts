/** What `npm run chaos` takes. */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { Network } from '../harness/network.js';
import { UsageError, wholeNumber } from '../harness/usage.js';

export interface ChaosArguments {
  /** Names with commas between them, `all` or `list`. */
  scenario: string;
  seconds: number;
  /** Undefined: namespaces where they can be had, else processes. */
  harness: Network['kind'] | undefined;
  nodes: number;
  /** Root of an older, built checkout. */
  from: string | undefined;
  seed: number;
  rate: number | undefined;
  json: boolean;
  keepsLogs: boolean;
}

export const usage = `npm run chaos -- --scenario NAME[,NAME]|all [--seconds 30] [--nodes 3] [--harness namespaces|processes] [--store postgres]
                 [--from DIR] [--seed N] [--rate MESSAGES_PER_SECOND] [--keep-logs] [--json]

Plays scenarios on a cluster of its own under load and judges what has become of the mail; exit code 1 when something must not be.
--seconds is how long the load lasts; --from is an older, built checkout that rolling-upgrade starts from. --scenario list names them all.`;

const maxNodes = 9;
const minSeconds = 8;

/** Answers undefined when help was asked for. Throws `UsageError`. */
export function parseChaosArguments(argv: string[], randomSeed: () => number): ChaosArguments | undefined {
  const values = parsed(argv);
  if (values.help) return undefined;
  const { scenario, harness, store } = values;
  if (scenario === undefined) throw new UsageError('--scenario takes a name, all or list');
  if (store !== 'postgres') throw new UsageError(`--store takes postgres, not '${store}'`);
  if (harness !== undefined && harness !== 'namespaces' && harness !== 'processes')
    throw new UsageError(`--harness takes namespaces or processes, not '${harness}'`);
  const from = values.from === undefined ? undefined : resolve(values.from);
  if (from !== undefined && !existsSync(join(from, 'dist', 'node', 'cli', 'main.js')))
    throw new UsageError(`--from takes a checkout that is built: there is no ${join(from, 'dist')}`);
  return {
    scenario,
    seconds: wholeNumber(values.seconds, '--seconds', minSeconds, 86_400),
    harness,
    nodes: wholeNumber(values.nodes, '--nodes', 2, maxNodes),
    from,
    seed: values.seed === undefined ? randomSeed() : wholeNumber(values.seed, '--seed', 0, 2 ** 31),
    rate: values.rate === undefined ? undefined : wholeNumber(values.rate, '--rate', 1, 100_000),
    json: values.json ?? false,
    keepsLogs: values['keep-logs'] ?? false,
  };
}

function parsed(argv: string[]) {
  try {
    return parseArgs({
      args: argv,
      strict: true,
      options: {
        scenario: { type: 'string' },
        seconds: { type: 'string', default: '30' },
        nodes: { type: 'string', default: '3' },
        harness: { type: 'string' },
        store: { type: 'string', default: 'postgres' },
        from: { type: 'string' },
        seed: { type: 'string' },
        rate: { type: 'string' },
        'keep-logs': { type: 'boolean' },
        json: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    }).values;
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
}
