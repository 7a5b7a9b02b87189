/**
 * The internal directory: administration, verification and lookups behind one face, with answers remembered per generation.
 */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { KeyRange } from '../keyspace.js';
import { type KeyValue, type KvReads, type KvStore, keyAfter } from '../kv/contract.js';
import { SealError, type Sealer } from '../settings/seal.js';
import { parseAddress, tryParseAddress, tryParseDomain } from './addresses.js';
import { Administration } from './administration.js';
import {
  type Directory,
  DirectoryError,
  type Domain,
  type LegacySecret,
  type Principal,
  type PrincipalKind,
  type Resolution,
  type ScramSecret,
} from './contract.js';
import { accountKey, accountRange, domainKey, domainRange, lastItem } from './keys.js';
import { openLegacyKeys } from './legacy-secret.js';
import { type GroupTable, maySendAsIn, ownerOf, readGroups, resolveIn } from './lookup.js';
import { GenerationMemo, readGeneration } from './memo.js';
import { PasswordHasher } from './passwords.js';
import { decodeDomain, decodePrincipal, publicDomain, publicPrincipal, withMembers } from './records.js';
import { Verification } from './verification.js';

export interface DirectoryOptions {
  kv: KvStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Seals what CRAM-MD5 and DIGEST-MD5 need; without it no account can keep that. */
  sealer?: Sealer;
  /** Shortest password that may be set now (characters). Default 8. */
  minPasswordCharacters?: () => number;
  /** Password checks that may wait for their turn; more are answered `unavailable`. Default 256, about three seconds. */
  maxWaitingPasswordChecks?: number;
  /**
   * For how long lookups (`resolve`, `maySendAs`, `isLocalDomain`, `principalById`) may trust the generation that they read last, milliseconds. Mail is routed
   * by answers of at most this age, without a read for each; this directory's own changes count at once, and passwords are always checked afresh. Default 0.
   */
  lookupFreshMs?: number;
  /** Told after each change that was made through this directory, also when it failed: its outcome may be unknown. */
  onChanged?: () => void;
}

/** The contract, and what a node needs besides. */
export interface OpenDirectory extends Directory {
  /** Another node has changed something: the next lookup reads the generation. */
  changedElsewhere(): void;
}

const rowsPerRead = 500;
const maxRemembered = 20_000;
/** Longer questions and larger answers are not worth remembering. */
const maxMemoKeyCharacters = 400;
const maxMemoTargets = 500;

/** The directory that lies in `kv`. Any number may stand on one store; each sees the others' changes with its next call. */
export function createDirectory(options: DirectoryOptions): OpenDirectory {
  const { kv, clock, random, sealer } = options;
  const hasher = new PasswordHasher(random, options.maxWaitingPasswordChecks);
  const lookups = new Lookups(options);
  const administration = new Administration({
    kv,
    clock,
    random,
    hasher,
    sealer,
    minPasswordCharacters: options.minPasswordCharacters ?? (() => 8),
    onChanged: () => {
      lookups.forgetFreshness();
      options.onChanged?.();
    },
  });
  const verification = new Verification({ kv, clock, random, hasher });
  return {
    createDomain: (name, settings) => administration.createDomain(name, settings),
    updateDomain: (name, change) => administration.updateDomain(name, change),
    removeDomain: (name) => administration.removeDomain(name),
    domains: () => lookups.domains(),
    isLocalDomain: (name) => lookups.isLocalDomain(name),
    createPrincipal: (input) => administration.createPrincipal(input),
    updatePrincipal: (address, change) => administration.updatePrincipal(address, change),
    removePrincipal: (address) => administration.removePrincipal(address),
    principal: (address) => lookups.principal(address),
    principalById: (id) => lookups.principalById(id),
    principals: (kind) => lookups.principals(kind),
    setPassword: (address, password, settings) => administration.setPassword(address, password, settings),
    dropLegacySecret: (address) => administration.dropLegacySecret(address),
    createAppPassword: (address, name) => administration.createAppPassword(address, name),
    appPasswords: (address) => lookups.appPasswords(address),
    removeAppPassword: (address, name) => administration.removeAppPassword(address, name),
    verifyPassword: (login, password) => verification.verify(login, password),
    scramSecret: (login) => lookups.scramSecret(login),
    legacySecret: (login) => lookups.legacySecret(login),
    resealSecrets: async () => {
      let count = 0;
      for (const { id, keepsLegacySecret } of await lookups.principals('account')) {
        if (keepsLegacySecret && (await administration.resealAccount(id))) count++;
      }
      return count;
    },
    resolve: (address) => lookups.resolve(address),
    maySendAs: (accountId, address) => lookups.maySendAs(accountId, address),
    groupsOf: (accountId) => lookups.groupsOf(accountId),
    changedElsewhere: () => lookups.forgetFreshness(),
  };
}

