/**
 * Records of the directory as they are stored: msgpack arrays that begin with a format version.
 */
import { Packr } from 'msgpackr';
import type { KvReads } from '../kv/contract.js';
import type { AccountId } from '../mail/contract.js';
import type { Domain, Principal, PrincipalKind } from './contract.js';
import { membersRange } from './keys.js';

const packr = new Packr({ useRecords: false });
const formatVersion = 1;
const kinds: readonly PrincipalKind[] = ['account', 'group', 'list'];

export interface DomainRecord extends Domain {
  /** Random, chosen with the domain: tells an own commit whose answer was lost from somebody else's domain. */
  stamp: string;
}

export interface Credential {
  /** Random, new with every password. */
  version: string;
  /** PHC string. */
  argon2: string;
  scram: { salt: Buffer; iterations: number; storedKey: Buffer; serverKey: Buffer };
  /**
   * For CRAM-MD5 and DIGEST-MD5, sealed. Last in what is stored and only there when the account keeps it: a node of the release before does not see it, and
   * drops it whenever it writes the record.
   */
  sealedLegacy?: Buffer;
}

export interface AppPassword {
  name: string;
  /** SHA-256 of the secret's 20 characters. */
  digest: Buffer;
  createdAtMs: number;
}

/** A principal without its members, which lie under keys of their own, with what only this room may see. */
export interface PrincipalRecord extends Omit<Principal, 'members'> {
  credential?: Credential;
  appPasswords: AppPassword[];
}

function unpackFields(what: string, value: Buffer): unknown[] {
  const fields = packr.unpack(value) as unknown;
  if (!Array.isArray(fields) || fields[0] !== formatVersion) throw new Error(`unknown format of a ${what} record`);
  return fields;
}

export function encodeDomain(domain: DomainRecord): Buffer {
  return packr.pack([formatVersion, domain.subaddressSeparators, domain.catchAll ?? null, domain.createdAtMs, domain.stamp]);
}

export function decodeDomain(name: string, value: Buffer): DomainRecord {
  const [, subaddressSeparators, catchAll, createdAtMs, stamp] = unpackFields('domain', value) as [
    number,
    string,
    string | null,
    number,
    string,
  ];
  return { name, subaddressSeparators, ...(catchAll !== null && { catchAll }), createdAtMs, stamp };
}

export function publicDomain({ stamp: _, ...domain }: DomainRecord): Domain {
  return domain;
}

type PackedScram = [Buffer, number, Buffer, Buffer];
type PackedCredential = [string, string, PackedScram, Buffer?];

export function encodePrincipal(record: PrincipalRecord): Buffer {
  const { credential } = record;
  const scram = credential?.scram;
  return packr.pack([
    formatVersion,
    kinds.indexOf(record.kind),
    record.address,
    record.displayName,
    record.aliases,
    record.isEnabled,
    record.isAdmin,
    record.quotaLimitBytes ?? null,
    record.createdAtMs,
    credential && scram
      ? [
          credential.version,
          credential.argon2,
          [scram.salt, scram.iterations, scram.storedKey, scram.serverKey],
          ...(credential.sealedLegacy ? [credential.sealedLegacy] : []),
        ]
      : null,
    record.appPasswords.map(({ name, digest, createdAtMs }) => [name, digest, createdAtMs]),
  ]);
}

export function decodePrincipal(id: AccountId, value: Buffer): PrincipalRecord {
  const fields = unpackFields('principal', value);
  const [, kind, address, displayName, aliases, isEnabled, isAdmin, quota, createdAtMs] = fields as [
    number,
    number,
    string,
    string,
    string[],
    boolean,
    boolean,
    number | null,
    number,
  ];
  const credential = fields[9] as PackedCredential | null;
  const appPasswords = fields[10] as [string, Buffer, number][];
  return {
    id,
    kind: kinds[kind]!,
    address,
    displayName,
    aliases,
    isEnabled,
    isAdmin,
    ...(quota !== null && { quotaLimitBytes: quota }),
    createdAtMs,
    ...(credential && { credential: unpackCredential(credential) }),
    appPasswords: appPasswords.map(([name, digest, since]) => ({ name, digest, createdAtMs: since })),
  };
}

function unpackCredential([version, argon2, [salt, iterations, storedKey, serverKey], sealed]: PackedCredential): Credential {
  return { version, argon2, scram: { salt, iterations, storedKey, serverKey }, ...(sealed && { sealedLegacy: sealed }) };
}

/** What the rest of the house may see. */
export function publicPrincipal(record: PrincipalRecord, members: string[]): Principal {
  const { credential, appPasswords: _, ...rest } = record;
  return { ...rest, ...(credential?.sealedLegacy && { keepsLegacySecret: true }), aliases: [...record.aliases], members };
}

/** Members per key: 200 addresses of at most 320 bytes stay under the value limit. */
const membersPerPart = 200;

export function encodeMembers(members: readonly string[]): Buffer[] {
  const parts: Buffer[] = [];
  for (let start = 0; start < members.length; start += membersPerPart) {
    parts.push(packr.pack([formatVersion, ...members.slice(start, start + membersPerPart)]));
  }
  return parts;
}

export async function readMembers(reads: KvReads, id: AccountId): Promise<string[]> {
  const { begin, end } = membersRange(id);
  const parts = await reads.getRange(begin, end);
  return parts.flatMap(({ value }) => decodeMembers(value));
}

/** The addresses in one part. */
export function decodeMembers(value: Buffer): string[] {
  return unpackFields('members', value).slice(1) as string[];
}

/** The record with its members, where its kind has any. */
export async function withMembers(reads: KvReads, record: PrincipalRecord): Promise<Principal> {
  return publicPrincipal(record, record.kind === 'account' ? [] : await readMembers(reads, record.id));
}
