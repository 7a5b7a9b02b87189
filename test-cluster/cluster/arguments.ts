/** What `npm run cluster` takes. */
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { UsageError, wholeNumber } from '../harness/usage.js';

export interface ClusterArguments {
  nodes: number;
  store: 'postgres' | 'foundationdb';
  /** Of the FoundationDB cluster. */
  clusterFile: string | undefined;
  /** A PostgreSQL that runs already; otherwise one is started. */
  postgresUrl: string | undefined;
  /** Absolute. */
  data: string;
  portOffset: number;
  password: string | undefined;
  /** Pause before what died is started again; without it, it stays down. */
  restartAfterSeconds: number | undefined;
  json: boolean;
}

export const usage = `npm run cluster -- [--nodes 3] [--store postgres|foundationdb] [--cluster-file F] [--postgres-url URL]
                   [--data DIR] [--port-offset N] [--password PW] [--restart S] [--json]

Runs nodes on this machine, in the foreground, on one shared store. Node k (from 0) listens on the quickstart's ports + N + 1000 k.
DIR/cluster.json says at any time what runs; DIR/node-K.log is what node K says.`;

export const portStep = 1_000;
/** The highest of the quickstart's ports is 2995; 65535 is the last there is. */
const maxNodes = 20;
const maxPortOffset = 62_000;

/** Answers undefined when help was asked for. Throws `UsageError`. */
export function parseClusterArguments(argv: string[]): ClusterArguments | undefined {
  const values = parsed(argv);
  if (values.help) return undefined;
  const { store } = values;
  if (store !== 'postgres' && store !== 'foundationdb')
    throw new UsageError(`--store takes postgres or foundationdb, not '${store}'`);
  if (values['cluster-file'] !== undefined && store !== 'foundationdb')
    throw new UsageError('--cluster-file goes with --store foundationdb');
  if (values['postgres-url'] !== undefined && store !== 'postgres')
    throw new UsageError('--postgres-url goes with --store postgres');
  if (values['postgres-url'] !== undefined && !/^postgres(ql)?:\/\//.test(values['postgres-url']))
    throw new UsageError('--postgres-url takes postgres://…');
  if (values.password === '') throw new UsageError('--password takes a password; leave it out to have passwords made');
  const nodes = wholeNumber(values.nodes, '--nodes', 1, maxNodes);
  return {
    nodes,
    store,
    clusterFile: values['cluster-file'],
    postgresUrl: values['postgres-url'],
    data: resolve(values.data),
    portOffset: wholeNumber(values['port-offset'], '--port-offset', 0, maxPortOffset - portStep * (nodes - 1)),
    password: values.password,
    restartAfterSeconds: values.restart === undefined ? undefined : wholeNumber(values.restart, '--restart', 0, 86_400),
    json: values.json ?? false,
  };
}

function parsed(argv: string[]) {
  try {
    return parseArgs({
      args: argv,
      strict: true,
      options: {
        nodes: { type: 'string', default: '3' },
        store: { type: 'string', default: 'postgres' },
        'cluster-file': { type: 'string' },
        'postgres-url': { type: 'string' },
        data: { type: 'string', default: './data/cluster' },
        'port-offset': { type: 'string', default: '0' },
        password: { type: 'string' },
        restart: { type: 'string' },
        json: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    }).values;
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
}
