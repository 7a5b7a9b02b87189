/** Node rows as bytes: a msgpack array that begins with a format version. */
import { Packr } from 'msgpackr';
import type { NodeAddress, NodeRow, NodeState } from './contract.js';

const rowFormat = 2;
const packr = new Packr({ useRecords: false });
const states: readonly NodeState[] = ['starting', 'ready', 'draining'];

export function encodeRow(row: NodeRow): Buffer {
  const { incarnation, startToken, state, heartbeat, sentAtMs, hostname, addresses, roles, version, formats, startedAtMs } = row;
  return packr.pack([
    rowFormat,
    startToken,
    incarnation,
    states.indexOf(state),
    heartbeat,
    sentAtMs,
    startedAtMs,
    hostname,
    addresses.map(({ name, protocol, host, port }) => [name, protocol, host, port]),
    roles,
    version,
    formats,
  ]);
}

/** Undefined for a row that this software can't read: it is watched all the same, by its bytes. */
export function decodeRow(nodeId: string, value: Buffer): NodeRow | undefined {
  let f: unknown;
  try {
    f = packr.unpack(value);
  } catch {
    return undefined;
  }
  if (!Array.isArray(f) || f[0] !== rowFormat) return undefined;
  const state = states[f[3] as number];
  if (state === undefined) return undefined;
  return {
    nodeId,
    startToken: f[1] as string,
    incarnation: f[2] as number,
    state,
    heartbeat: f[4] as number,
    sentAtMs: f[5] as number,
    startedAtMs: f[6] as number,
    hostname: f[7] as string,
    addresses: (f[8] as [string, string, string, number][]).map(
      ([name, protocol, host, port]): NodeAddress => ({ name, protocol, host, port }),
    ),
    roles: f[9] as string[],
    version: f[10] as string,
    formats: f[11] as Record<string, number>,
  };
}
