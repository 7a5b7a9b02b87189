/** Section `outbound` as deliveries take it. */
import type { OutboundSettings } from '../mailflow/outbound/contract.js';
import type { ClusterSettings } from './sections.js';

const inMilliseconds = (seconds: number): number => seconds * 1000;

/** `opened`: with secrets in plain text. */
export function outboundSettings(opened: ClusterSettings['outbound']): OutboundSettings {
  const { timeouts } = opened;
  const { routes, route, tls, sourceAddress4, sourceAddress6, heloName, fallbackHosts, addressOrder, eightBit, rates } = opened;
  const { concurrency, maxMessagesPerConnection, maxSecondsPerConnection, tlsFailureMemorySeconds } = opened;
  return {
    routes,
    route,
    tls,
    sourceAddress4,
    sourceAddress6,
    heloName,
    fallbackHosts,
    addressOrder,
    eightBit,
    rates,
    concurrency,
    maxMessagesPerConnection,
    maxSecondsPerConnection,
    tlsFailureMemorySeconds,
    familyFailureMemorySeconds: 600,
    timeouts: {
      connectMs: inMilliseconds(timeouts.connectSeconds),
      greetingMs: inMilliseconds(timeouts.greetingSeconds),
      commandMs: inMilliseconds(timeouts.commandSeconds),
      tlsHandshakeMs: inMilliseconds(timeouts.tlsHandshakeSeconds),
      mailMs: inMilliseconds(timeouts.mailSeconds),
      rcptMs: inMilliseconds(timeouts.rcptSeconds),
      dataInitiationMs: inMilliseconds(timeouts.dataInitiationSeconds),
      dataBlockMs: inMilliseconds(timeouts.dataBlockSeconds),
      dataTerminationMs: inMilliseconds(timeouts.dataTerminationSeconds),
    },
  };
}
