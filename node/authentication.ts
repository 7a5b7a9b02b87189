/** Logins of all protocols, checked against the directory. */
import { counter, type Logger } from '../ops/telemetry/index.js';
import type { AuthResult, SaslBackend } from '../protocols/sasl/contract.js';
import type { Directory, Principal, ScramSecret } from '../store/directory/contract.js';
import { KvError } from '../store/kv/contract.js';

const logins = counter('starling_logins_total', 'Logins checked, by protocol and result', ['protocol', 'result']);

function success(principal: Principal): AuthResult {
  return { ok: true, principal: { accountId: principal.id, login: principal.address, name: principal.displayName } };
}

/** The SASL mechanisms' view of the directory. Every outcome is counted and logged, without the secret. */
export function createSaslBackend(directory: Directory, logger: Logger): SaslBackend {
  const account = (
    result: AuthResult,
    login: string,
    context: { protocol: string; remoteAddress: string },
    mechanism: string,
  ) => {
    logins.inc({ protocol: context.protocol, result: result.ok ? 'ok' : result.reason });
    const facts = { login, remoteAddress: context.remoteAddress, protocol: context.protocol, mechanism };
    if (result.ok) logger.info({ ...facts, accountId: result.principal.accountId }, 'logged in');
    else logger.warn({ ...facts, reason: result.reason }, 'login refused');
    return result;
  };
  const guarded = async (check: () => Promise<AuthResult>): Promise<AuthResult> => {
    try {
      return await check();
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      logger.error({ err: error }, 'the directory could not be asked');
      return { ok: false, reason: 'unavailable' };
    }
  };
  return {
    async verifyPassword(login, password, context) {
      const result = await guarded(async () => {
        const verified = await directory.verifyPassword(login, password);
        return verified.ok ? success(verified.principal) : verified;
      });
      return account(result, login, context, 'password');
    },
    async scramCredentials(login) {
      const secret = await directory.scramSecret(login);
      return secret && { ...secret, accountRef: secret satisfies ScramSecret };
    },
    async scramDone({ login, accountRef, proved }, context) {
      const result = await guarded(async () => {
        const secret = accountRef as ScramSecret | undefined;
        if (!proved || !secret) return { ok: false, reason: 'invalid' };
        const principal = await directory.principalById(secret.accountId);
        if (!principal) return { ok: false, reason: 'invalid' };
        return principal.isEnabled ? success(principal) : { ok: false, reason: 'disabled' };
      });
      return account(result, login, context, 'scram-sha-256');
    },
  };
}
