/** CRAM-MD5 (RFC 2195) and DIGEST-MD5 (RFC 2831, qop `auth`) from the client's side. */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Random } from '../../../ops/telemetry/index.js';
import { digestHa1 } from '../../../store/directory/index.js';
import { digestResponse, parseDigest, quoteDigest } from '../digest-syntax.js';
import { type SaslClient, SaslClientError, type SaslClientOptions } from './contract.js';

const maxChallengeBytes = 4_096;

export class CramMd5Client implements SaslClient {
  readonly mechanism = 'CRAM-MD5';
  #isAnswered = false;

  constructor(
    private readonly login: string,
    private readonly password: string,
  ) {}

  get isComplete(): boolean {
    return this.#isAnswered;
  }

  step(challenge: Buffer): Buffer {
    if (this.#isAnswered) throw new SaslClientError('protocol', 'the server asks for more than the mechanism has');
    if (challenge.length === 0 || challenge.length > maxChallengeBytes)
      throw new SaslClientError('protocol', 'the challenge is empty or too long');
    this.#isAnswered = true;
    return Buffer.from(`${this.login} ${createHmac('md5', this.password).update(challenge).digest('hex')}`);
  }
}

export class DigestMd5Client implements SaslClient {
  readonly mechanism = 'DIGEST-MD5';
  #wanted: string | undefined;
  #isProved = false;

  constructor(
    private readonly login: string,
    private readonly password: string,
    private readonly options: SaslClientOptions,
    private readonly random: Random,
  ) {}

  get isComplete(): boolean {
    return this.#isProved;
  }

  step(challenge: Buffer): Buffer {
    const directives = challenge.length <= maxChallengeBytes ? parseDigest(challenge) : undefined;
    if (!directives || this.#isProved) throw new SaslClientError('protocol', 'the DIGEST-MD5 challenge is malformed');
    if (this.#wanted !== undefined) return this.#onProof(directives.get('rspauth') ?? '', this.#wanted);
    const nonce = directives.get('nonce');
    // RFC 2831 2.1.1: without qop it is `auth`; the algorithm has one name only.
    const offers = (directives.get('qop') ?? 'auth').split(/[\s,]+/);
    if (!nonce || directives.get('algorithm')?.toLowerCase() !== 'md5-sess' || !offers.includes('auth')) {
      throw new SaslClientError('protocol', 'the DIGEST-MD5 challenge lacks a nonce, or asks for what we do not do');
    }
    const isUtf8 = directives.get('charset')?.toLowerCase() === 'utf-8';
    return this.#respond(nonce, directives.get('realm') ?? '', isUtf8);
  }

  #respond(nonce: string, realm: string, isUtf8: boolean): Buffer {
    const { service, host } = this.options;
    const answer = new Map([
      ['username', this.login],
      ['realm', realm],
      ['nonce', nonce],
      ['cnonce', this.random.bytes(24).toString('base64')],
      ['nc', '00000001'],
      ['qop', 'auth'],
      ['digest-uri', `${service}/${host}`],
    ]);
    const ha1 = digestHa1(this.login, realm, this.password);
    this.#wanted = digestResponse(ha1, answer, '');
    // RFC 2831 7.1: nc, qop, response and charset are not quoted.
    const plain = new Set(['nc', 'qop']);
    const parts = [...answer].map(([name, value]) => `${name}=${plain.has(name) ? value : quoteDigest(value)}`);
    if (isUtf8) parts.unshift('charset=utf-8');
    parts.push(`response=${digestResponse(ha1, answer, 'AUTHENTICATE')}`);
    return Buffer.from(parts.join(','), isUtf8 ? 'utf8' : 'latin1');
  }

  #onProof(given: string, wanted: string): Buffer {
    const [one, other] = [Buffer.from(given), Buffer.from(wanted)];
    if (one.length !== other.length || !timingSafeEqual(one, other)) {
      throw new SaslClientError('server-proof', 'the server has not proved that it knows the password');
    }
    this.#isProved = true;
    return Buffer.alloc(0);
  }
}
