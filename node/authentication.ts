/** Logins of all protocols, checked against the directory, the issuers of access tokens and the guard against guessing. */
import { type Clock, counter, histogram, type Logger, systemClock } from '../ops/telemetry/index.js';
import type {
  AuthFailure,
  AuthResult,
  SaslBackend,
  SaslContext,
  SaslMechanismName,
  TokenResult,
} from '../protocols/sasl/contract.js';
import { saslMechanisms } from '../protocols/sasl/index.js';
import type { Directory, LegacySecret, Principal, ScramSecret } from '../store/directory/contract.js';
import { tryParseAddress } from '../store/directory/index.js';
import { KvError } from '../store/kv/contract.js';
import type { LoginAttempt, LoginGuard } from '../store/limits/contract.js';
import type { TokenVerdict, TokenVerifier } from './oauth-tokens/index.js';
import type { ClusterSettings } from './settings/index.js';

const logins = counter('starling_logins_total', 'Logins checked, by protocol, mechanism and result', [
  'protocol',
  'mechanism',
  'result',
]);
const guardFailures = counter(
  'starling_login_guard_failures_total',
  'Logins that went on without the guard, because it could not be asked',
);
const delays = histogram(
  'starling_login_delay_seconds',
  'How long logins were made to wait after failures',
  [],
  [0.1, 0.5, 1, 2, 5, 10, 30],
);

export interface SaslBackendOptions {
  clock?: Clock;
  /** Section `login`; read for each session. Default: passwords and SCRAM, nothing else. */
  settings?: () => Pick<ClusterSettings['login'], 'mechanisms'>;
  /** Without it no access token is taken. */
  tokens?: TokenVerifier | undefined;
  guard?: LoginGuard | undefined;
}

type Attempt = SaslContext & { login: string };

const settingNames: Readonly<Record<SaslMechanismName, keyof ClusterSettings['login']['mechanisms']>> = {
  'SCRAM-SHA-256-PLUS': 'scramSha256Plus',
  'SCRAM-SHA-256': 'scramSha256',
  OAUTHBEARER: 'oauthbearer',
  XOAUTH2: 'xoauth2',
  PLAIN: 'plain',
  LOGIN: 'login',
  'DIGEST-MD5': 'digestMd5',
  'CRAM-MD5': 'cramMd5',
};
const withoutSettings: readonly SaslMechanismName[] = ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256', 'PLAIN', 'LOGIN'];

/** The guard counts by login: all spellings of an address that the directory takes for the same are one, or each would be worth fresh guesses. */
function counted({ remoteAddress, login, protocol }: Attempt): LoginAttempt {
  return { remoteAddress, login: tryParseAddress(login)?.address ?? login, protocol };
}

function success(principal: Principal): AuthResult {
  return { ok: true, principal: { accountId: principal.id, login: principal.address, name: principal.displayName } };
}

/** The SASL mechanisms' view of the node. Every outcome is counted and logged, without the secret. */
export function createSaslBackend(directory: Directory, logger: Logger, options: SaslBackendOptions = {}): SaslBackend {
  return new DirectoryBackend(directory, logger, options);
}

class DirectoryBackend implements SaslBackend {
  readonly #clock: Clock;

  constructor(
    private readonly directory: Directory,
    private readonly logger: Logger,
    private readonly options: SaslBackendOptions,
  ) {
    this.#clock = options.clock ?? systemClock;
  }

  allowedMechanisms(): readonly SaslMechanismName[] {
    const { settings, tokens } = this.options;
    if (!settings) return withoutSettings;
    const { mechanisms } = settings();
    const hasTokens = tokens?.isUsable ?? false;
    return saslMechanisms.filter((name) => {
      if (!mechanisms[settingNames[name]]) return false;
      return hasTokens || (name !== 'OAUTHBEARER' && name !== 'XOAUTH2');
    });
  }

