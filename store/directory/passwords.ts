/**
 * Secrets: argon2id of passwords (at most two at a time, because each holds a thread of the pool that file reads need too), SCRAM-SHA-256 keys, app passwords.
 */
import { createHash, createHmac, pbkdf2, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import { hash, verify } from '@node-rs/argon2';
import type { Random } from '../../ops/telemetry/index.js';
import { gauge } from '../../ops/telemetry/index.js';
import type { AppPassword, Credential } from './records.js';

const waitingChecks = gauge('starling_password_hashes_waiting', 'Password hashes that wait for a turn');

const derive = promisify(pbkdf2);

/** OWASP's parameters for argon2id: 19 MiB, two passes, one lane; 13 to 19 ms. */
const argon2Options = { memoryCost: 19_456, timeCost: 2, parallelism: 1, outputLen: 32 } as const;
const maxParallel = 2;
/** About three seconds of work; who comes later is sent away. */
export const defaultMaxWaiting = 256;
export const scramIterations = 10_000;
export const scramSaltBytes = 16;
export const maxPasswordBytes = 1_024;

/** More passwords wait for their check than can be checked in reasonable time. */
export class PasswordQueueFull extends Error {
  override readonly name = 'PasswordQueueFull';
  constructor() {
    super('too many passwords are being checked');
  }
}

// RFC 3454 B.1, C.1.2, and of C.2 to C.9 what may not be in a password.
const mappedToNothing = /\u034f|[\u180b-\u180d]|[\ufe00-\ufe0f]|[\u00ad\u1806\u200b-\u200d\u2060\ufeff]/gu;
const otherSpaces = /[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]/gu;
const prohibited =
  /[\u0340\u0341]|[\p{Cc}\p{Co}\p{Cs}\u200e\u200f\u2028-\u202e\u206a-\u206f\u2ff0-\u2ffb\ufff9-\ufffd\u{e0001}\u{e0020}-\u{e007f}]/u;

/**
 * The form in which passwords are hashed (SASLprep, RFC 4013, as SCRAM clients do; without its check of text directions). Undefined for what can be no
 * password: empty, too long, or with control characters.
 */
export function preparePassword(password: string): string | undefined {
  if (password.length > maxPasswordBytes) return undefined;
  if (/^[\x20-\x7e]+$/.test(password)) return password;
  const prepared = password.replace(mappedToNothing, '').replace(otherSpaces, ' ').normalize('NFKC');
  if (prepared === '' || prohibited.test(prepared) || Buffer.byteLength(prepared) > maxPasswordBytes) return undefined;
  return prepared;
}

/** Makes and checks password hashes, in turn. */
export class PasswordHasher {
  readonly #random: Random;
  readonly #nobody: string;
  readonly #maxWaiting: number;
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(random: Random, maxWaiting = defaultMaxWaiting) {
    this.#random = random;
    this.#maxWaiting = maxWaiting;
    const base64 = (length: number) => random.bytes(length).toString('base64').replace(/=+$/, '');
    this.#nobody = `$argon2id$v=19$m=19456,t=2,p=1$${base64(16)}$${base64(32)}`;
  }

  /** What is stored for a prepared password. Throws `PasswordQueueFull`. */
  async credential(password: string): Promise<Credential> {
    const salt = this.#random.bytes(scramSaltBytes);
    const version = this.#random.bytes(8).toString('hex');
    const argon2 = await this.#inTurn(() => hash(password, { ...argon2Options, salt: this.#random.bytes(16) }));
    return { version, argon2, scram: await scramKeys(password, salt, scramIterations) };
  }

  /** Whether the prepared password is the one. Throws `PasswordQueueFull`. */
  matches(credential: Credential, password: string): Promise<boolean> {
    return this.#inTurn(() => verify(credential.argon2, password));
  }

  /** Takes as long as `matches`, for logins that do not exist. Always false. */
  async matchesNobody(password: string): Promise<false> {
    await this.#inTurn(() => verify(this.#nobody, password));
    return false;
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running < maxParallel) this.#running++;
    else {
      if (this.#waiting.length >= this.#maxWaiting) throw new PasswordQueueFull();
      waitingChecks.inc();
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
      waitingChecks.dec();
    }
    try {
      return await work();
    } finally {
      // The turn goes to the next in line without being given back in between.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running--;
    }
  }
}

/** RFC 5802 section 3: StoredKey and ServerKey of a prepared password. */
export async function scramKeys(password: string, salt: Buffer, iterations: number): Promise<Credential['scram']> {
  const salted = await derive(password, salt, iterations, 32, 'sha256');
  const clientKey = createHmac('sha256', salted).update('Client Key').digest();
  return {
    salt,
    iterations,
    storedKey: createHash('sha256').update(clientKey).digest(),
    serverKey: createHmac('sha256', salted).update('Server Key').digest(),
  };
}

const appAlphabet = 'abcdefghijklmnopqrstuvwxyz234567';

/** A new app password: 100 random bits as four groups of five characters. */
export function makeAppPassword(random: Random): string {
  const characters = [...random.bytes(20)].map((byte) => appAlphabet[byte & 31]);
  return [0, 5, 10, 15].map((start) => characters.slice(start, start + 5).join('')).join('-');
}

/** The digest of what was typed, with or without hyphens and spaces; undefined when it can't be an app password. */
export function appPasswordDigest(typed: string): Buffer | undefined {
  if (typed.length < 20 || typed.length > 40) return undefined;
  const secret = typed.replace(/[\s-]/g, '').toLowerCase();
  // 100 random bits need no slow hash.
  return /^[a-z2-7]{20}$/.test(secret) ? createHash('sha256').update(secret).digest() : undefined;
}

/** Which app password it is. Compares with all of them, each in constant time. */
export function findAppPassword(appPasswords: readonly AppPassword[], digest: Buffer): AppPassword | undefined {
  let found: AppPassword | undefined;
  for (const candidate of appPasswords) if (timingSafeEqual(candidate.digest, digest)) found = candidate;
  return found;
}
