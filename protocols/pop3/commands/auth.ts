/** AUTH (RFC 5034): SASL with an initial response, or a challenge per line. */
import { converseSasl } from '../../imap/sasl-dialog.js';
import { startSaslExchange } from '../../sasl/index.js';
import type { SessionContext } from '../context.js';
import { words } from '../grammar/command.js';
import { err, type Reply, sent } from '../replies.js';
import { beforeLogin, type Command } from './command.js';
import { concludeLogin } from './login.js';

export const auth: Command = {
  name: 'AUTH',
  states: beforeLogin,
  async run(context, rest) {
    const [mechanism, initial, more] = words(rest);
    if (mechanism === undefined) return listMechanisms(context);
    if (more !== undefined) return err('Too many arguments');
    if (!context.mayLogIn) return err('Use TLS first (STLS)');
    const { sasl, scram, random, clock, serverName } = context.services;
    const exchange = startSaslExchange(mechanism, {
      backend: sasl,
      context: context.saslContext,
      scram,
      channelBinding: context.connection.channelBinding,
      offered: context.mechanisms,
      serverName,
      random,
      clock,
      onBackendError: (error) => context.logger.error({ err: error }, 'the directory failed'),
    });
    if (!exchange) return err('Unknown mechanism');
    context.user = undefined;
    const outcome = await converseSasl(context, exchange, initial);
    return outcome.kind === 'done' ? concludeLogin(context, exchange.mechanism, outcome.result) : err(outcome.text);
  },
};

/** Older than RFC 5034, and still how some programs find out. */
function listMechanisms(context: SessionContext): Reply {
  context.output.write(`+OK Mechanisms follow\r\n${context.mechanisms.map((name) => `${name}\r\n`).join('')}.\r\n`);
  return sent;
}
