/**
 * CRAM-MD5 (RFC 2195) and DIGEST-MD5 (RFC 2831, qop `auth`), for clients that know nothing better, and accounts that were switched to them. The challenge goes out before a login
 * is known, and an unknown login is compared with a secret of the same size, so neither tells who exists.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { Clock, Random } from '../../ops/telemetry/index.js';
import { digestRealm, finishHmacMd5, hmacMd5StateBytes } from '../../store/directory/index.js';
import type { LegacySecret, SaslBackend, SaslContext, SaslExchange, SaslStep } from './contract.js';
import { type DigestDirectives, digestResponse, parseDigest } from './digest-syntax.js';
import { decodeUtf8, prepareCredential } from './prepare.js';

export interface LegacyExchangeParts {
  backend: SaslBackend;
  context: SaslContext;
  random: Random;
  clock: Pick<Clock, 'nowMs'>;
  /** In the challenge of CRAM-MD5. */
  serverName: string;
  onBackendError(error: unknown): void;
}

const malformed = (text: string): SaslStep => ({ kind: 'malformed', text });
/** Longer ones come from no client that is known. */
const maxResponseBytes = 4_096;

/** Asks for the secret of `login`, compares, and tells the backend. */
async function judge(
  parts: LegacyExchangeParts,
  mechanism: 'CRAM-MD5' | 'DIGEST-MD5',
  login: string,
  compare: (secret: LegacySecret) => boolean,
  onProved: (result: SaslStep) => SaslStep,
): Promise<SaslStep> {
  const { backend, context } = parts;
  try {
    const found = await backend.legacySecret!(login, context);
    if (found && 'refused' in found) return { kind: 'done', result: { ok: false, reason: found.refused } };
    const matches = compare(found ?? nobody(parts.random));
    const proved = matches && found !== undefined;
    const result = await backend.scramDone({ login, accountRef: found?.accountRef, proved, mechanism }, context);
    if (result.ok && proved) return onProved({ kind: 'done', result });
    return { kind: 'done', result: result.ok ? { ok: false, reason: 'invalid' } : result };
  } catch (error) {
    parts.onBackendError(error);
    return { kind: 'done', result: { ok: false, reason: 'unavailable' } };
  }
}

function nobody(random: Random): LegacySecret {
  return { accountRef: undefined, hmacMd5State: random.bytes(hmacMd5StateBytes), digestHa1: random.bytes(16) };
}

export class CramMd5Exchange implements SaslExchange {
  readonly mechanism = 'CRAM-MD5';
  #challenge: Buffer | undefined;
  #isOver = false;

  constructor(private readonly parts: LegacyExchangeParts) {}

