/**
 * Looks on while a run lasts: fences and leases in the database itself, past the nodes; what each node says of the others; and what nodes log. A look that
 * fails is left out: who can't be seen at the moment is seen later.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { pack, unpack } from 'fdb-tuple';
import { Packr } from 'msgpackr';
import pg from 'pg';
import type { ChaosCluster } from '../harness/chaos-cluster.js';
import type { ChaosNode } from '../harness/chaos-node.js';
import type { Recorder } from './recorder.js';

const storeLookMs = 100;
const nodeLookMs = 400;
const queryTimeoutMs = 2_000;
/** First element of the keys of nodes, as the keyspace's table numbers them. */
const nodeSubspace = 2;
const packr = new Packr({ useRecords: false });

/** Resolves when the signal has come. */
export async function watchStore(cluster: ChaosCluster, recorder: Recorder, signal: AbortSignal): Promise<void> {
  const prefix = Buffer.from(pack([nodeSubspace]));
  const after = Buffer.concat([prefix, Buffer.of(0xff)]);
  const standing = new Set<string>();
  const leases = new Map<string, string>();
  let client: pg.Client | undefined;
  while (!signal.aborted) {
    try {
      client ??= await connect(cluster.server.url());
      const { rows } = await client.query('select k, v from starling.kv where k > $1 and k < $2', [prefix, after]);
      const atMs = recorder.nowMs();
      const fences = new Set<string>();
      for (const { k, v } of rows as { k: Buffer; v: Buffer }[]) {
        const [, kind, name] = unpack(k) as [number, string, string];
        if (kind === 'fence') fences.add(name);
        if (kind === 'lease') noteLease(recorder, leases, name, v, atMs);
      }
      for (const nodeId of standing) {
        if (fences.has(nodeId)) continue;
        standing.delete(nodeId);
        recorder.vanished.set(nodeId, atMs);
      }
      for (const nodeId of fences) standing.add(nodeId);
    } catch {
      client?.end().catch(() => undefined);
      client = undefined;
    }
    await sleep(storeLookMs, undefined, { signal }).catch(() => undefined);
  }
  await client?.end().catch(() => undefined);
}

async function connect(connectionString: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString, connectionTimeoutMillis: queryTimeoutMs, query_timeout: queryTimeoutMs });
  client.on('error', () => undefined); // the next query fails
  await client.connect();
  return client;
}

/** Format 1: `[format, holder, epoch, renewals]`; later ones must begin in the same way. */
function noteLease(recorder: Recorder, known: Map<string, string>, job: string, value: Buffer, atMs: number): void {
  const [, holder, epoch] = packr.unpack(value) as [number, string, number];
  const text = `${holder} ${epoch}`;
  if (known.get(job) === text) return;
  known.set(job, text);
  recorder.leases.push({ atMs, job, holder, epoch });
}

interface ListedNode {
  id: string;
  verdict?: string;
  health?: string;
  leases?: unknown;
}

/** Asks one node again and again what it makes of the others. `nameOf` gives a node's number by its id. Resolves when the signal has come. */
export async function watchNode(
  node: ChaosNode,
  recorder: Recorder,
  nameOf: (nodeId: string) => number | undefined,
  signal: AbortSignal,
): Promise<void> {
  const seen = new Map<string, string>();
  while (!signal.aborted) {
    try {
      const listed = (await node.ask('node list')) as ListedNode[];
      const atMs = recorder.nowMs();
      for (const { id, verdict, health, leases } of listed) {
        noteClaims(recorder, node.index, id, leases, atMs);
        const text = verdict ?? health;
        const before = seen.get(id);
        if (text === undefined || text === before) continue;
        seen.set(id, text);
        if (before !== undefined || text !== 'alive')
          recorder.note(`node ${node.index} finds node ${nameOf(id) ?? id.slice(0, 8)} ${text}`);
      }
    } catch {
      // It does not run, or hangs: that is seen elsewhere.
    }
    await sleep(nodeLookMs, undefined, { signal }).catch(() => undefined);
  }
}

/** Leases as a node lists them: `{job, epoch}`, of the node that is listed. */
function noteClaims(recorder: Recorder, seenBy: number, holder: string, leases: unknown, atMs: number): void {
  if (!Array.isArray(leases)) return;
  for (const lease of leases as unknown[]) {
    if (typeof lease !== 'object' || lease === null) continue;
    const { job, epoch } = lease as { job?: unknown; epoch?: unknown };
    if (typeof job === 'string' && typeof epoch === 'number') recorder.leases.push({ atMs, job, holder, epoch, seenBy });
  }
}

const maxLogLength = 200;
/** Of pino. */
const errorLevel = 50;

/** What a node logs: verdicts on others always, errors a few times. */
export function logListener(recorder: Recorder): (index: number, line: string) => void {
  const said = new Map<string, number>();
  return (index, line) => {
    let entry: { level?: number; msg?: string; deadNodeId?: string; err?: { message?: string } };
    try {
      entry = JSON.parse(line) as typeof entry;
    } catch {
      return; // not a log line
    }
    if (typeof entry.deadNodeId === 'string' && !recorder.declared.has(entry.deadNodeId)) {
      recorder.declared.set(entry.deadNodeId, recorder.nowMs());
      recorder.note(`node ${index}: ${entry.deadNodeId.slice(0, 8)} has been declared dead`);
    }
    if ((entry.level ?? 0) < errorLevel || entry.msg === undefined) return;
    const key = `${index} ${entry.msg}`;
    const times = (said.get(key) ?? 0) + 1;
    said.set(key, times);
    const cause = entry.err?.message ? `: ${entry.err.message}` : '';
    if (times === 1)
      recorder.note(`node ${index} logs: ${`${entry.msg}${cause}`.replaceAll(/\s+/g, ' ').slice(0, maxLogLength)}`);
  };
}