  async verifyPassword(login: string, password: string, context: SaslContext): Promise<AuthResult> {
    const attempt = { ...context, login };
    const refused = await this.#admit(attempt);
    if (refused) return this.#account({ ok: false, reason: refused }, attempt, 'password');
    const result = await this.#guarded(async () => {
      const verified = await this.directory.verifyPassword(login, password);
      return verified.ok ? success(verified.principal) : verified;
    });
    await this.#record(attempt, result);
    return this.#account(result, attempt, 'password');
  }

  async scramCredentials(login: string, context: SaslContext) {
    const refused = await this.#admitProof({ ...context, login }, 'SCRAM-SHA-256');
    if (refused) return { refused };
    const secret = await this.directory.scramSecret(login);
    return secret && { ...secret, accountRef: secret satisfies ScramSecret };
  }

  async legacySecret(login: string, context: SaslContext) {
    const refused = await this.#admitProof({ ...context, login }, 'CRAM-MD5');
    if (refused) return { refused };
    const secret = await this.directory.legacySecret(login);
    return secret && { ...secret, accountRef: secret satisfies LegacySecret };
  }

  async scramDone(
    { login, accountRef, proved, mechanism }: Parameters<SaslBackend['scramDone']>[0],
    context: SaslContext,
  ): Promise<AuthResult> {
    const attempt = { ...context, login };
    const result = await this.#guarded(async () => {
      const secret = accountRef as Pick<ScramSecret, 'accountId'> | undefined;
      if (!proved || !secret) return { ok: false, reason: 'invalid' };
      return this.#enter(await this.directory.principalById(secret.accountId));
    });
    await this.#record(attempt, result);
    return this.#account(result, attempt, mechanism);
  }

  async verifyToken(token: string, login: string | undefined, context: SaslContext): Promise<TokenResult> {
    const attempt = { ...context, login: login ?? '' };
    const refused = await this.#admit(attempt);
    if (refused) return this.#account({ ok: false, reason: refused }, attempt, 'token');
    const verdict: TokenVerdict =
      token === '' || !this.options.tokens
        ? { isGood: false, reason: 'stale', detail: 'no token' }
        : await this.options.tokens.verify(token);
    if (!verdict.isGood) return this.#refuseToken(verdict, attempt);
    const result = await this.#guarded(() => this.#tokenOwner(verdict.address, login));
    await this.#record(attempt, result);
    this.#account(result, { ...attempt, login: login ?? verdict.address }, 'token');
    return result.ok || result.reason !== 'invalid' ? result : { ...result, oauth: { status: 'invalid_token' } };
  }

  async #refuseToken(verdict: TokenVerdict & { isGood: false }, attempt: Attempt): Promise<TokenResult> {
    const { reason, detail, scope, openidConfiguration } = verdict;
    this.logger.info({ remoteAddress: attempt.remoteAddress, reason, detail }, 'access token refused');
    if (reason === 'unavailable') return this.#account({ ok: false, reason: 'unavailable' }, attempt, 'token');
    const result = this.#account({ ok: false, reason: 'invalid' }, attempt, 'token') as AuthResult & { ok: false };
    // A token that has run out, or is for something else, is no guess: clients show it, hear so, and fetch a new one.
    if (reason === 'forged') await this.#record(attempt, result);
    const status = reason === 'scope' ? 'insufficient_scope' : 'invalid_token';
    return {
      ...result,
      oauth: { status, ...(scope !== undefined && { scope }), ...(openidConfiguration !== undefined && { openidConfiguration }) },
    };
  }

  /** The token's account, when the login is the same account's or is left to the token. */
  async #tokenOwner(address: string, login: string | undefined): Promise<AuthResult> {
    const [owner, named] = await Promise.all([
      this.directory.principal(address),
      login === undefined ? undefined : this.directory.principal(login),
    ]);
    if (owner?.kind !== 'account' || (login !== undefined && named?.id !== owner.id)) return { ok: false, reason: 'invalid' };
    return this.#enter(owner);
  }

  #enter(principal: Principal | undefined): AuthResult {
    if (!principal) return { ok: false, reason: 'invalid' };
    return principal.isEnabled ? success(principal) : { ok: false, reason: 'disabled' };
  }

  /** `#admit` for exchanges that end before there is a proof. */
  async #admitProof(attempt: Attempt, mechanism: SaslMechanismName): Promise<AuthFailure | undefined> {
    const refused = await this.#admit(attempt);
    if (refused) this.#account({ ok: false, reason: refused }, attempt, mechanism);
    return refused;
  }

  /** Waits as the guard says, this session alone; answers why the attempt may not go on. A guard that can't be asked lets everybody in: the password is still checked. */
  async #admit(attempt: Attempt): Promise<AuthFailure | undefined> {
    const { guard } = this.options;
    if (!guard) return undefined;
    try {
      const { isAdmitted, delayMs } = await guard.admit(counted(attempt));
      if (!isAdmitted) return 'too-many';
      if (delayMs <= 0) return undefined;
      delays.observe(delayMs / 1_000);
      // A background timer: a node that stops does not wait for whoever guesses passwords.
      await new Promise<void>((resolve) => this.#clock.setTimer(delayMs, resolve, { background: true }));
    } catch (error) {
      this.#guardFailed(error);
    }
    return undefined;
  }

  async #record(attempt: Attempt, result: AuthResult): Promise<void> {
    const { guard } = this.options;
    // `disabled` has proved the password; `unavailable` says nothing of it.
    const isWrong = !result.ok && result.reason === 'invalid';
    if (!guard || (!result.ok && !isWrong)) return;
    const recording = guard.record(counted(attempt), result.ok).catch((error: unknown) => this.#guardFailed(error));
    // Nobody who is right waits for the books; after a failure the next attempt must find this one in them.
    if (isWrong) await recording;
  }

  #guardFailed(error: unknown): void {
    guardFailures.inc();
    this.logger.warn({ err: error }, 'the login guard could not be asked');
  }

  async #guarded(check: () => Promise<AuthResult>): Promise<AuthResult> {
    try {
      return await check();
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      this.logger.error({ err: error }, 'the directory could not be asked');
      return { ok: false, reason: 'unavailable' };
    }
  }

  #account(
    result: AuthResult,
    { login, remoteAddress, protocol }: Attempt,
    mechanism: SaslMechanismName | 'password' | 'token',
  ): AuthResult {
    const label = mechanism.toLowerCase();
    logins.inc({ protocol, mechanism: label, result: result.ok ? 'ok' : result.reason });
    const facts = { login, remoteAddress, protocol, mechanism: label };
    if (result.ok) this.logger.info({ ...facts, accountId: result.principal.accountId }, 'logged in');
    else this.logger.warn({ ...facts, reason: result.reason }, 'login refused');
    return result;
  }
}
