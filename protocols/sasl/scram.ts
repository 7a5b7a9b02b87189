/**
 * SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, without channel binding: the server announces no -PLUS, so `n` and `y` are
 * both right and `p=` is refused. A login that does not exist gets a challenge like any other, the same each time it asks.
 */
import { createHash, createHmac, pbkdf2, timingSafeEqual } from 'node:crypto';
import type { Random } from '../../ops/telemetry/index.js';
import { decodeBase64 } from './base64.js';
import type { SaslBackend, SaslContext, SaslExchange, SaslStep, ScramCredentials } from './contract.js';
import { decodeUtf8, prepareCredential } from './prepare.js';

export interface ScramSettings {
  /**
   * Secret behind the challenges of logins that do not exist. The same on every node of a cluster and over restarts, or the change of
   * salt gives away which logins are fake.
   */
  fakeSaltKey: Buffer;
  /** Iterations in fake challenges: what the directory uses for real ones. */
  iterations: number;
  /** Salt length of fake challenges: what the directory uses for real ones. */
  saltBytes: number;
}

/** Iterations a server accepts from its own directory; beyond, a client would be made to work for minutes. */
const maxIterations = 10_000_000;

const hmac = (key: Buffer, text: string | Buffer) => createHmac('sha256', key).update(text).digest();
const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest();

/** RFC 5802 3: everything a server keeps of a password. The password must be prepared; takes milliseconds, off the event loop. */
export async function deriveScramKeys(
  password: string,
  salt: Buffer,
  iterations: number,
): Promise<{ clientKey: Buffer; storedKey: Buffer; serverKey: Buffer }> {
  const salted = await new Promise<Buffer>((resolve, reject) => {
    pbkdf2(Buffer.from(password, 'utf8'), salt, iterations, 32, 'sha256', (error, key) => (error ? reject(error) : resolve(key)));
  });
  const clientKey = hmac(salted, 'Client Key');
  return { clientKey, storedKey: sha256(clientKey), serverKey: hmac(salted, 'Server Key') };
}

interface ClientFirst {
  /** `n,,` or `y,,` with the authorization identity: comes back inside `c=`. */
  gs2Header: string;
  bare: string;
  login: string;
  nonce: string;
}

/** RFC 5802 5.1: `=2C` is a comma, `=3D` an equals sign, any other `=` is an error. */
function decodeSaslName(text: string): string | undefined {
  if (/=(?!2C|3D)/.test(text)) return undefined;
  return prepareCredential(text.replace(/=2C/g, ',').replace(/=3D/g, '='));
}

/** Parses `gs2-header client-first-message-bare`; a string says what is wrong. */
function parseClientFirst(text: string): ClientFirst | string {
  const header = /^(n|y|p=[A-Za-z0-9.-]+),(?:a=([^,\0]+))?,/.exec(text);
  if (!header) return 'The SCRAM header is malformed';
  // RFC 5802 6: `p` demands channel binding, which is only in the -PLUS mechanisms.
  if (header[1]!.startsWith('p')) return 'Channel binding is not offered here';
  const bare = text.slice(header[0].length);
  if (bare.startsWith('m=')) return 'Mandatory SCRAM extensions are not known here';
  const match = /^n=([^,\0]+),r=([!-+\--~]{1,512})(?:,[A-Za-z]=[^,\0]+)*$/.exec(bare);
  if (!match) return 'The first SCRAM message is malformed';
  const login = decodeSaslName(match[1]!);
  if (login === undefined) return 'The login is malformed';
  if (header[2] !== undefined && decodeSaslName(header[2]) !== login)
    return 'The authorization identity must be empty or equal the login';
  return { gs2Header: header[0], bare, login, nonce: match[2]! };
}

export class ScramSha256Exchange implements SaslExchange {
  readonly mechanism = 'SCRAM-SHA-256';
  #expects: 'first' | 'proof' | 'acknowledgement' | 'nothing' = 'first';
  #first: ClientFirst | undefined;
  #credentials: ScramCredentials | undefined;
  #known = false;
  #serverFirst = '';
  #nonce = '';
  #outcome: SaslStep | undefined;

  constructor(
    private readonly backend: SaslBackend,
    private readonly context: SaslContext,
    private readonly settings: ScramSettings,
    private readonly random: Random,
    private readonly onBackendError: (error: unknown) => void,
  ) {}

