/** PLAIN (RFC 4616), LOGIN, XOAUTH2 and OAUTHBEARER (RFC 7628) from the client's side: the secret goes out as it is, so only under TLS. */
import { encodeSaslName } from '../scram-formulas.js';
import { type SaslClient, SaslClientError, type SaslClientOptions } from './contract.js';

const nothing = Buffer.alloc(0);
/** As much of a server's JSON as goes into an error. */
const maxDetailCharacters = 1_000;

const over = () => new SaslClientError('protocol', 'the server asks for more than the mechanism has');

/** Has one message, and nothing to say after it. */
export class PlainClient implements SaslClient {
  readonly mechanism = 'PLAIN';
  readonly initial: Buffer;
  #isAsked = false;

  constructor(login: string, password: string) {
    this.initial = Buffer.from(`\0${login}\0${password}`);
  }

  /** The server proves nothing in this mechanism: TLS has done that. */
  readonly isComplete = true;

  step(challenge: Buffer): Buffer {
    if (this.#isAsked || challenge.length > 0) throw over();
    this.#isAsked = true;
    return this.initial;
  }
}

/** Answers two challenges, whatever they say: servers word them differently. */
export class LoginClient implements SaslClient {
  readonly mechanism = 'LOGIN';
  readonly #answers: Buffer[];

  constructor(login: string, password: string) {
    this.#answers = [Buffer.from(login), Buffer.from(password)];
  }

  get isComplete(): boolean {
    return this.#answers.length === 0;
  }

  step(): Buffer {
    const answer = this.#answers.shift();
    if (!answer) throw over();
    return answer;
  }
}

/** A challenge after the token is the server's refusal in JSON; it is acknowledged, and the server then fails the exchange with its own reply. */
export class OAuthClient implements SaslClient {
  readonly initial: Buffer;
  #isAsked = false;
  #refusal: string | undefined;

  constructor(
    readonly mechanism: 'OAUTHBEARER' | 'XOAUTH2',
    login: string,
    accessToken: string,
    { host, port }: SaslClientOptions,
  ) {
    if (!/^[A-Za-z0-9\-._~+/]+=*$/.test(accessToken))
      throw new SaslClientError('protocol', 'the access token has characters that none may have');
    const auth = `auth=Bearer ${accessToken}\x01\x01`;
    const server = `host=${host}\x01${port === undefined ? '' : `port=${port}\x01`}`;
    this.initial = Buffer.from(
      mechanism === 'XOAUTH2' ? `user=${login}\x01${auth}` : `n,a=${encodeSaslName(login)},\x01${server}${auth}`,
    );
  }

  get isComplete(): boolean {
    return this.#refusal === undefined;
  }

  /** What the server said against the token; for the log. */
  get refusal(): string | undefined {
    return this.#refusal;
  }

  step(challenge: Buffer): Buffer {
    if (challenge.length === 0 && !this.#isAsked) {
      this.#isAsked = true;
      return this.initial;
    }
    if (this.#refusal !== undefined) throw new SaslClientError('refused', 'the server refuses the access token', this.#refusal);
    this.#refusal = challenge.toString('utf8', 0, 4 * maxDetailCharacters).slice(0, maxDetailCharacters);
    // RFC 7628 3.2.3: a lone ^A; XOAUTH2 takes an empty line.
    return this.mechanism === 'OAUTHBEARER' ? Buffer.of(1) : nothing;
  }
}
