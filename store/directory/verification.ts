/**
 * Checks passwords. A success is remembered in memory under a keyed digest of login and password; it counts only while the store still says the same
 * generation, or else the same credential, both read afresh each time. So a changed or revoked password is refused at once, on every node.
 */
import { createHmac } from 'node:crypto';
import { type Clock, counter, type Random } from '../../ops/telemetry/index.js';
import type { KvStore } from '../kv/contract.js';
import { tryParseAddress } from './addresses.js';
import type { Principal, VerifyResult } from './contract.js';
import { ownerOf } from './lookup.js';
import { readGeneration } from './memo.js';
import { appPasswordDigest, findAppPassword, type PasswordHasher, PasswordQueueFull, preparePassword } from './passwords.js';
import { type PrincipalRecord, publicPrincipal } from './records.js';

const checks = counter(
  'starling_password_checks_total',
  'Passwords checked: remembered, app password, hashed, refused, or turned away',
  ['result'],
);

const rememberMs = 5 * 60_000;
const maxRemembered = 10_000;

interface Remembered {
  accountId: string;
  /** Of the password that was verified; undefined for app passwords, which are quick to check again. */
  credentialVersion?: string;
  appPassword?: string;
  principal: Principal;
  generation: bigint;
  untilMs: number;
}

const invalid: VerifyResult = { ok: false, reason: 'invalid' };

export class Verification {
  readonly #kv: KvStore;
  readonly #clock: Clock;
  readonly #hasher: PasswordHasher;
  readonly #key: Buffer;
  readonly #remembered = new Map<string, Remembered>();
  /** The same password checked by several connections at once is hashed once. */
  readonly #running = new Map<string, Promise<boolean>>();

  constructor(parts: { kv: KvStore; clock: Clock; random: Random; hasher: PasswordHasher }) {
    this.#kv = parts.kv;
    this.#clock = parts.clock;
    this.#hasher = parts.hasher;
    this.#key = parts.random.bytes(32);
  }

  /** Throws KvError when the store can't be asked. */
  async verify(login: string, password: string): Promise<VerifyResult> {
    try {
      const result = await this.#verify(login, password);
      if (!result.ok) checks.inc({ result: 'refused' });
      return result;
    } catch (error) {
      if (!(error instanceof PasswordQueueFull)) throw error;
      checks.inc({ result: 'turned-away' });
      return { ok: false, reason: 'unavailable' };
    }
  }

  async #verify(login: string, password: string): Promise<VerifyResult> {
    const parsed = tryParseAddress(login);
    const prepared = preparePassword(password);
    if (!parsed || prepared === undefined) {
      await this.#hasher.matchesNobody('');
      return invalid;
    }
    const tag = createHmac('sha256', this.#key).update(`${parsed.address}\0${prepared}`).digest('base64');
    const known = this.#recall(tag);
    const { generation, record } = await this.#kv.read(
      async (reads) => {
        if (known) {
          const current = await readGeneration(reads);
          if (current === known.generation) return { generation: current, record: undefined };
        }
        const [current, owner] = await Promise.all([readGeneration(reads), ownerOf(reads, parsed)]);
        return { generation: current, record: owner };
      },
      { label: 'verify-password' },
    );
    if (known && generation === known.generation) return this.#accept('remembered', known);
    if (record?.kind !== 'account') {
      await this.#checkPassword(tag, undefined, prepared);
      return invalid;
    }
    const app = this.#checkAppPassword(record, password);
    const isRight = app !== undefined || isStillRight(known, record) || (await this.#checkPassword(tag, record, prepared));
    if (!isRight) return invalid;
    if (!record.isEnabled) return { ok: false, reason: 'disabled' };
    const success: Remembered = {
      accountId: record.id,
      credentialVersion: app === undefined ? record.credential?.version : undefined,
      appPassword: app,
      principal: publicPrincipal(record, []),
      generation,
      // What is confirmed by the store alone does not get older by it.
      untilMs: known?.untilMs ?? this.#clock.monotonicMs() + rememberMs,
    };
    this.#remember(tag, success);
    return this.#accept(app === undefined ? 'hashed' : 'app-password', success);
  }

  #checkAppPassword(record: PrincipalRecord, password: string): string | undefined {
    const digest = record.appPasswords.length > 0 ? appPasswordDigest(password) : undefined;
    return digest && findAppPassword(record.appPasswords, digest)?.name;
  }

  /** Without a credential it takes the same time, also when the same is asked several times at once. */
  #checkPassword(tag: string, record: PrincipalRecord | undefined, prepared: string): Promise<boolean> {
    const credential = record?.credential;
    const key = `${tag}${credential?.version ?? ''}`;
    const running = this.#running.get(key);
    if (running) return running;
    const check: Promise<boolean> = credential
      ? this.#hasher.matches(credential, prepared)
      : this.#hasher.matchesNobody(prepared);
    const done = check.finally(() => this.#running.delete(key));
    this.#running.set(key, done);
    return done;
  }

  #accept(how: 'remembered' | 'hashed' | 'app-password', success: Remembered): VerifyResult {
    checks.inc({ result: how });
    const { appPassword, principal } = success;
    return {
      ok: true,
      principal: { ...principal, aliases: [...principal.aliases] },
      ...(appPassword !== undefined && { appPassword }),
    };
  }

  #recall(tag: string): Remembered | undefined {
    const known = this.#remembered.get(tag);
    if (!known || known.untilMs > this.#clock.monotonicMs()) return known;
    this.#remembered.delete(tag);
    return undefined;
  }

  #remember(tag: string, success: Remembered): void {
    this.#remembered.delete(tag);
    if (this.#remembered.size >= maxRemembered) this.#remembered.delete(this.#remembered.keys().next().value!);
    this.#remembered.set(tag, success);
  }
}

/** The directory changed, this account's password did not. */
function isStillRight(known: Remembered | undefined, record: PrincipalRecord): boolean {
  if (known?.credentialVersion === undefined) return false;
  return known.accountId === record.id && known.credentialVersion === record.credential?.version;
}