  step(response: Buffer | undefined): SaslStep | Promise<SaslStep> {
    if (this.#isOver) return malformed('The exchange is over');
    if (response === undefined && !this.#challenge) {
      const { random, clock, serverName } = this.parts;
      // RFC 2195 2: in the form of a message id; what counts is that it never comes twice.
      const unique = `${random.bytes(16).toString('hex')}.${Math.floor(clock.nowMs() / 1000)}`;
      this.#challenge = Buffer.from(`<${unique}@${serverName}>`);
      return { kind: 'challenge', bytes: this.#challenge };
    }
    this.#isOver = true;
    const challenge = this.#challenge;
    // RFC 4954 4, RFC 4959 3: the server speaks first, so there is no initial response.
    if (!challenge || response === undefined) return malformed('CRAM-MD5 begins with a challenge of the server');
    const text = response.length <= maxResponseBytes ? decodeUtf8(response) : undefined;
    const match = text === undefined ? null : /^(.+) ([0-9a-f]{32})$/is.exec(text);
    const login = match ? prepareCredential(match[1]!) : undefined;
    if (!match || login === undefined) return malformed('CRAM-MD5 takes a login, a space and 32 hexadecimal digits');
    const given = Buffer.from(match[2]!, 'hex');
    const compare = (secret: LegacySecret) => timingSafeEqual(finishHmacMd5(secret.hmacMd5State, challenge), given);
    return judge(this.parts, 'CRAM-MD5', login, compare, (done) => done);
  }
}

export class DigestMd5Exchange implements SaslExchange {
  readonly mechanism = 'DIGEST-MD5';
  #nonce: string | undefined;
  #expects: 'response' | 'acknowledgement' | 'nothing' = 'response';
  #outcome: SaslStep | undefined;

  constructor(private readonly parts: LegacyExchangeParts) {}

  step(response: Buffer | undefined): SaslStep | Promise<SaslStep> {
    if (response === undefined && this.#nonce === undefined) {
      this.#nonce = this.parts.random.bytes(24).toString('base64');
      const challenge = `realm="${digestRealm}",nonce="${this.#nonce}",qop="auth",charset=utf-8,algorithm=md5-sess`;
      return { kind: 'challenge', bytes: Buffer.from(challenge) };
    }
    const expects = this.#expects;
    this.#expects = 'nothing';
    if (expects === 'acknowledgement') {
      return response?.length === 0 ? this.#outcome! : malformed('An empty response was expected');
    }
    if (expects === 'nothing') return malformed('The exchange is over');
    // An initial response would be RFC 2831's subsequent authentication: refused, the client then begins anew without one.
    if (this.#nonce === undefined || response === undefined) return malformed('DIGEST-MD5 begins with a challenge of the server');
    if (response.length > maxResponseBytes) return malformed('The response is too long');
    const directives = parseDigest(response);
    if (!directives) return malformed('The DIGEST-MD5 response is malformed');
    return this.#onResponse(directives, this.#nonce);
  }

  #onResponse(directives: DigestDirectives, nonce: string): SaslStep | Promise<SaslStep> {
    const problem = this.#problem(directives, nonce);
    if (problem !== undefined) return malformed(problem);
    const login = prepareCredential(directives.get('username')!);
    if (login === undefined) return malformed('The login is malformed');
    const authzid = directives.get('authzid');
    if (authzid !== undefined && authzid !== '' && prepareCredential(authzid) !== login) {
      return malformed('The authorization identity must be empty or equal the login');
    }
    const given = Buffer.from(directives.get('response')!, 'latin1');
    let rspauth = '';
    const compare = ({ digestHa1 }: LegacySecret) => {
      // RFC 2831 2.1.2.1 and 2.1.3: the client's value has the method in it, the server's has none.
      const wanted = Buffer.from(digestResponse(digestHa1, directives, 'AUTHENTICATE'), 'latin1');
      rspauth = digestResponse(digestHa1, directives, '');
      return given.length === wanted.length && timingSafeEqual(given, wanted);
    };
    return judge(this.parts, 'DIGEST-MD5', login, compare, (done) => {
      this.#outcome = done;
      this.#expects = 'acknowledgement';
      return { kind: 'challenge', bytes: Buffer.from(`rspauth=${rspauth}`) };
    });
  }

  #problem(directives: DigestDirectives, nonce: string): string | undefined {
    const service = this.parts.context.protocol;
    if (directives.get('username') === undefined || !directives.get('cnonce')) return 'The response lacks a login or a nonce';
    if (!isSameText(directives.get('nonce') ?? '', nonce) || directives.get('nc') !== '00000001') {
      return 'The response does not belong to the challenge';
    }
    if (directives.get('realm') !== digestRealm) return 'The realm is not the one of the challenge';
    if ((directives.get('qop') ?? 'auth') !== 'auth') return 'Only authentication is offered, no layer of integrity';
    // RFC 2831 2.1.2: the service is checked; by which of its many names a client knows this host, is its own matter.
    if (!directives.get('digest-uri')?.toLowerCase().startsWith(`${service}/`)) return 'The response is for another service';
    if (!/^[0-9a-f]{32}$/.test(directives.get('response') ?? '')) return 'The response is not 32 hexadecimal digits';
    return undefined;
  }
}

function isSameText(one: string, other: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(one), digest(other));
}
