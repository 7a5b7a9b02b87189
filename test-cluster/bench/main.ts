/**
 * `npm run bench -- NAME [--json] [--store embedded|memory|postgres|foundationdb] [--nodes N] [--messages N] [--connections N] [--clients N] [--users N]
 * [--only PART]`: runs one benchmark and prints one JSON line, the machine and the versions inside. `--store` is for `kv`, `deliver-local` and `queue-scale`, `--nodes` for `deliver-local`, `failover` and
 * `queue-claims` and `queue-drain`, `--messages` for these two, `queue-scale`, `deliver-remote` and `imap`, `--only PART,PART` for `imap`, `--connections` for
 * `idle-connections`, `--clients` and `--users` for `imap-stress`.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { repositoryRoot } from '../harness/node-process.js';
import { type BenchOptions, benchStores } from './options.js';

type Benchmark = { run(options: BenchOptions): Promise<Record<string, unknown>> };

const benchmarks: Record<string, () => Promise<Benchmark>> = {
  kv: () => import('./kv.js'),
  'smtp-ingest': () => import('./smtp-ingest.js'),
  'smtp-connections': () => import('./smtp-connections.js'),
  'deliver-local': () => import('./deliver-local.js'),
  'deliver-remote': () => import('./deliver-remote.js'),
  'imap-fetch': () => import('./imap-fetch.js'),
  imap: () => import('./imap.js'),
  'imap-stress': () => import('./imap-stress.js'),
  'idle-connections': () => import('./idle-connections.js'),
  memory: () => import('./memory.js'),
  failover: () => import('./failover.js'),
  'queue-claims': () => import('./queue-claims.js'),
  'queue-scale': () => import('./queue-scale.js'),
  'queue-drain': () => import('./queue-drain.js'),
  gossip: () => import('./gossip.js'),
};

function versionOf(command: string, ...args: string[]): string | undefined {
  try {
    return execFileSync(command, args, {
      encoding: 'utf8',
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
    }).trim();
  } catch {
    return undefined; // not installed: the benchmark says so where it matters
  }
}

function machine(): Record<string, unknown> {
  const manifest = JSON.parse(readFileSync(join(repositoryRoot, 'package.json'), 'utf8')) as { version: string };
  return {
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    starling: manifest.version,
    postfix: versionOf('postconf', '-d', '-h', 'mail_version'),
  };
}

/** Exit code 2, as for any command that was not understood. */
function refuse(sentence: string): never {
  process.stderr.write(`${sentence}\n`);
  process.exit(2);
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean' },
    store: { type: 'string' },
    nodes: { type: 'string' },
    messages: { type: 'string' },
    connections: { type: 'string' },
    clients: { type: 'string' },
    users: { type: 'string' },
    only: { type: 'string' },
  },
});
const names = positionals.length === 0 || positionals[0] === 'all' ? Object.keys(benchmarks) : positionals;
const unknown = names.find((name) => !(name in benchmarks));
if (unknown !== undefined) refuse(`no benchmark ${unknown}; there are: ${Object.keys(benchmarks).join(', ')}`);
const store = benchStores.find((name) => name === values.store);
if (values.store !== undefined && !store) refuse(`--store takes ${benchStores.join(', ')}, not '${values.store}'`);
/** A whole number within the bounds; undefined where it was not given. */
function numberOf(
  option: 'nodes' | 'messages' | 'connections' | 'clients' | 'users',
  minimum: number,
  maximum: number,
): number | undefined {
  const text = values[option];
  if (text === undefined) return undefined;
  const number = Number(text);
  if (!(Number.isInteger(number) && number >= minimum && number <= maximum))
    refuse(`--${option} takes a number from ${minimum} to ${maximum}`);
  return number;
}
const nodes = numberOf('nodes', 1, 9);
const messages = numberOf('messages', 100, 10_000_000);
const connections = numberOf('connections', 10, 50_000);
const clients = numberOf('clients', 1, 150);
const users = numberOf('users', 1, 3);
if (values.only !== undefined && names.some((name) => name !== 'imap')) refuse('--only is for imap');
for (const name of names) {
  const benchmark = await benchmarks[name]!();
  const result = {
    bench: name,
    ...(await benchmark.run({ store, nodes, messages, connections, clients, users, only: values.only })),
    machine: machine(),
  };
  process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : `${JSON.stringify(result, null, 2)}\n`);
}