/** Questions that change nothing. */
class Lookups {
  readonly #kv: KvStore;
  readonly #resolutions = new GenerationMemo<Resolution>(maxRemembered);
  readonly #senders = new GenerationMemo<boolean>(maxRemembered);
  readonly #domains = new GenerationMemo<boolean>(maxRemembered);
  readonly #principals = new GenerationMemo<Principal>(maxRemembered);
  readonly #groups = new GenerationMemo<GroupTable>(1);

  readonly #clock: Clock;
  readonly #freshMs: number;
  #freshGeneration = -1n;
  #freshUntilMs = 0;
  #ownChanges = 0;

  readonly #sealer: Sealer | undefined;
  readonly #logger: Logger;

  constructor({ kv, clock, logger, sealer, lookupFreshMs }: DirectoryOptions) {
    this.#kv = kv;
    this.#clock = clock;
    this.#freshMs = lookupFreshMs ?? 0;
    this.#sealer = sealer;
    this.#logger = logger;
  }

  async resolve(address: string): Promise<Resolution> {
    const isWorthIt = (found: Resolution) =>
      found.kind !== 'local' || found.targets.length + found.remote.length <= maxMemoTargets;
    return copyResolution(await this.#remembered(this.#resolutions, address, (reads) => resolveIn(reads, address), isWorthIt));
  }

  maySendAs(accountId: string, address: string): Promise<boolean> {
    return this.#remembered(this.#senders, `${accountId} ${address}`, (reads) => maySendAsIn(reads, accountId, address));
  }

  async isLocalDomain(name: string): Promise<boolean> {
    const domain = tryParseDomain(name);
    if (domain === undefined) return false;
    return this.#remembered(this.#domains, domain, async (reads) => (await reads.get(domainKey(domain))) !== undefined);
  }

  async principalById(id: string): Promise<Principal | undefined> {
    const find = async (reads: KvReads) => {
      const value = await reads.get(accountKey(id));
      return value && withMembers(reads, decodePrincipal(id, value));
    };
    const found = await this.#remembered(this.#principals, id, find, (principal) => principal.members.length <= maxMemoTargets);
    return found && { ...found, aliases: [...found.aliases], members: [...found.members] };
  }

  async principal(address: string): Promise<Principal | undefined> {
    const parsed = tryParseAddress(address);
    if (!parsed) return undefined;
    return this.#kv.read(async (reads) => {
      const record = await ownerOf(reads, parsed);
      return record && withMembers(reads, record);
    });
  }

  async groupsOf(accountId: string): Promise<{ id: string; address: string }[]> {
    const [account, groups] = await Promise.all([
      this.principalById(accountId),
      this.#remembered(this.#groups, 'groups', readGroups),
    ]);
    if (!account?.isEnabled) return [];
    const found = [account.address, ...account.aliases].flatMap((address) => groups.get(address) ?? []);
    return [...new Set(found)].map((group) => ({ ...group })).sort((one, other) => (one.address < other.address ? -1 : 1));
  }

  async appPasswords(address: string): Promise<{ name: string; createdAtMs: number }[]> {
    const parsed = parseAddress(address);
    const record = await this.#kv.read((reads) => ownerOf(reads, parsed));
    if (!record) throw new DirectoryError('not-found', `there is no ${parsed.address}`);
    return record.appPasswords.map(({ name, createdAtMs }) => ({ name, createdAtMs }));
  }

  async scramSecret(login: string): Promise<ScramSecret | undefined> {
    const parsed = tryParseAddress(login);
    const record = parsed && (await this.#kv.read((reads) => ownerOf(reads, parsed)));
    return record?.credential && { accountId: record.id, ...record.credential.scram };
  }

  async legacySecret(login: string): Promise<LegacySecret | undefined> {
    const parsed = tryParseAddress(login);
    const record = parsed && (await this.#kv.read((reads) => ownerOf(reads, parsed)));
    const sealed = record?.credential?.sealedLegacy;
    if (!sealed || !this.#sealer) return undefined;
    try {
      return { accountId: record.id, ...openLegacyKeys(this.#sealer, record.id, sealed) };
    } catch (error) {
      if (!(error instanceof SealError)) throw error;
      // The password still works with the other mechanisms; setting it anew seals it with a key that is known.
      this.#logger.error({ err: error, account: record.id }, 'a legacy secret does not open with the cluster keys of this node');
      return undefined;
    }
  }

  async domains(): Promise<Domain[]> {
    const all: Domain[] = [];
    for await (const { key, value } of this.#rows(domainRange())) all.push(publicDomain(decodeDomain(lastItem(key), value)));
    return all;
  }

  async principals(kind?: PrincipalKind): Promise<Principal[]> {
    const all: Principal[] = [];
    for await (const { key, value } of this.#rows(accountRange())) {
      const record = decodePrincipal(lastItem(key), value);
      if (kind !== undefined && record.kind !== kind) continue;
      if (record.kind === 'account') all.push(publicPrincipal(record, []));
      else all.push(await this.#kv.read((reads) => withMembers(reads, record)));
    }
    return all.sort((one, other) => (one.address < other.address ? -1 : 1));
  }

  /** The rows of a range, a bounded read at a time. */
  async *#rows(range: KeyRange): AsyncGenerator<KeyValue, void, undefined> {
    let { begin } = range;
    for (;;) {
      const rows = await this.#kv.read((reads) => reads.getRange(begin, range.end, { limit: rowsPerRead }));
      yield* rows;
      if (rows.length < rowsPerRead) return;
      begin = keyAfter(rows.at(-1)!.key);
    }
  }

  /** To be called after each own change, before its caller hears of it. */
  forgetFreshness(): void {
    this.#ownChanges++;
    this.#freshUntilMs = 0;
  }

  /** A read that began before an own change may have seen the generation before it: that one is not fresh. */
  #noteGeneration(generation: bigint, startedAtMs: number, ownChanges: number): void {
    if (ownChanges !== this.#ownChanges) return;
    this.#freshGeneration = generation;
    this.#freshUntilMs = startedAtMs + this.#freshMs;
  }

  /** The remembered answer if the store's generation is still that of its making; a new one from the same snapshot otherwise. */
  #remembered<V>(
    memo: GenerationMemo<V & {}>,
    key: string,
    find: (reads: KvReads) => Promise<V>,
    isWorthIt?: (value: V & {}) => boolean,
  ): Promise<V> {
    if (this.#freshMs > 0 && this.#clock.monotonicMs() < this.#freshUntilMs) {
      const known = memo.get(this.#freshGeneration, key);
      if (known !== undefined) return Promise.resolve(known);
    }
    const changes = this.#ownChanges;
    const startedAtMs = this.#clock.monotonicMs();
    return this.#kv.read(
      async (reads) => {
        if (memo.mayHave(key)) {
          const generation = await readGeneration(reads);
          this.#noteGeneration(generation, startedAtMs, changes);
          const known = memo.get(generation, key);
          if (known !== undefined) return known;
        }
        const [generation, found] = await Promise.all([readGeneration(reads), find(reads)]);
        if (found !== undefined && found !== null && key.length <= maxMemoKeyCharacters && (isWorthIt?.(found) ?? true)) {
          memo.set(generation, key, found);
        }
        return found;
      },
      { label: 'directory' },
    );
  }
}

function copyResolution(found: Resolution): Resolution {
  if (found.kind !== 'local') return { ...found };
  return { ...found, targets: found.targets.map((target) => ({ ...target })), remote: [...found.remote] };
}
