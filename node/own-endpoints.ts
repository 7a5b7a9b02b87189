/** Where this installation listens for mail from other servers: what would be delivered there would come back in a circle. */
import { networkInterfaces } from 'node:os';
import type { NodeView } from '../cluster/membership/index.js';
import type { Config } from './config/schema.js';
import type { OwnEndpoint } from './mailflow/outbound/contract.js';

const protocols: ReadonlySet<string> = new Set(['smtp', 'submission']);

/** `interfaces`: the addresses of this machine, for listeners on all of them. */
export function ownEndpoints(
  { listeners }: Pick<Config, 'listeners'>,
  nodes: readonly Pick<NodeView, 'isSelf' | 'row'>[],
): { endpoints: OwnEndpoint[]; interfaces: string[] } {
  // Another machine's "all addresses" are not ours.
  const others = nodes
    .flatMap(({ isSelf, row }) => (isSelf || !row ? [] : row.addresses))
    .filter(({ host }) => !isWildcard(host));
  const endpoints = [...listeners, ...others]
    .filter(({ protocol }) => protocols.has(protocol))
    .map(({ host, port }) => ({ address: host, port }));
  const interfaces = Object.values(networkInterfaces()).flatMap((each) => (each ?? []).map(({ address }) => address));
  return { endpoints, interfaces };
}

const isWildcard = (host: string) => host === '0.0.0.0' || host === '::';
