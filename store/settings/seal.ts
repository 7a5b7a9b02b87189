/**
 * Sealed secrets: AES-256-GCM under keys derived (HKDF-SHA256, RFC 5869) from the cluster key, one for each purpose. A sealed value is
 *
 *     algorithm (1 byte: 1) | key id (8 bytes) | nonce (12 random bytes) | ciphertext | tag (16 bytes)
 *
 * and opens only with the same cluster key, for the same purpose and in the same place: purpose, context and head are authenticated with it.
 */
import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto';
import type { Random } from '../../ops/telemetry/index.js';

const clusterKeyBytes = 32;
const algorithmId = 1;
const keyIdBytes = 8;
const nonceBytes = 12;
const tagBytes = 16;
const headBytes = 1 + keyIdBytes;
/** What sealing adds to a secret's length. */
export const sealOverheadBytes = headBytes + nonceBytes + tagBytes;
const salt = 'starling';
/** Derived keys that are remembered; purposes are few and fixed. */
const maxRememberedKeys = 64;

/** Where a sealed value belongs. */
export interface SealPlace {
  /** What kind of secret: from a small fixed set (`settings`, `tls-private-key`). It has an encryption key of its own. */
  purpose: string;
  /** Which one: a path, a domain name. A value that is moved elsewhere does not open. */
  context: string;
}

export type SealErrorCode = 'damaged' | 'unknown-key' | 'unknown-format';

/** A sealed value that can't be opened. */
export class SealError extends Error {
  override readonly name = 'SealError';
  constructor(
    readonly code: SealErrorCode,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

export interface Sealer {
  /** Of the key that seals, hex; tells nothing of the key. */
  readonly keyId: string;
  seal(plain: Uint8Array, place: SealPlace): Buffer;
  /** Throws `SealError`. */
  open(sealed: Uint8Array, place: SealPlace): Buffer;
  /** The same secret under the newest key; undefined when it is already. Throws `SealError`. */
  reseal(sealed: Uint8Array, place: SealPlace): Buffer | undefined;
}

/** `keys`: the cluster's keys, 32 bytes each. The first one seals, all of them open. */
export function createSealer(keys: readonly Uint8Array[], random: Random): Sealer {
  if (keys.length === 0 || keys.some((key) => key.length !== clusterKeyBytes))
    throw new RangeError(`a cluster key has ${clusterKeyBytes} bytes`);
  return new KeyRing(keys, random);
}

const derive = (key: Uint8Array, info: string, length: number) => Buffer.from(hkdfSync('sha256', key, salt, info, length));

class KeyRing implements Sealer {
  readonly keyId: string;
  /** Key id to cluster key. */
  readonly #keys = new Map<string, Uint8Array>();
  readonly #derived = new Map<string, Buffer>();
  readonly #random: Random;

  constructor(keys: readonly Uint8Array[], random: Random) {
    for (const key of keys) this.#keys.set(derive(key, 'key-id', keyIdBytes).toString('hex'), key);
    this.keyId = this.#keys.keys().next().value!;
    this.#random = random;
  }

  seal(plain: Uint8Array, place: SealPlace): Buffer {
    const head = Buffer.concat([Buffer.of(algorithmId), Buffer.from(this.keyId, 'hex')]);
    const nonce = this.#random.bytes(nonceBytes);
    const cipher = createCipheriv('aes-256-gcm', this.#purposeKey(this.keyId, place.purpose), nonce, { authTagLength: tagBytes });
    cipher.setAAD(associated(head, place));
    return Buffer.concat([head, nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  }

  open(sealed: Uint8Array, place: SealPlace): Buffer {
    const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength);
    if (bytes.length < sealOverheadBytes) throw new SealError('damaged', 'a sealed secret is cut off');
    if (bytes[0] !== algorithmId) throw new SealError('unknown-format', `a secret is sealed in the unknown format ${bytes[0]}`);
    const keyId = bytes.toString('hex', 1, headBytes);
    if (!this.#keys.has(keyId))
      throw new SealError('unknown-key', `a secret is sealed with the cluster key ${keyId}, which is not here`);
    const nonce = bytes.subarray(headBytes, headBytes + nonceBytes);
    const decipher = createDecipheriv('aes-256-gcm', this.#purposeKey(keyId, place.purpose), nonce, { authTagLength: tagBytes });
    decipher.setAAD(associated(bytes.subarray(0, headBytes), place));
    decipher.setAuthTag(bytes.subarray(bytes.length - tagBytes));
    try {
      const body = bytes.subarray(headBytes + nonceBytes, bytes.length - tagBytes);
      return Buffer.concat([decipher.update(body), decipher.final()]);
    } catch (error) {
      throw new SealError('damaged', 'a sealed secret is damaged or was moved here from another place', { cause: error });
    }
  }

  reseal(sealed: Uint8Array, place: SealPlace): Buffer | undefined {
    const isCurrent = sealed[0] === algorithmId && Buffer.from(sealed.subarray(1, headBytes)).toString('hex') === this.keyId;
    return isCurrent ? undefined : this.seal(this.open(sealed, place), place);
  }

  #purposeKey(keyId: string, purpose: string): Buffer {
    const name = `${keyId} ${purpose}`;
    let key = this.#derived.get(name);
    if (!key) {
      key = derive(this.#keys.get(keyId)!, `seal ${algorithmId} ${purpose}`, clusterKeyBytes);
      if (this.#derived.size >= maxRememberedKeys) this.#derived.clear();
      this.#derived.set(name, key);
    }
    return key;
  }
}

/** No two places give the same bytes: the purpose's length stands in front of it. */
function associated(head: Uint8Array, { purpose, context }: SealPlace): Buffer {
  const text = Buffer.from(purpose, 'utf8');
  const length = Buffer.alloc(4);
  length.writeUInt32BE(text.length);
  return Buffer.concat([head, length, text, Buffer.from(context, 'utf8')]);
}

/** A new cluster key as text (base64). */
export function makeClusterKey(random: Random): string {
  return random.bytes(clusterKeyBytes).toString('base64');
}

/**
 * The cluster's keys from text: one per line (or separated by commas), base64 or hex, the one that seals first; `#` begins a comment. Throws `RangeError`
 * with a sentence that quotes nothing.
 */
export function parseClusterKeys(text: string): Buffer[] {
  const words = text
    .split(/\r?\n/)
    .flatMap((line) => line.replace(/#.*/, '').split(','))
    .map((word) => word.trim())
    .filter((word) => word !== '');
  if (words.length === 0) throw new RangeError('there is no cluster key in it');
  return words.map((word) => {
    if (/^[0-9a-f]{64}$/i.test(word)) return Buffer.from(word, 'hex');
    if (/^[A-Za-z0-9+/_-]{43}=?$/.test(word)) return Buffer.from(word, 'base64');
    throw new RangeError('a cluster key is 32 bytes, as 44 characters of base64 or 64 of hex');
  });
}
