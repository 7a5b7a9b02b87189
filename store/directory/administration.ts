/**
 * Everything that changes the directory. Each change is one transaction that raises the generation; what identifies it (ids, stamps, digests) is chosen
 * before, so that a run after an unknown commit recognises its own work.
 */
import type { Clock, Random } from '../../ops/telemetry/index.js';
import type { KvStore, KvTransaction } from '../kv/contract.js';
import type { Sealer } from '../settings/seal.js';
import { type ParsedAddress, parseAddress, parseDomain } from './addresses.js';
import { type Directory, DirectoryError, type Domain, type Principal } from './contract.js';
import { accountKey, addressKeyOf, addressRange, adminKey, domainKey, generationKey, membersKey, membersRange } from './keys.js';
import { legacyKeys, legacyPlace, sealLegacyKeys } from './legacy-secret.js';
import { ownerOf } from './lookup.js';
import { appPasswordDigest, makeAppPassword, type PasswordHasher, preparePassword } from './passwords.js';
import {
  type Credential,
  type DomainRecord,
  decodeDomain,
  decodePrincipal,
  encodeDomain,
  encodeMembers,
  encodePrincipal,
  type PrincipalRecord,
  publicDomain,
  publicPrincipal,
  withMembers,
} from './records.js';

export const directoryLimits = { maxAliases: 200, maxMembers: 10_000, maxAppPasswords: 50, maxNameCharacters: 255 } as const;

const noBytes = Buffer.alloc(0);
const idAlphabet = 'abcdefghijklmnopqrstuvwxyz0123456789';

export interface AdministrationParts {
  kv: KvStore;
  clock: Clock;
  random: Random;
  hasher: PasswordHasher;
  /** Without it no account can keep a legacy secret. */
  sealer?: Sealer | undefined;
  minPasswordCharacters(): number;
  /** Called after each change, before its caller hears of it. */
  onChanged(): void;
}

type PrincipalInput = Parameters<Directory['createPrincipal']>[0];
type PrincipalChange = Parameters<Directory['updatePrincipal']>[1];

/** 16 characters of [a-z0-9]. */
export function newAccountId(random: Random): string {
  let id = '';
  while (id.length < 16) for (const byte of random.bytes(20)) if (byte < 252 && id.length < 16) id += idAlphabet[byte % 36];
  return id;
}

export class Administration {
  readonly #parts: AdministrationParts;

  constructor(parts: AdministrationParts) {
    this.#parts = parts;
  }

