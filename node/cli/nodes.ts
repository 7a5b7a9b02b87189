/** The command line's part of the node operations: what people want to see of a cluster at a glance. `--json` has all of it. */

import type { OperationFace } from './face.js';
import { table } from './output.js';

/** Enough of an id to give it back to the command. */
const shownIdCharacters = 12;

type Row = Record<string, unknown>;

const age = (seconds: unknown) => (typeof seconds === 'number' ? `${seconds} s` : '-');

function glance(row: Row): Row {
  const verdict = `${String(row.verdict ?? row.health ?? '-')}${row.isCutOff ? ' (cut off)' : ''}`;
  return {
    node: `${String(row.id).slice(0, shownIdCharacters)}${row.isThisNode ? ' *' : ''}`,
    hostname: row.hostname,
    state: row.state,
    verdict,
    heard: age(row.gossipAgeSeconds),
    row: age(row.heartbeatAgeSeconds),
    phi: row.phi,
    shards: row.shards,
    claims: row.claims,
    jobs: Array.isArray(row.leases) && row.leases.length > 0 ? row.leases.map(({ job }: { job: string }) => job) : null,
    version: row.version,
  };
}

/** What a narrow terminal can do without, the first to go first. */
const dispensable = ['version', 'phi', 'heard', 'row', 'claims', 'jobs'];

/** As many columns as fit; what is left may still be wider than a very narrow terminal. */
export function nodeTable(nodes: Row[], widthCharacters: number): string {
  const rows = nodes.map(glance);
  let text = table(rows);
  for (const column of dispensable) {
    if (text.split('\n').every((line) => line.length <= widthCharacters)) break;
    for (const row of rows) delete row[column];
    text = table(rows);
  }
  return text;
}

export const nodeFaces: Record<string, OperationFace> = {
  'node list': { print: (result) => nodeTable(result as Row[], process.stdout.columns ?? Number.POSITIVE_INFINITY) },
};
