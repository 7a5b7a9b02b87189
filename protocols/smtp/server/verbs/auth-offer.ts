/** Which ways to log in a session is offered: what EHLO announces and AUTH takes is the same list. */
import { offeredMechanisms, type SaslMechanismName } from '../../../sasl/index.js';
import type { SessionCore } from '../core.js';

/** Logging in is meant to be possible here, once there is TLS. AUTH is for users, so by default on submission alone. */
export function hasAuth(session: SessionCore): boolean {
  return session.handler.authBackend !== undefined && (session.policy?.offersAuth ?? session.mode === 'submission');
}

/** The mechanisms that may be used now, in the order of the announcement; none without TLS, because anybody could listen. */
export function authMechanisms(session: SessionCore): SaslMechanismName[] {
  const backend = session.handler.authBackend;
  if (!backend || !session.secure || !hasAuth(session)) return [];
  // Behind a proxy (XCLIENT) the client's TLS, if any, ends there: what binds this connection says nothing of the client's.
  const isDirect = session.remoteAddress === session.connection.remoteAddress;
  const channelBinding = isDirect ? session.tls?.channelBinding : undefined;
  return offeredMechanisms({ backend, scram: session.scram, channelBinding, allowed: session.policy?.authMechanisms });
}