  async createDomain(name: string, options: { subaddressSeparators?: string; catchAll?: string } = {}): Promise<Domain> {
    const { clock, random } = this.#parts;
    const domain: DomainRecord = {
      name: parseDomain(name),
      subaddressSeparators: checkSeparators(options.subaddressSeparators ?? '+'),
      ...(options.catchAll !== undefined && { catchAll: parseAddress(options.catchAll).address }),
      createdAtMs: clock.nowMs(),
      stamp: random.bytes(8).toString('hex'),
    };
    return this.#change(async (tx) => {
      const value = await tx.get(domainKey(domain.name));
      if (value && decodeDomain(domain.name, value).stamp !== domain.stamp) {
        throw new DirectoryError('exists', `the domain ${domain.name} exists already`);
      }
      tx.set(domainKey(domain.name), encodeDomain(domain));
      return publicDomain(domain);
    });
  }

  async updateDomain(name: string, change: { subaddressSeparators?: string; catchAll?: string | null }): Promise<Domain> {
    const domainName = parseDomain(name);
    const separators = change.subaddressSeparators === undefined ? undefined : checkSeparators(change.subaddressSeparators);
    const catchAll = change.catchAll ? parseAddress(change.catchAll).address : undefined;
    return this.#change(async (tx) => {
      const value = await tx.get(domainKey(domainName));
      if (!value) throw noDomain(domainName);
      const domain = decodeDomain(domainName, value);
      if (separators !== undefined) domain.subaddressSeparators = separators;
      if (catchAll !== undefined) domain.catchAll = catchAll;
      else if (change.catchAll !== undefined) delete domain.catchAll;
      tx.set(domainKey(domainName), encodeDomain(domain));
      return publicDomain(domain);
    });
  }

  async removeDomain(name: string): Promise<void> {
    const domainName = parseDomain(name);
    let isSeen = false;
    return this.#change(async (tx) => {
      if (!(await tx.get(domainKey(domainName)))) {
        if (isSeen) return;
        throw noDomain(domainName);
      }
      isSeen = true;
      const { begin, end } = addressRange(domainName);
      if ((await tx.getRange(begin, end, { limit: 1 })).length > 0) {
        throw new DirectoryError('in-use', `the domain ${domainName} still has addresses`);
      }
      tx.clear(domainKey(domainName));
    });
  }

  async createPrincipal(input: PrincipalInput): Promise<Principal> {
    const { clock, random } = this.#parts;
    const primary = parseAddress(input.address);
    const aliases = parseAliases(input.aliases ?? [], primary.address);
    const members = checkMembers(input.kind, input.members ?? []);
    const record: PrincipalRecord = {
      id: newAccountId(random),
      kind: input.kind,
      address: primary.address,
      displayName: checkName(input.displayName ?? primary.local),
      aliases: aliases.map(({ address }) => address),
      isEnabled: true,
      isAdmin: input.kind === 'account' && (input.isAdmin ?? false),
      ...(input.quotaLimitBytes !== undefined && { quotaLimitBytes: input.quotaLimitBytes }),
      createdAtMs: clock.nowMs(),
      appPasswords: [],
    };
    if (input.password !== undefined) {
      record.credential = await this.#credential(record, input.password, input.keepsLegacySecret ?? false);
    } else if (input.keepsLegacySecret)
      throw new DirectoryError('weak-password', 'a legacy secret is made of a password: give one');
    return this.#change(async (tx) => {
      await claimAddresses(tx, record.id, [primary, ...aliases]);
      await checkGroupMembers(tx, record.kind, members);
      writeMembers(tx, record.id, members);
      writeRecord(tx, record);
      return publicPrincipal(record, members);
    });
  }

  async updatePrincipal(address: string, change: PrincipalChange): Promise<Principal> {
    const parsed = parseAddress(address);
    return this.#change(async (tx) => {
      const record = await existing(tx, parsed);
      if (change.displayName !== undefined) record.displayName = checkName(change.displayName);
      if (change.isEnabled !== undefined) record.isEnabled = change.isEnabled;
      if (change.isAdmin !== undefined && record.kind === 'account') record.isAdmin = change.isAdmin;
      if (change.quotaLimitBytes !== undefined) record.quotaLimitBytes = change.quotaLimitBytes ?? undefined;
      if (change.aliases) await replaceAliases(tx, record, change.aliases);
      writeRecord(tx, record);
      if (!change.members) return withMembers(tx, record);
      const members = checkMembers(record.kind, change.members);
      await checkGroupMembers(tx, record.kind, members);
      writeMembers(tx, record.id, members);
      return publicPrincipal(record, members);
    });
  }

  async removePrincipal(address: string): Promise<Principal> {
    const parsed = parseAddress(address);
    let removed: Principal | undefined;
    return this.#change(async (tx) => {
      const record = await ownerOf(tx, parsed);
      // Gone since this call's first run: that was its own commit, whose answer was lost.
      if (!record && removed) return removed;
      if (!record) throw noPrincipal(parsed.address);
      removed = await withMembers(tx, record);
      for (const own of [record.address, ...record.aliases]) tx.clear(addressKeyOf(parseAddress(own)));
      writeMembers(tx, record.id, []);
      tx.clear(adminKey(record.id));
      tx.clear(accountKey(record.id));
      return removed;
    });
  }

  async setPassword(address: string, password: string, options: { keepsLegacySecret?: boolean } = {}): Promise<void> {
    const parsed = parseAddress(address);
    const before = await this.#parts.kv.read((reads) => existing(reads, parsed));
    const keepsLegacy = options.keepsLegacySecret ?? before.credential?.sealedLegacy !== undefined;
    const credential = await this.#credential(before, password, keepsLegacy);
    await this.#change(async (tx) => {
      const record = accountOnly(await existing(tx, parsed));
      // The address was given to another account meanwhile: what is sealed for the one does not open for the other.
      if (record.id !== before.id) throw noPrincipal(parsed.address);
      writeRecord(tx, { ...record, credential });
    });
  }

  async dropLegacySecret(address: string): Promise<void> {
    const parsed = parseAddress(address);
    await this.#change(async (tx) => {
      const record = accountOnly(await existing(tx, parsed));
      if (record.credential) delete record.credential.sealedLegacy;
      writeRecord(tx, record);
    });
  }

  /** Seals one account's legacy secret with the newest cluster key; false when it is already, or there is none. Throws `SealError`. */
  async resealAccount(id: string): Promise<boolean> {
    const { kv, sealer } = this.#parts;
    return kv.transact(
      async (tx) => {
        const value = await tx.get(accountKey(id));
        const record = value && decodePrincipal(id, value);
        const sealed = record?.credential?.sealedLegacy;
        const anew = sealed && sealer?.reseal(sealed, legacyPlace(id));
        if (!anew) return false;
        record.credential!.sealedLegacy = anew;
        tx.set(accountKey(id), encodePrincipal(record));
        return true;
      },
      { label: 'directory' },
    );
  }

  async createAppPassword(address: string, name: string): Promise<string> {
    const { clock, random } = this.#parts;
    const parsed = parseAddress(address);
    const label = checkName(name);
    if (label === '') throw new DirectoryError('not-found', 'an app password needs a name');
    const secret = makeAppPassword(random);
    const digest = appPasswordDigest(secret)!;
    const createdAtMs = clock.nowMs();
    await this.#change(async (tx) => {
      const record = accountOnly(await existing(tx, parsed));
      const known = record.appPasswords.find((one) => one.name === label);
      if (known && !known.digest.equals(digest))
        throw new DirectoryError('exists', `there is an app password '${label}' already`);
      if (known) return;
      if (record.appPasswords.length >= directoryLimits.maxAppPasswords) {
        throw new DirectoryError('too-many', `an account has at most ${directoryLimits.maxAppPasswords} app passwords`);
      }
      record.appPasswords.push({ name: label, digest, createdAtMs });
      writeRecord(tx, record);
    });
    return secret;
  }

  async removeAppPassword(address: string, name: string): Promise<void> {
    const parsed = parseAddress(address);
    let isSeen = false;
    return this.#change(async (tx) => {
      const record = accountOnly(await existing(tx, parsed));
      const remaining = record.appPasswords.filter((one) => one.name !== name);
      if (remaining.length === record.appPasswords.length) {
        if (isSeen) return;
        throw new DirectoryError('not-found', `there is no app password '${name.slice(0, 255)}'`);
      }
      isSeen = true;
      writeRecord(tx, { ...record, appPasswords: remaining });
    });
  }

  async #credential(record: PrincipalRecord, password: string, keepsLegacy: boolean): Promise<Credential> {
    accountOnly(record);
    const prepared = preparePassword(password);
    const minCharacters = this.#parts.minPasswordCharacters();
    if (prepared === undefined || [...prepared].length < minCharacters) {
      const rule = `a password has ${minCharacters} characters or more and no control characters`;
      throw new DirectoryError('weak-password', rule);
    }
    const { hasher, sealer } = this.#parts;
    if (keepsLegacy && !sealer) throw new DirectoryError('not-supported', 'this directory has no seal for legacy secrets');
    const credential = await hasher.credential(prepared);
    if (keepsLegacy) credential.sealedLegacy = sealLegacyKeys(sealer!, record.id, legacyKeys(record.address, prepared));
    return credential;
  }

  #change<T>(body: (tx: KvTransaction) => Promise<T>): Promise<T> {
    const committing = this.#parts.kv.transact(
      async (tx) => {
        tx.add(generationKey, 1n);
        return body(tx);
      },
      { label: 'directory' },
    );
    // Also after a failure: its outcome may be unknown.
    return committing.finally(() => this.#parts.onChanged());
  }
}

