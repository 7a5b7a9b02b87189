/** The PROXY header of a new connection: whose is believed, and how it is taken off the socket before anybody else reads. */
import { BlockList, isIPv4, type Socket } from 'node:net';
import type { Clock } from '../../ops/telemetry/index.js';
import { type ProxyHeader, parseProxyHeader } from './proxy-header.js';

/** Which peers speak for others. */
export interface TrustedProxies {
  /** Connections from here must begin with a PROXY header, and it is believed. From anywhere else it is not looked for. */
  isTrusted(remoteAddress: string): boolean;
  /** Connections from anywhere else are refused. */
  readonly isRequired: boolean;
}

/** @param from addresses (`192.0.2.1`, `2001:db8::1`) and networks (`10.0.0.0/8`), checked before. */
export function trustedProxies({ from, required }: { from: readonly string[]; required: boolean }): TrustedProxies {
  const networks = new BlockList();
  for (const each of from) {
    const [address, prefix] = each.split('/') as [string, string?];
    const family = isIPv4(address) ? 'ipv4' : 'ipv6';
    if (prefix === undefined) networks.addAddress(address, family);
    else networks.addSubnet(address, Number(prefix), family);
  }
  return { isTrusted: (address) => networks.check(address, isIPv4(address) ? 'ipv4' : 'ipv6'), isRequired: required };
}

export type ProxyReception =
  | { kind: 'received'; header: ProxyHeader }
  /** `closed`: the peer hung up before its header was complete, as plain TCP checks do. */
  | { kind: 'closed' | 'timeout' | 'malformed'; reason: string };

/**
 * Takes the header off a socket that nobody has read from. What came after it stays in the socket, which is handed on as if it had
 * just been accepted: in the same turn of the event loop, so that no `data` or `end` is missed.
 */
export function receiveProxyHeader(
  socket: Socket,
  { clock, timeoutMs }: { clock: Clock; timeoutMs: number },
  onReception: (reception: ProxyReception) => void,
): void {
  let held: Buffer | undefined;
  const settle = (reception: ProxyReception) => {
    timer.cancel();
    socket.off('readable', onReadable).off('end', onClosed).off('close', onClosed);
    onReception(reception);
  };
  const onClosed = () => settle({ kind: 'closed', reason: 'the peer hung up' });
  const onReadable = () => {
    const chunk = socket.read() as Buffer | null;
    if (chunk === null) return;
    // Small: the parser never asks for more than a header may have.
    held = held ? Buffer.concat([held, chunk]) : chunk;
    const verdict = parseProxyHeader(held);
    if (verdict.kind === 'incomplete') return;
    if (verdict.kind === 'malformed') {
      settle(verdict);
      return;
    }
    if (held.length > verdict.bytes) socket.unshift(held.subarray(verdict.bytes));
    settle({ kind: 'received', header: verdict.header });
  };
  const timer = clock.setTimer(timeoutMs, () => settle({ kind: 'timeout', reason: `no PROXY header within ${timeoutMs} ms` }), {
    background: true,
  });
  // Not `data`: its listener would leave the socket paused or flowing for whoever comes next.
  socket.on('readable', onReadable).on('end', onClosed).on('close', onClosed);
}
