/** Node rows as bytes: a msgpack array that begins with a format version. */
import { Packr } from 'msgpackr';
import type { GossipIdentity } from '../gossip/contract.js';
import type { NodeAddress, NodeRow, NodeState } from './contract.js';

const rowFormat = 2;
const packr = new Packr({ useRecords: false });
const states: readonly NodeState[] = ['starting', 'ready', 'draining'];

/** What came later stands at the end, where software that does not know it does not look: so it is still format 2. */
export function encodeRow(row: NodeRow): Buffer {
  const { incarnation, startToken, state, heartbeat, sentAtMs, hostname, addresses, roles, version, formats, startedAtMs } = row;
  const { gossip } = row;
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
    ...(gossip ? [[gossip.peerId, gossip.addresses.map(({ host, port }) => [host, port])]] : []),
  ]);
}

const isText = (value: unknown): value is string => typeof value === 'string' && value !== '' && value.length <= 512;
const maxGossipAddresses = 32;

/** Whatever does not look like an identity is none: the row is good without it. */
function decodeGossip(value: unknown): GossipIdentity | undefined {
  if (!Array.isArray(value) || !isText(value[0]) || !Array.isArray(value[1])) return undefined;
  const addresses = value[1].slice(0, maxGossipAddresses).map((pair: unknown) => (Array.isArray(pair) ? pair : []));
  if (!addresses.every(([host, port]) => isText(host) && Number.isInteger(port) && port > 0 && port < 65_536)) return undefined;
  return { peerId: value[0], addresses: addresses.map(([host, port]) => ({ host, port })) };
}

/** Undefined for a row that this software can't read: it is watched all the same, by its bytes. */
export function decodeRow(nodeId: string, value: Buffer): NodeRow | undefined {
  let f: unknown;
  try {
    f = packr.unpack(value);
  } catch {
    return undefined;
  }
  if (!Array.isArray(f) || f[0] !== rowFormat || f.length < 12) return undefined;
  const state = states[f[3] as number];
  if (state === undefined || !Array.isArray(f[8]) || !Array.isArray(f[9]) || typeof f[11] !== 'object' || !f[11])
    return undefined;
  const gossip = decodeGossip(f[12]);
  return {
    nodeId,
    startToken: f[1] as string,
    incarnation: f[2] as number,
    state,
    heartbeat: f[4] as number,
    sentAtMs: f[5] as number,
    startedAtMs: f[6] as number,
    hostname: f[7] as string,
    addresses: (f[8] as unknown[])
      .filter((address) => Array.isArray(address))
      .map(([name, protocol, host, port]): NodeAddress => ({ name, protocol, host, port })),
    roles: f[9] as string[],
    version: f[10] as string,
    formats: f[11] as Record<string, number>,
    ...(gossip && { gossip }),
  };
}
