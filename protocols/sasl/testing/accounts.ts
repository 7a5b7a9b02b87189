/** A backend for tests: one account that may do everything, made of its password as the directory does it. */
import { type Clock, type Random, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import { legacyKeys } from '../../../store/directory/index.js';
import {
  deriveScramKeys,
  type OAuthRefusal,
  type SaslBackend,
  type SaslExchange,
  type SaslStep,
  type ScramOutcome,
} from '../index.js';

export const testLogin = 'alice@example.test';
export const testPassword = 'wonder "land", w\u00f6rd=\u20ac';
export const testToken = 'vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==';
export const testScram = { fakeSaltKey: Buffer.alloc(32, 1), iterations: 4096, saltBytes: 16 };

const principal = { accountId: '7', login: testLogin, name: 'Alice' };

/** Answers for `testLogin`; throws for `broken`, has had enough of `tired`, and keeps what it was told. */
export class TestAccounts implements SaslBackend {
  readonly outcomes: ScramOutcome[] = [];
  readonly tokens: [token: string, login: string | undefined][] = [];
  refusal: OAuthRefusal | undefined = { status: 'invalid_token', scope: 'mail', openidConfiguration: 'https://id.test/x' };
  verdict: 'disabled' | undefined;

  #judge(isRight: boolean) {
    if (!isRight) return { ok: false, reason: 'invalid' } as const;
    return this.verdict ? ({ ok: false, reason: this.verdict } as const) : ({ ok: true, principal } as const);
  }

  #refused(login: string | undefined) {
    if (login === 'broken') throw new Error('away');
    return login === 'tired' ? { refused: 'too-many' as const } : undefined;
  }

  async verifyPassword(login: string, password: string) {
    return this.#judge(login === testLogin && password === testPassword);
  }

  async scramCredentials(login: string) {
    const refused = this.#refused(login);
    if (refused || login !== testLogin) return refused;
    const salt = Buffer.from('0123456789abcdef');
    return { accountRef: 'ref', salt, iterations: 4096, ...(await deriveScramKeys(testPassword, salt, 4096)) };
  }

  async scramDone(outcome: ScramOutcome) {
    this.outcomes.push(outcome);
    return this.#judge(outcome.proved);
  }

  async legacySecret(login: string) {
    const refused = this.#refused(login);
    if (refused || login !== testLogin) return refused;
    return { accountRef: 'ref', ...legacyKeys(testLogin, testPassword) };
  }

  async verifyToken(token: string, login: string | undefined) {
    this.tokens.push([token, login]);
    this.#refused(login);
    const result = this.#judge(token === testToken && (login === undefined || login === testLogin));
    return result.ok || !this.refusal ? result : { ...result, oauth: this.refusal };
  }
}

/** What an exchange is started with. */
export function exchangeParts(backend: SaslBackend, random: Random = systemRandom, clock: Clock = systemClock) {
  const errors: unknown[] = [];
  const context = { remoteAddress: '192.0.2.1', protocol: 'smtp' };
  const onBackendError = (error: unknown) => errors.push(error);
  return { backend, context, scram: testScram, random, clock, serverName: 'mx.example.test', onBackendError, errors };
}

/** The bytes of a challenge; throws when the step is another. */
export function challengeOf(step: SaslStep): Buffer {
  if (step.kind !== 'challenge') throw new Error(`no challenge: ${JSON.stringify(step)}`);
  return step.bytes;
}

/** Answers with these texts, and gives the last step. */
export async function converse(exchange: SaslExchange, ...texts: (string | undefined)[]): Promise<SaslStep> {
  let last: SaslStep | undefined;
  for (const text of texts) last = await exchange.step(text === undefined ? undefined : Buffer.from(text));
  return last!;
}