async function existing(reads: Parameters<typeof ownerOf>[0], parsed: ParsedAddress): Promise<PrincipalRecord> {
  const record = await ownerOf(reads, parsed);
  if (!record) throw noPrincipal(parsed.address);
  return record;
}

function writeRecord(tx: KvTransaction, record: PrincipalRecord): void {
  tx.set(accountKey(record.id), encodePrincipal(record));
  if (record.isAdmin) tx.set(adminKey(record.id), noBytes);
  else tx.clear(adminKey(record.id));
}

function writeMembers(tx: KvTransaction, id: string, members: readonly string[]): void {
  const { begin, end } = membersRange(id);
  tx.clearRange(begin, end);
  for (const [part, value] of encodeMembers(members).entries()) tx.set(membersKey(id, part), value);
}

/** Takes addresses for `id`: their domains are ours, nobody else has them. Reading the domain makes its removal conflict. */
async function claimAddresses(tx: KvTransaction, id: string, addresses: readonly ParsedAddress[]): Promise<void> {
  const names = [...new Set(addresses.map(({ domain }) => domain))];
  const values = await tx.getMany([...names.map(domainKey), ...addresses.map(addressKeyOf)]);
  const missing = names.findIndex((_, index) => !values[index]);
  if (missing >= 0) throw new DirectoryError('bad-domain', `${names[missing]} is not a domain of this server`);
  for (const [index, parsed] of addresses.entries()) {
    const owner = values[names.length + index]?.toString('latin1');
    if (owner !== undefined && owner !== id) throw new DirectoryError('exists', `the address ${parsed.address} is taken`);
    tx.set(addressKeyOf(parsed), Buffer.from(id, 'latin1'));
  }
}

