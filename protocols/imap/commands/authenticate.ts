/** AUTHENTICATE (RFC 9051 6.2.2) with an initial response (RFC 4959). */
import { startSaslExchange } from '../../sasl/index.js';
import { offeredMechanisms } from '../capabilities.js';
import { type Command, notLoggedIn } from '../command.js';
import { bad, no } from '../replies.js';
import { converseSasl } from '../sasl-dialog.js';
import { concludeAuth, saslContext } from './login.js';

export const authenticate: Command = {
  name: 'AUTHENTICATE',
  states: notLoggedIn,
  async run(context, cursor) {
    cursor.space();
    const mechanism = cursor.word();
    const initial = cursor.takes(' ') ? cursor.rest().trim() : undefined;
    cursor.end();
    if (!context.mayLogIn) return no('Use TLS first', 'PRIVACYREQUIRED');
    const { sasl, scram, random, clock, serverName } = context.services;
    const exchange = startSaslExchange(mechanism, {
      backend: sasl,
      context: saslContext(context),
      scram,
      channelBinding: context.connection.channelBinding,
      offered: offeredMechanisms(context),
      serverName,
      random,
      clock,
      onBackendError: (error) => context.logger.error({ err: error }, 'the directory failed'),
    });
    if (!exchange) return no('Unknown mechanism', 'CANNOT');
    const outcome = await converseSasl(context, exchange, initial);
    return outcome.kind === 'done' ? concludeAuth(context, exchange.mechanism, outcome.result) : bad(outcome.text);
  },
};
