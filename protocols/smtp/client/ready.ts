/** A connection on which a message can be sent, and what a refusal on the way there becomes. */
import type { Clock } from '../../../ops/telemetry/index.js';
import type { ParsedReply } from '../grammar/reply.js';
import { type ClientStage, type ClientTimeouts, SmtpConnectError, type TlsOutcome } from './contract.js';
import type { ClientWire } from './wire.js';

export interface ReadyConnection {
  wire: ClientWire;
  capabilities: ReadonlyMap<string, string>;
  tls: TlsOutcome;
  greeting: string;
  timeouts: ClientTimeouts;
  clock: Clock;
  /** Of the recipients so far, where the peer limits them (RFC 9422 4.3). */
  recipientDomains: Set<string>;
}

/** The peer's code and words as an error. */
export function refused(stage: ClientStage, reply: ParsedReply, tls?: TlsOutcome): SmtpConnectError {
  const permanent = reply.code >= 500;
  const enhanced = reply.enhanced ?? (permanent ? '5.0.0' : '4.0.0');
  return new SmtpConnectError(stage, permanent ? 'permanent' : 'temporary', reply.code, enhanced, reply.lines.join(' '), tls);
}
