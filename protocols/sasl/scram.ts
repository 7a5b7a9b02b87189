/**
 * SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), the server's side. PLUS ties the proof to the TLS connection under it. A login that does not exist gets a
 * challenge like any other, the same each time it asks.
 */
import { timingSafeEqual } from 'node:crypto';
import type { Random } from '../../ops/telemetry/index.js';
import { tryParseAddress } from '../../store/directory/index.js';
import { decodeBase64 } from './base64.js';
import { channelBindingTypes } from './channel-binding.js';
import type {
  ChannelBindingSource,
  ChannelBindingType,
  SaslBackend,
  SaslContext,
  SaslExchange,
  SaslStep,
  ScramCredentials,
} from './contract.js';
import { decodeUtf8 } from './prepare.js';
import { decodeSaslName, hmacSha256 as hmac, scramKeyBytes, sha256, xorKeys } from './scram-formulas.js';

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

interface ClientFirst {
  /** `n,,`, `y,,` or `p=type,,` with the authorization identity: comes back inside `c=`. */
  gs2Header: string;
  /** `n`: does no channel binding. `y`: would, and believes that we do not. Else the type that it uses. */
  binding: 'n' | 'y' | ChannelBindingType;
  bare: string;
  login: string;
  nonce: string;
}

const isKnownBinding = (type: string): type is ChannelBindingType => (channelBindingTypes as readonly string[]).includes(type);

/** What a SCRAM exchange knows of the connection that it happens on. */
export interface ScramChannel {
  /** This is the -PLUS mechanism. */
  isPlus: boolean;
  /** The -PLUS mechanism is among those that were announced. */
  offersPlus: boolean;
  source?: ChannelBindingSource | undefined;
}

/**
 * The octets that must follow the header in `c=`, or what is wrong. RFC 5802 6: who says `y` would have used channel binding if it had seen it offered, so
 * somebody took it out of our list on the way.
 */
function expectedBinding(binding: ClientFirst['binding'], channel: ScramChannel): Buffer | string {
  const isNamed = binding !== 'n' && binding !== 'y';
  if (isNamed !== channel.isPlus)
    return channel.isPlus ? 'SCRAM-SHA-256-PLUS needs channel binding' : 'Channel binding is only in SCRAM-SHA-256-PLUS';
  if (!isNamed) {
    const isStripped = binding === 'y' && channel.offersPlus;
    return isStripped ? 'Channel binding is offered here: the list of mechanisms was changed on the way' : Buffer.alloc(0);
  }
  return channel.source?.(binding) ?? 'This connection has no channel binding of that type';
}

/** Parses `gs2-header client-first-message-bare`; a string says what is wrong. */
function parseClientFirst(text: string): ClientFirst | string {
  const header = /^(n|y|p=([A-Za-z0-9.-]{1,64})),(?:a=([^,\0]*))?,/.exec(text);
  if (!header) return 'The SCRAM header is malformed';
  const binding = header[2] ?? (header[1] as 'n' | 'y');
  if (binding !== 'n' && binding !== 'y' && !isKnownBinding(binding)) return 'This type of channel binding is not known here';
  const bare = text.slice(header[0].length);
  // RFC 5802 5.1: wherever it stands.
  if (/^m=|,m=/.test(bare)) return 'Mandatory SCRAM extensions are not known here';
  const match = /^n=([^,\0]+),r=([!-+\--~]{1,512})(?:,[A-Za-z]=[^,\0]+)*$/.exec(bare);
  if (!match) return 'The first SCRAM message is malformed';
  const login = decodeSaslName(match[1]!);
  if (login === undefined) return 'The login is malformed';
  // `a=` without a name is no grammar, but what GNU SASL writes for none.
  if (header[3] && decodeSaslName(header[3]) !== login) return 'The authorization identity must be empty or equal the login';
  return { gs2Header: header[0], binding, bare, login, nonce: match[2]! };
}

const isSame = (one: Buffer, other: Buffer) => one.length === other.length && timingSafeEqual(one, other);

export class ScramSha256Exchange implements SaslExchange {
  readonly mechanism: 'SCRAM-SHA-256' | 'SCRAM-SHA-256-PLUS';
  #expects: 'first' | 'proof' | 'acknowledgement' | 'nothing' = 'first';
  #first: ClientFirst | undefined;
  #credentials: ScramCredentials | undefined;
  #known = false;
  #binding: Buffer = Buffer.alloc(0);
  #serverFirst = '';
  #nonce = '';
  #outcome: SaslStep | undefined;

  constructor(
    private readonly backend: SaslBackend,
    private readonly context: SaslContext,
    private readonly settings: ScramSettings,
    private readonly random: Random,
    private readonly onBackendError: (error: unknown) => void,
    private readonly channel: ScramChannel = { isPlus: false, offersPlus: false },
  ) {
    this.mechanism = channel.isPlus ? 'SCRAM-SHA-256-PLUS' : 'SCRAM-SHA-256';
  }

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
    const binding = expectedBinding(first.binding, this.channel);
    if (typeof binding === 'string') return { kind: 'malformed', text: binding };
    this.#first = first;
    this.#binding = binding;
    try {
      const found = await this.backend.scramCredentials(first.login, this.context);
      if (found && 'refused' in found) return { kind: 'done', result: { ok: false, reason: found.refused } };
      this.#known = found !== undefined && found.iterations <= maxIterations;
      this.#credentials = found && this.#known ? found : this.#fake(first.login);
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
    // The directory takes many spellings for one address and answers one salt to all of them: so must this.
    const name = tryParseAddress(login)?.address ?? login.toLowerCase();
    const derive = (purpose: string) => hmac(this.settings.fakeSaltKey, `${purpose}\0${name}`);
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
    const match = /^c=([^,]+),r=([^,]+)(?:,[A-Za-ln-z]=[^,]+)*,p=([^,]+)$/.exec(text);
    const proof = match ? decodeBase64(match[3]!, scramKeyBytes) : undefined;
    if (!match || proof?.length !== scramKeyBytes) return { kind: 'malformed', text: 'The final SCRAM message is malformed' };
    const first = this.#first!;
    const credentials = this.#credentials!;
    // RFC 5802 5.1: c= repeats the header, so that nobody on the way can have changed `y` into `n`; r= repeats the whole nonce.
    const claimed = decodeBase64(match[1]!);
    const header = Buffer.from(first.gs2Header);
    const repeats = claimed?.subarray(0, header.length).equals(header) ?? false;
    const fresh = match[2] === this.#nonce;
    if (!repeats || !fresh) return { kind: 'malformed', text: 'The final SCRAM message does not belong to the first' };
    const authMessage = `${first.bare},${this.#serverFirst},${text.slice(0, text.lastIndexOf(',p='))}`;
    const signature = hmac(credentials.storedKey, authMessage);
    const clientKey = xorKeys(proof, signature);
    const matches = credentials.storedKey.length === scramKeyBytes && timingSafeEqual(sha256(clientKey), credentials.storedKey);
    // Another binding than this connection's: the proof was made for the TLS connection of somebody in between.
    const isBound = isSame(claimed!.subarray(header.length), this.#binding);
    const proved = matches && isBound && this.#known;
    return this.#settle(proved, `v=${hmac(credentials.serverKey, authMessage).toString('base64')}`);
  }

  async #settle(proved: boolean, serverFinal: string): Promise<SaslStep> {
    try {
      const accountRef = this.#known ? this.#credentials!.accountRef : undefined;
      const outcome = { login: this.#first!.login, accountRef, proved, mechanism: this.mechanism };
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