async function replaceAliases(tx: KvTransaction, record: PrincipalRecord, wanted: readonly string[]): Promise<void> {
  const aliases = parseAliases(wanted, record.address);
  await claimAddresses(tx, record.id, aliases);
  const kept = new Set(aliases.map(({ address }) => address));
  for (const old of record.aliases) if (!kept.has(old)) tx.clear(addressKeyOf(parseAddress(old)));
  record.aliases = [...kept];
}

function parseAliases(aliases: readonly string[], primary: string): ParsedAddress[] {
  if (aliases.length > directoryLimits.maxAliases) {
    throw new DirectoryError('too-many', `an account has at most ${directoryLimits.maxAliases} aliases`);
  }
  const parsed = new Map(aliases.map((alias) => [parseAddress(alias).address, parseAddress(alias)]));
  parsed.delete(primary);
  return [...parsed.values()];
}

function checkMembers(kind: Principal['kind'], members: readonly string[]): string[] {
  if (kind === 'account' && members.length > 0) throw new DirectoryError('bad-address', 'an account has no members');
  if (members.length > directoryLimits.maxMembers) {
    throw new DirectoryError('too-many', `a ${kind} has at most ${directoryLimits.maxMembers} members`);
  }
  return [...new Set(members.map((member) => parseAddress(member).address))];
}

/** Members of a group are addresses of this server; who leaves later is simply no member any more. */
async function checkGroupMembers(tx: KvTransaction, kind: Principal['kind'], members: readonly string[]): Promise<void> {
  if (kind !== 'group' || members.length === 0) return;
  const rows = await tx.getMany(members.map((member) => addressKeyOf(parseAddress(member))));
  const missing = rows.indexOf(undefined);
  if (missing >= 0) throw noPrincipal(members[missing]!);
}

function checkSeparators(separators: string): string {
  if (!/^[!#$%&*+\-/=?^_|~]{0,4}$/.test(separators)) {
    throw new DirectoryError('bad-domain', 'separators of subaddresses are at most four of ! # $ % & * + - / = ? ^ _ | ~');
  }
  return separators;
}

function checkName(name: string): string {
  const text = name.normalize('NFC').trim();
  if (text.length > directoryLimits.maxNameCharacters || /\p{Cc}/u.test(text)) {
    throw new DirectoryError(
      'too-many',
      `a name has at most ${directoryLimits.maxNameCharacters} characters, none of them a control character`,
    );
  }
  return text;
}

function accountOnly(record: PrincipalRecord): PrincipalRecord {
  if (record.kind !== 'account')
    throw new DirectoryError('not-found', `${record.address} is a ${record.kind} and has no password`);
  return record;
}

const noPrincipal = (address: string) => new DirectoryError('not-found', `there is no ${address}`);
const noDomain = (name: string) => new DirectoryError('not-found', `there is no domain ${name}`);
