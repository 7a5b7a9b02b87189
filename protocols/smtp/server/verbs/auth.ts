/** AUTH (RFC 4954): a SASL exchange in base64 lines. Only where policy offers it (submission), only under TLS. */
import {
  type AuthFailure,
  decodeBase64,
  type Principal,
  type SaslExchange,
  type SaslStep,
  startSaslExchange,
} from '../../../sasl/index.js';
import { type Reply, reply } from '../../grammar/reply.js';
import type { SessionCore } from '../core.js';
import { authTotal } from '../metrics.js';
import { authMechanisms, hasAuth } from './auth-offer.js';

const failures: Record<AuthFailure, Reply> = {
  invalid: reply(535, '5.7.8', 'Login or password is wrong'),
  disabled: reply(525, '5.7.13', 'This account is disabled'),
  unavailable: reply(454, '4.7.0', 'Logins cannot be checked at the moment'),
  'too-many': reply(421, '4.7.0', 'Too many failed logins, please try again later'),
};

/** What must hold before AUTH; undefined when it does. */
function outOfOrder(session: SessionCore): Reply | undefined {
  if (!hasAuth(session)) return reply(502, '5.5.1', 'AUTH is not offered here');
  if (!session.secure) return reply(538, '5.7.11', 'STARTTLS is required first');
  if (session.greetingName === '' || !session.extended) return reply(503, '5.5.1', 'Say EHLO first');
  if (session.principal) return reply(503, '5.5.1', 'You are authenticated already');
  if (session.mail) return reply(503, '5.5.1', 'AUTH is not allowed within a transaction');
  return undefined;
}

export function auth(session: SessionCore, argument: string) {
  const order = outOfOrder(session);
  if (order) return session.protocolError('auth', order);
  const [mechanism = '', initial, ...more] = argument.split(/[ \t]+/);
  if (mechanism === '' || more.length > 0)
    return session.protocolError('auth', reply(501, '5.5.4', 'AUTH takes a mechanism and perhaps a response'));
  const exchange = startSaslExchange(mechanism, {
    backend: session.handler.authBackend!,
    context: { remoteAddress: session.remoteAddress, protocol: 'smtp' },
    scram: session.scram,
    channelBinding: session.tls?.channelBinding,
    offered: authMechanisms(session),
    serverName: session.hostname,
    random: session.random,
    clock: session.clock,
    onBackendError: (error) => session.logger.error({ err: error }, 'checking a login failed'),
  });
  if (!exchange) return session.protocolError('auth', reply(504, '5.5.4', 'This mechanism is not offered'));
  if (initial === undefined) return advance(session, exchange, undefined);
  // RFC 4954 4: an initial response of no octets is written `=`.
  respond(session, exchange, initial === '=' ? '' : initial);
}

function respond(session: SessionCore, exchange: SaslExchange, text: string) {
  const response = decodeBase64(text);
  if (!response) return broken(session, exchange, 'malformed', reply(501, '5.5.2', 'The response is not base64'));
  advance(session, exchange, response);
}

function broken(session: SessionCore, exchange: SaslExchange, result: 'malformed' | 'cancelled', answer: Reply) {
  authTotal.inc({ mechanism: exchange.mechanism, result });
  session.protocolError('auth', answer);
}

function advance(session: SessionCore, exchange: SaslExchange, response: Buffer | undefined) {
  session.run(
    'sasl',
    () => exchange.step(response),
    (step) => onStep(session, exchange, step),
  );
}

function onStep(session: SessionCore, exchange: SaslExchange, step: SaslStep) {
  if (step.kind === 'malformed') return broken(session, exchange, 'malformed', reply(501, '5.5.2', step.text));
  if (step.kind === 'challenge') {
    session.lineTaker = (line) => {
      session.lineTaker = undefined;
      const text = line.toString('latin1');
      if (text === '*') return broken(session, exchange, 'cancelled', reply(501, '5.7.0', 'Cancelled'));
      respond(session, exchange, text);
    };
    return session.send({ code: 334, text: step.bytes.toString('base64') });
  }
  const { result } = step;
  if (result.ok) return admit(session, exchange, result.principal);
  authTotal.inc({ mechanism: exchange.mechanism, result: result.reason });
  session.refuse('auth', failures[result.reason]);
  if (result.reason !== 'unavailable' && ++session.authFailureCount >= session.limits.maxAuthFailures) {
    session.replyAndClose(reply(421, '4.7.0', 'Too many failed logins'));
  }
}

function admit(session: SessionCore, exchange: SaslExchange, principal: Principal) {
  session.run(
    'authenticated',
    () => session.handler.authenticated?.(session, principal),
    (answer) => {
      if (answer && answer.code >= 400) return session.refuse('auth', answer);
      authTotal.inc({ mechanism: exchange.mechanism, result: 'ok' });
      session.login(principal, reply(235, '2.7.0', 'Authenticated'));
    },
  );
}
