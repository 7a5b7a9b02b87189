/**
 * pgbench as the measure of what a PostgreSQL server gives: the benchmark's loads as plain statements in serialisable transactions, prepared, on a plain
 * table of the same server. Several reads, and several writes, are one statement each, as somebody would write them who cares for speed.
 */
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PostgresServer } from '../harness/postgres-server.js';
import { hasProgram, runCommand } from '../harness/processes.js';

/** One load as pgbench runs it; keys as in the key-value load. */
export interface PlainLoad {
  /** Lengths of the values of the rows read and then written over. */
  overwritten: readonly number[];
  /** Lengths of the values of new rows. */
  added: readonly number[];
  /** How many different first parts keys have. */
  accounts: number;
  /** How many different keys an account has, where there is one row to read. */
  keysPerAccount: number;
}

const serializable = 'begin isolation level serializable;';

/** Debian keeps it apart from the PATH (where a script stands in its place); `STARLING_POSTGRES_BIN` may have it as well. */
export function findPgbench(): string | undefined {
  const root = '/usr/lib/postgresql';
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => Number(b) - Number(a)) : [];
  const folders = [process.env['STARLING_POSTGRES_BIN'] ?? '', ...versions.map((version) => join(root, version, 'bin'))];
  const found = folders
    .filter(Boolean)
    .map((folder) => join(folder, 'pgbench'))
    .find(existsSync);
  return found ?? (hasProgram('pgbench') ? 'pgbench' : undefined);
}

const key = (space: string, detail: string) =>
  `convert_to('${space}/' || lpad(:account::text, 6, '0') || '/' || ${detail}, 'UTF8')`;
const value = (length: number) => `'\\x${'62'.repeat(length)}'::bytea`;

function scriptOf({ overwritten, added, accounts, keysPerAccount }: PlainLoad): string {
  const kept = overwritten.map((length, at) => ({ length, key: key(`c${at}`, ':place::text') }));
  const fresh = added.map((length, at) => ({ length, key: key(`d${at}`, ':serial::text') }));
  const rows = [...kept, ...fresh].map((row) => `(${row.key}, ${value(row.length)})`);
  const wanted = kept.length === 1 ? `= ${kept[0]!.key}` : `= any(array[${kept.map((row) => row.key).join(', ')}])`;
  return [
    `\\set account random(0, ${accounts - 1})`,
    `\\set place random(0, ${keysPerAccount - 1})`,
    '\\set serial random(0, 9000000000000000)',
    serializable,
    `select v from plain where k ${wanted};`,
    `insert into plain values ${rows.join(', ')} on conflict (k) do update set v = excluded.v;`,
    'end;',
    '',
  ].join('\n');
}

/** Makes the table, with a row for every key that is overwritten. */
export async function preparePlainTable(server: PostgresServer, loads: readonly PlainLoad[]): Promise<void> {
  await server.query('create table plain (k bytea primary key, v bytea not null)');
  for (const { overwritten, accounts, keysPerAccount } of loads) {
    for (const [at, length] of overwritten.entries()) {
      await server.query(
        `insert into plain select convert_to('c${at}/' || lpad(account::text, 6, '0') || '/' || place, 'UTF8'), ${value(length)}
         from generate_series(0, ${accounts - 1}) account, generate_series(0, ${keysPerAccount - 1}) place on conflict do nothing`,
      );
    }
  }
  await server.query('analyze plain');
}

/** Transactions per second; those that fail to serialise are tried again, as the nodes do. */
export async function runPgbench(
  program: string,
  server: PostgresServer,
  load: PlainLoad,
  clients: number,
  seconds: number,
): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'starling-pgbench-'));
  try {
    const script = join(folder, 'load.sql');
    writeFileSync(script, scriptOf(load));
    const threads = Math.min(clients, cpus().length);
    const args = ['-n', '-M', 'prepared', '--max-tries=100', '-c', String(clients), '-j', String(threads), '-T', String(seconds)];
    const { code, stdout, stderr } = await runCommand(program, [...args, '-f', script, server.url()]);
    const found = /^tps = ([\d.]+)/m.exec(stdout);
    if (code !== 0 || !found) throw new Error(`pgbench ended with ${code}: ${stdout}${stderr}`);
    return Number(found[1]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
