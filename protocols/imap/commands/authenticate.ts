/** AUTHENTICATE (RFC 9051 6.2.2) with an initial response (RFC 4959). */
import { decodeBase64, maxSaslMessageBytes, type SaslExchange, startSaslExchange } from '../../sasl/index.js';
import { offeredMechanisms } from '../capabilities.js';
import { type Command, notLoggedIn } from '../command.js';
import type { SessionContext } from '../context.js';
import { ConnectionClosed } from '../output.js';
import { bad, no, type Reply } from '../replies.js';
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
    const { sasl, scram, random } = context.services;
    const exchange = offeredMechanisms(context).includes(mechanism)
      ? startSaslExchange(mechanism, {
          backend: sasl,
          context: saslContext(context),
          scram,
          random,
          onBackendError: (error) => context.logger.error({ err: error }, 'the directory failed'),
        })
      : undefined;
    if (!exchange) return no('Unknown mechanism', 'CANNOT');
    // RFC 4959: "=" is an initial response of no bytes.
    return converse(context, exchange, initial === '=' ? '' : initial);
  },
};

async function converse(context: SessionContext, exchange: SaslExchange, initial: string | undefined): Promise<Reply> {
  let message = initial;
  for (;;) {
    const bytes = message === undefined ? undefined : decodeBase64(message);
    if (message !== undefined && bytes === undefined) return bad('Bad base64');
    const step = await exchange.step(bytes);
    if (step.kind === 'done') return concludeAuth(context, exchange.mechanism, step.result);
    if (step.kind === 'malformed') return bad(step.text);
    context.output.write(`+ ${step.bytes.toString('base64')}\r\n`);
    message = await nextSaslLine(context);
    // RFC 9051 6.2.2: a client cancels with a single "*".
    if (message === '*') return bad('Authentication cancelled');
  }
}

async function nextSaslLine(context: SessionContext): Promise<string> {
  const { input, output, services } = context;
  const deadlineMs = services.clock.monotonicMs() + services.limits.loginTimeoutMs;
  for (;;) {
    const event = input.reader.nextLine();
    if (event?.kind === 'line' && event.text.length <= maxSaslMessageBytes * 2) return event.text;
    if (event) throw new ConnectionClosed();
    output.flush();
    const result = await input.wait(Math.max(0, deadlineMs - services.clock.monotonicMs()));
    if (result === 'ended' || result === 'timeout' || context.isDraining) throw new ConnectionClosed();
  }
}
