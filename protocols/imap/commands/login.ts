/** LOGIN (RFC 9051 6.2.3) and what LOGIN and AUTHENTICATE share: the outcome of an attempt. */
import type { AuthResult } from '../../sasl/contract.js';
import { prepareCredential } from '../../sasl/index.js';
import { capabilities, offersLogin } from '../capabilities.js';
import { type Command, notLoggedIn } from '../command.js';
import type { SessionContext } from '../context.js';
import { utf8Text } from '../grammar/cursor.js';
import { authTotal } from '../metrics.js';
import { no, ok, Refusal, type Reply } from '../replies.js';

export function saslContext(context: SessionContext): { remoteAddress: string; protocol: string } {
  return { remoteAddress: context.connection.remoteAddress, protocol: 'imap' };
}

/** Enters the account, or refuses after a delay; too many refusals end the connection. */
export async function concludeAuth(context: SessionContext, mechanism: string, result: AuthResult): Promise<Reply> {
  if (result.ok) {
    try {
      await context.enter({ id: result.principal.accountId, login: result.principal.login });
    } catch (error) {
      authTotal.inc({ mechanism, result: error instanceof Refusal ? 'limit' : 'unavailable' });
      throw error;
    }
    authTotal.inc({ mechanism, result: 'ok' });
    return ok('Logged in', `CAPABILITY ${capabilities(context)}`);
  }
  authTotal.inc({ mechanism, result: result.reason });
  const { limits, clock } = context.services;
  context.logger.info({ mechanism, reason: result.reason, remoteAddress: context.connection.remoteAddress }, 'login refused');
  if (result.reason === 'unavailable') return no('The directory is unavailable, try again later', 'UNAVAILABLE');
  context.authFailures++;
  await clock.sleep(limits.authFailureDelayMs);
  if (context.authFailures >= limits.maxAuthFailures || result.reason === 'too-many') {
    context.untagged('BYE Too many failed logins');
    context.isLoggingOut = true;
  }
  if (result.reason === 'too-many') return no('Too many failed logins, try again later', 'LIMIT');
  if (result.reason === 'disabled') return no('The account is disabled', 'AUTHORIZATIONFAILED');
  return no('Invalid credentials', 'AUTHENTICATIONFAILED');
}

export const login: Command = {
  name: 'LOGIN',
  states: notLoggedIn,
  async run(context, cursor) {
    cursor.space();
    const name = utf8Text(cursor.astring());
    cursor.space();
    const password = utf8Text(cursor.astring());
    cursor.end();
    if (!context.mayLogIn) return no('Use TLS first', 'PRIVACYREQUIRED');
    if (!offersLogin(context)) return no('LOGIN is not allowed here: see the mechanisms of CAPABILITY', 'CANNOT');
    const preparedName = prepareCredential(name);
    const preparedPassword = prepareCredential(password);
    let result: AuthResult = { ok: false, reason: 'invalid' };
    if (preparedName !== undefined && preparedPassword !== undefined) {
      try {
        result = await context.services.sasl.verifyPassword(preparedName, preparedPassword, saslContext(context));
      } catch (error) {
        context.logger.error({ err: error }, 'the directory failed');
        result = { ok: false, reason: 'unavailable' };
      }
    }
    return concludeAuth(context, 'LOGIN-COMMAND', result);
  },
};