  step(response: Buffer | undefined): SaslStep | Promise<SaslStep> {
    // The client speaks first: without an initial response it is asked with an empty challenge.
    if (response === undefined) return { kind: 'challenge', bytes: Buffer.alloc(0) };
    const expects = this.#expects;
    this.#expects = 'nothing';
    if (expects === 'acknowledgement') {
      return response.length === 0 ? this.#outcome! : { kind: 'malformed', text: 'An empty response was expected' };
    }
    const text = decodeUtf8(response);
    if (text === undefined) return { kind: 'malformed', text: 'The SCRAM message is not UTF-8' };
    if (expects === 'first') return this.#onFirst(text);
    return expects === 'proof' ? this.#onProof(text) : { kind: 'malformed', text: 'The exchange is over' };
  }

  async #onFirst(text: string): Promise<SaslStep> {
    const first = parseClientFirst(text);
    if (typeof first === 'string') return { kind: 'malformed', text: first };
    this.#first = first;
    try {
      const found = await this.backend.scramCredentials(first.login, this.context);
      this.#known = found !== undefined && found.iterations <= maxIterations;
      this.#credentials = this.#known ? found! : this.#fake(first.login);
    } catch (error) {
      return this.#unavailable(error);
    }
    this.#nonce = first.nonce + this.random.bytes(18).toString('base64');
    const { salt, iterations } = this.#credentials;
    this.#serverFirst = `r=${this.#nonce},s=${salt.toString('base64')},i=${iterations}`;
    this.#expects = 'proof';
    return { kind: 'challenge', bytes: Buffer.from(this.#serverFirst) };
  }

  #fake(login: string): ScramCredentials {
    const derive = (purpose: string) => hmac(this.settings.fakeSaltKey, `${purpose}\0${login.toLowerCase()}`);
    let salt = derive('salt');
    while (salt.length < this.settings.saltBytes) salt = Buffer.concat([salt, derive(`salt${salt.length}`)]);
    return {
      accountRef: undefined,
      salt: salt.subarray(0, this.settings.saltBytes),
      iterations: this.settings.iterations,
      storedKey: derive('stored key'),
      serverKey: derive('server key'),
    };
  }

  async #onProof(text: string): Promise<SaslStep> {
    const match = /^c=([^,]+),r=([^,]+)(?:,[A-Za-z]=[^,]+)*,p=([^,]+)$/.exec(text);
    const proof = match ? decodeBase64(match[3]!, 32) : undefined;
    if (!match || proof?.length !== 32) return { kind: 'malformed', text: 'The final SCRAM message is malformed' };
    const first = this.#first!;
    const credentials = this.#credentials!;
    // RFC 5802 5.1: c= repeats the header, so that nobody on the way can have changed `y` into `n`; r= repeats the whole nonce.
    const bound = decodeBase64(match[1]!)?.equals(Buffer.from(first.gs2Header)) ?? false;
    const fresh = match[2] === this.#nonce;
    if (!bound || !fresh) return { kind: 'malformed', text: 'The final SCRAM message does not belong to the first' };
    const authMessage = `${first.bare},${this.#serverFirst},${text.slice(0, text.lastIndexOf(',p='))}`;
    const signature = hmac(credentials.storedKey, authMessage);
    const clientKey = Buffer.allocUnsafe(32);
    for (let i = 0; i < 32; i++) clientKey[i] = proof[i]! ^ signature[i]!;
    const matches = credentials.storedKey.length === 32 && timingSafeEqual(sha256(clientKey), credentials.storedKey);
    const proved = matches && this.#known;
    return this.#settle(proved, `v=${hmac(credentials.serverKey, authMessage).toString('base64')}`);
  }

  async #settle(proved: boolean, serverFinal: string): Promise<SaslStep> {
    try {
      const outcome = { login: this.#first!.login, accountRef: this.#known ? this.#credentials!.accountRef : undefined, proved };
      const result = await this.backend.scramDone(outcome, this.context);
      if (!result.ok) return { kind: 'done', result };
      if (!proved) return { kind: 'done', result: { ok: false, reason: 'invalid' } };
      // The server's own proof goes out as one more challenge, which the client answers with nothing (RFC 4422 3.6, RFC 4954 4).
      this.#outcome = { kind: 'done', result };
      this.#expects = 'acknowledgement';
      return { kind: 'challenge', bytes: Buffer.from(serverFinal) };
    } catch (error) {
      return this.#unavailable(error);
    }
  }

  #unavailable(error: unknown): SaslStep {
    this.onBackendError(error);
    return { kind: 'done', result: { ok: false, reason: 'unavailable' } };
  }
}
