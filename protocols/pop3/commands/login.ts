/** USER and PASS (RFC 1939 section 7), and what they share with AUTH: the outcome of an attempt. */
import type { AuthResult } from '../../sasl/contract.js';
import { decodeUtf8, prepareCredential } from '../../sasl/index.js';
import type { SessionContext } from '../context.js';
import { authTotal } from '../metrics.js';
import { err, ok, type Reply } from '../replies.js';
import { beforeLogin, type Command } from './command.js';

/** Takes the maildrop, or refuses after a delay; too many refusals end the connection. */
export async function concludeLogin(context: SessionContext, mechanism: string, result: AuthResult): Promise<Reply> {
  if (result.ok) {
    if (await context.enter(result.principal)) {
      authTotal.inc({ mechanism, result: 'ok' });
      const { count, bytes } = context.maildrop.left;
      return ok(`${count} messages (${bytes} octets)`);
    }
    authTotal.inc({ mechanism, result: 'in-use' });
    return err('Another session has the maildrop', 'IN-USE');
  }
  authTotal.inc({ mechanism, result: result.reason });
  const { services, connection, logger } = context;
  logger.info({ mechanism, reason: result.reason, remoteAddress: connection.remoteAddress }, 'login refused');
  if (result.reason === 'unavailable') return err('The directory is unavailable, try again later', 'SYS/TEMP');
  context.authFailures++;
  await services.clock.sleep(services.limits.authFailureDelayMs);
  if (context.authFailures >= services.limits.maxAuthFailures || result.reason === 'too-many') context.isQuitting = true;
  if (result.reason === 'too-many') return err('Too many failed logins, try again later', 'LOGIN-DELAY');
  if (result.reason === 'disabled') return err('The account is disabled', 'SYS/PERM');
  return err('Invalid credentials', 'AUTH');
}

/** Why a login may not be tried here; undefined when it may. */
function refusal(context: SessionContext): Reply | undefined {
  if (!context.mayLogIn) return err('Use TLS first (STLS)');
  return context.offersUser ? undefined : err('Passwords are not taken here: see SASL of CAPA');
}

export const user: Command = {
  name: 'USER',
  states: beforeLogin,
  run(context, rest) {
    const refused = refusal(context);
    if (refused) return refused;
    const name = rest.trim();
    if (name === '') return err('A name is missing');
    context.user = name;
    return ok('Password, please');
  },
};

export const pass: Command = {
  name: 'PASS',
  states: beforeLogin,
  async run(context, rest) {
    const refused = refusal(context);
    if (refused) return refused;
    const { user: name } = context;
    if (name === undefined) return err('USER comes first');
    context.user = undefined;
    const [login, password] = [name, rest].map((latin1) => {
      // RFC 6856 section 2: both are UTF-8, with UTF8 or without.
      const text = decodeUtf8(Buffer.from(latin1, 'latin1'));
      return text === undefined ? undefined : prepareCredential(text);
    });
    let result: AuthResult = { ok: false, reason: 'invalid' };
    if (login !== undefined && password !== undefined) {
      try {
        result = await context.services.sasl.verifyPassword(login, password, context.saslContext);
      } catch (error) {
        context.logger.error({ err: error }, 'the directory failed');
        result = { ok: false, reason: 'unavailable' };
      }
    }
    return concludeLogin(context, 'USER-COMMAND', result);
  },
};
