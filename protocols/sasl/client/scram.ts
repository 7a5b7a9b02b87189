/** SCRAM-SHA-256 and -PLUS from the client's side (RFC 5802, RFC 7677). */
import { timingSafeEqual } from 'node:crypto';
import type { Random } from '../../../ops/telemetry/index.js';
import { decodeBase64 } from '../base64.js';
import { decodeUtf8 } from '../prepare.js';
import { deriveScramKeys, encodeSaslName, hmacSha256, type ScramKeys, xorKeys } from '../scram-formulas.js';
import { type SaslClient, SaslClientError, type SaslClientOptions } from './contract.js';

/** What a server may make us compute: about a second. RFC 7677 4 asks for 4096 at least. */
const maxIterations = 1_000_000;
const minIterations = 4_096;
const maxServerMessageBytes = 8_192;

/** RFC 5802 5.1: with -PLUS what is used; without, `y` where we could have and the server has not offered it, else `n`. */
function gs2Header(isPlus: boolean, { channelBinding, offered }: SaslClientOptions): string {
  if (isPlus) return `p=${channelBinding!.type},,`;
  const serverHasPlus = offered?.some((name) => name.toUpperCase() === 'SCRAM-SHA-256-PLUS') ?? false;
  return channelBinding && !serverHasPlus ? 'y,,' : 'n,,';
}

export class ScramClient implements SaslClient {
  readonly initial: Buffer;
  #expects: 'nothing-or-first' | 'final' | 'end' = 'nothing-or-first';
  #isInitialSent = false;
  readonly #header: string;
  readonly #bare: string;
  readonly #nonce: string;
  #serverSignature: Buffer | undefined;

  /** `login` and `password` are prepared. */
  constructor(
    readonly mechanism: 'SCRAM-SHA-256' | 'SCRAM-SHA-256-PLUS',
    login: string,
    private readonly password: string,
    private readonly options: SaslClientOptions,
    random: Random,
  ) {
    this.#header = gs2Header(mechanism === 'SCRAM-SHA-256-PLUS', options);
    this.#nonce = random.bytes(24).toString('base64');
    this.#bare = `n=${encodeSaslName(login)},r=${this.#nonce}`;
    this.initial = Buffer.from(`${this.#header}${this.#bare}`);
  }

  get isComplete(): boolean {
    return this.#expects === 'end';
  }

  step(challenge: Buffer): Buffer | Promise<Buffer> {
    if (this.#expects === 'nothing-or-first' && challenge.length === 0 && !this.#isInitialSent) {
      this.#isInitialSent = true;
      return this.initial;
    }
    const text = challenge.length <= maxServerMessageBytes ? decodeUtf8(challenge) : undefined;
    if (text === undefined) throw new SaslClientError('protocol', 'the SCRAM message is too long or not UTF-8');
    if (this.#expects === 'nothing-or-first') return this.#onFirst(text);
    if (this.#expects === 'final') return this.#onFinal(text);
    throw new SaslClientError('protocol', 'the exchange is over');
  }

  async #onFirst(text: string): Promise<Buffer> {
    // No `m=`: an extension that one must know (RFC 5802 5.1).
    const match = /^r=([!-+\--~]{1,2048}),s=([^,]+),i=([1-9][0-9]{0,9})(?:,[A-Za-ln-z]=[^,\0]+)*$/.exec(text);
    const salt = match ? decodeBase64(match[2]!) : undefined;
    if (!match || !salt || salt.length === 0)
      throw new SaslClientError('protocol', "the server's first SCRAM message is malformed");
    const [, nonce, , count] = match;
    // RFC 5802 5.1: the server's nonce begins with ours, and adds something.
    if (!nonce!.startsWith(this.#nonce) || nonce!.length === this.#nonce.length) {
      throw new SaslClientError('protocol', "the server's nonce does not go on with ours");
    }
    const iterations = Number(count);
    if (iterations < minIterations || iterations > maxIterations) {
      throw new SaslClientError('protocol', `the server asks for ${iterations} iterations`);
    }
    // Nobody may ask for a second first message while the keys are being made.
    this.#expects = 'final';
    const keys = await deriveScramKeys(this.password, salt, iterations);
    return this.#finalMessage(nonce!, text, keys);
  }

  #finalMessage(nonce: string, serverFirst: string, keys: ScramKeys): Buffer {
    const header = Buffer.from(this.#header);
    const isPlus = this.mechanism === 'SCRAM-SHA-256-PLUS';
    const binding = isPlus ? Buffer.concat([header, this.options.channelBinding!.bytes]) : header;
    const withoutProof = `c=${binding.toString('base64')},r=${nonce}`;
    const authMessage = `${this.#bare},${serverFirst},${withoutProof}`;
    this.#serverSignature = hmacSha256(keys.serverKey, authMessage);
    const proof = xorKeys(keys.clientKey, hmacSha256(keys.storedKey, authMessage));
    return Buffer.from(`${withoutProof},p=${proof.toString('base64')}`);
  }

  #onFinal(text: string): Buffer {
    const wanted = this.#serverSignature;
    if (!wanted) throw new SaslClientError('protocol', 'the server answers before it was asked');
    if (text.startsWith('e=')) throw new SaslClientError('refused', 'the server refuses the login', text.slice(2, 200));
    const match = /^v=([^,]+)(?:,[A-Za-ln-z]=[^,\0]+)*$/.exec(text);
    const given = match ? decodeBase64(match[1]!) : undefined;
    if (given?.length !== wanted.length || !timingSafeEqual(given, wanted)) {
      throw new SaslClientError('server-proof', 'the server has not proved that it knows the password');
    }
    this.#expects = 'end';
    return Buffer.alloc(0);
  }
}
