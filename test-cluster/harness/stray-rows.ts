/** Rows in a PostgreSQL store that must not be there when all mail is in its mailboxes: read from the database itself, past the nodes. */
import { pack } from 'fdb-tuple';
import type { CommandResult } from './processes.js';

/** First elements of keys, as the keyspace's table numbers them. */
const subspace = { node: 2, queue: 6 } as const;

export interface StrayRows {
  /** Claims on queued mail, by their keys. */
  claims: string[];
  /** Fences of nodes that do not run. */
  fences: string[];
  /** Messages in the queue. */
  messages: number;
  due: number;
}

/** What has to be known of a cluster. */
export interface RowsOf {
  nodes: readonly { cli(...args: string[]): Promise<CommandResult> }[];
  server: { query(text: string, values: unknown[]): Promise<Record<string, unknown>[]> };
}

/** Of a cluster whose queue is empty; the ids of the nodes that run are asked of them. */
export async function strayRows(cluster: RowsOf): Promise<StrayRows> {
  const shown = await Promise.all(
    cluster.nodes.map(async (node) => {
      const { code, stdout } = await node.cli('node', 'show', '--json');
      return code === 0 ? (JSON.parse(stdout) as { id: string }).id : undefined;
    }),
  );
  const fences = await keysUnder(cluster, [subspace.node, 'fence']);
  const ids = shown.filter((id) => id !== undefined);
  return {
    claims: await keysUnder(cluster, [subspace.queue, 'claim']),
    // A key holds the id as text or as bytes; either way it is in there.
    fences: fences.filter((key) => !ids.some((id) => key.includes(Buffer.from(id).toString('hex')) || key.includes(id))),
    messages: (await keysUnder(cluster, [subspace.queue, 'message'])).length,
    due: (await keysUnder(cluster, [subspace.queue, 'due'])).length,
  };
}

/** Keys, as hex, that begin with this tuple. */
async function keysUnder({ server }: RowsOf, tuple: (string | number)[]): Promise<string[]> {
  const prefix = Buffer.from(pack(tuple));
  const after = Buffer.concat([prefix, Buffer.of(0xff)]);
  const rows = await server.query("select encode(k, 'hex') as key from starling.kv where k > $1 and k < $2 order by k", [
    prefix,
    after,
  ]);
  return rows.map((row) => String(row['key']));
}
