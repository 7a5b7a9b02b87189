/**
 * From addresses to principals, and to where mail goes: subaddresses, catch-all, groups, nested lists, and the addresses that every domain must have.
 * All reads of one answer come from one snapshot, many addresses per round trip.
 */
import { type KvReads, keyAfter } from '../kv/contract.js';
import { type ParsedAddress, subaddresses, tryParseAddress } from './addresses.js';
import { DirectoryError, type LocalTarget, type Resolution } from './contract.js';
import {
  accountKey,
  addressKey,
  addressKeyOf,
  adminRange,
  allMembersRange,
  domainKey,
  lastItem,
  memberRowOwner,
} from './keys.js';
import { type DomainRecord, decodeDomain, decodeMembers, decodePrincipal, type PrincipalRecord, readMembers } from './records.js';

/** Members of a list, nested lists included, at which expansion stops with an error. */
export const maxExpansion = 10_000;
const addressesPerRead = 1_000;
const memberRowsPerRead = 500;
const defaultSeparators = '+';
/** RFC 5321 4.5.1 and RFC 2142 section 2. */
const requiredLocals = new Set(['postmaster', 'abuse']);

export type Found =
  | { kind: 'relay'; domain: string }
  | { kind: 'unknown'; domain: DomainRecord }
  | { kind: 'principal'; record: PrincipalRecord; detail?: string };

interface Candidate {
  local: string;
  detail?: string;
}

/** The principals of many addresses, in the order asked. */
export async function lookUp(reads: KvReads, asked: readonly ParsedAddress[], useCatchAll = true): Promise<Found[]> {
  const names = [...new Set(asked.map((parsed) => parsed.domain))];
  const guesses = asked.map((parsed) => candidatesOf(parsed, defaultSeparators));
  const guessKeys = asked.flatMap((parsed, index) => guesses[index]!.map(({ local }) => addressKey(parsed.domain, local)));
  const values = await reads.getMany([...names.map(domainKey), ...guessKeys]);
  const domains = new Map<string, DomainRecord>();
  for (const [index, name] of names.entries()) {
    const value = values[index];
    if (value) domains.set(name, decodeDomain(name, value));
  }
  const hits: ({ id: string; detail?: string } | undefined)[] = [];
  let at = names.length;
  for (const [index, parsed] of asked.entries()) {
    const candidates = guesses[index]!;
    const rows = values.slice(at, (at += candidates.length));
    const separators = domains.get(parsed.domain)?.subaddressSeparators;
    if (separators === undefined) hits.push(undefined);
    else if (separators === defaultSeparators) hits.push(firstHit(candidates, rows));
    else hits.push(await lookUpWith(reads, parsed, separators));
  }
  const records = await readRecords(
    reads,
    hits.map((hit) => hit?.id),
  );
  const found = asked.map((parsed, index): Found => {
    const domain = domains.get(parsed.domain);
    if (!domain) return { kind: 'relay', domain: parsed.domain };
    const record = records[index];
    if (!record) return { kind: 'unknown', domain };
    const detail = hits[index]!.detail;
    return { kind: 'principal', record, ...(detail && { detail }) };
  });
  return useCatchAll ? fillFromCatchAll(reads, found) : found;
}

function candidatesOf(parsed: ParsedAddress, separators: string): Candidate[] {
  return [{ local: parsed.local }, ...subaddresses(parsed, separators)];
}

function firstHit(candidates: readonly Candidate[], rows: readonly (Buffer | undefined)[]) {
  const index = rows.findIndex((row) => row !== undefined);
  return index < 0 ? undefined : { id: rows[index]!.toString('latin1'), detail: candidates[index]!.detail };
}

async function lookUpWith(reads: KvReads, parsed: ParsedAddress, separators: string) {
  const candidates = candidatesOf(parsed, separators);
  return firstHit(candidates, await reads.getMany(candidates.map(({ local }) => addressKey(parsed.domain, local))));
}

async function readRecords(reads: KvReads, ids: readonly (string | undefined)[]): Promise<(PrincipalRecord | undefined)[]> {
  const wanted = [...new Set(ids.filter((id) => id !== undefined))];
  if (wanted.length === 0) return ids.map(() => undefined);
  const values = await reads.getMany(wanted.map(accountKey));
  const records = new Map(wanted.map((id, index) => [id, values[index] && decodePrincipal(id, values[index])]));
  return ids.map((id) => (id === undefined ? undefined : records.get(id)));
}

/** What has no owner goes to the domain's catch-all address; that one has no catch-all itself. */
async function fillFromCatchAll(reads: KvReads, found: Found[]): Promise<Found[]> {
  const catchAlls = new Map<string, ParsedAddress>();
  for (const one of found) {
    const parsed = one.kind === 'unknown' && one.domain.catchAll ? tryParseAddress(one.domain.catchAll) : undefined;
    if (parsed) catchAlls.set((one as Found & { kind: 'unknown' }).domain.name, parsed);
  }
  if (catchAlls.size === 0) return found;
  const owners = await lookUp(reads, [...catchAlls.values()], false);
  const byDomain = new Map([...catchAlls.keys()].map((name, index) => [name, owners[index]!]));
  return found.map((one) => {
    const owner = one.kind === 'unknown' ? byDomain.get(one.domain.name) : undefined;
    return owner?.kind === 'principal' ? owner : one;
  });
}

/** Where mail for `text` goes. Throws DirectoryError `too-many` for a list over `maxExpansion`. */
export async function resolveIn(reads: KvReads, text: string): Promise<Resolution> {
  // RFC 5321 4.1.1.3: <postmaster> without a domain is valid in any case.
  if (text.toLowerCase() === 'postmaster') return toAdmin(reads, undefined);
  const parsed = tryParseAddress(text);
  if (!parsed) return { kind: 'unknown' };
  const [found] = await lookUp(reads, [parsed]);
  switch (found!.kind) {
    case 'relay':
      return found!;
    case 'unknown':
      return requiredLocals.has(parsed.local) ? toAdmin(reads, parsed.domain) : { kind: 'unknown' };
    case 'principal':
      return resolveRecord(reads, found!.record, found!.detail);
  }
}

async function resolveRecord(reads: KvReads, record: PrincipalRecord, detail: string | undefined): Promise<Resolution> {
  if (!record.isEnabled) return { kind: 'disabled' };
  if (record.kind !== 'list') return { kind: 'local', targets: [targetOf(record, detail)], remote: [] };
  const { targets, remote } = await expandList(reads, record);
  // Nobody is left who could get it: better refused than taken and lost.
  if (targets.length + remote.length === 0) return { kind: 'disabled' };
  return { kind: 'local', targets, remote, listAddress: record.address };
}

function targetOf(record: PrincipalRecord, detail: string | undefined): LocalTarget {
  return { accountId: record.id, address: record.address, ...(detail && { detail }) };
}

/** Level by level, each address and each list once, so that loops end. Members that are gone or disabled are passed over. */
async function expandList(reads: KvReads, list: PrincipalRecord): Promise<{ targets: LocalTarget[]; remote: string[] }> {
  const targets = new Map<string, LocalTarget>();
  const remote = new Set<string>();
  const seenLists = new Set([list.id]);
  const seenAddresses = new Set<string>();
  let level = [list];
  while (level.length > 0) {
    const fresh: ParsedAddress[] = [];
    for (const one of level) {
      for (const member of await readMembers(reads, one.id)) {
        const parsed = seenAddresses.has(member) ? undefined : tryParseAddress(member);
        if (!parsed) continue;
        seenAddresses.add(member);
        fresh.push(parsed);
      }
      if (seenAddresses.size > maxExpansion) {
        throw new DirectoryError('too-many', `the list ${list.address} has more than ${maxExpansion} members`);
      }
    }
    level = [];
    for (let start = 0; start < fresh.length; start += addressesPerRead) {
      const asked = fresh.slice(start, start + addressesPerRead);
      for (const [index, found] of (await lookUp(reads, asked)).entries()) {
        if (found.kind === 'relay') remote.add(asked[index]!.address);
        if (found.kind !== 'principal' || !found.record.isEnabled) continue;
        const { record } = found;
        if (record.kind !== 'list') {
          if (!targets.has(record.id)) targets.set(record.id, targetOf(record, found.detail));
        } else if (!seenLists.has(record.id)) {
          seenLists.add(record.id);
          level.push(record);
        }
      }
    }
  }
  return { targets: [...targets.values()], remote: [...remote] };
}

/** An enabled administrator, one of the same domain first. */
async function toAdmin(reads: KvReads, domain: string | undefined): Promise<Resolution> {
  const { begin, end } = adminRange();
  const ids = (await reads.getRange(begin, end, { limit: 100 })).map(({ key }) => lastItem(key));
  const records = (await readRecords(reads, ids)).filter((record) => record?.isEnabled) as PrincipalRecord[];
  const admin = records.find((record) => domain !== undefined && record.address.endsWith(`@${domain}`)) ?? records[0];
  return admin ? { kind: 'local', targets: [targetOf(admin, undefined)], remote: [] } : { kind: 'unknown' };
}

/** Whether the account may send as `text`: its own addresses and their subaddresses, and groups that it is a member of. Not by catch-all. */
export async function maySendAsIn(reads: KvReads, accountId: string, text: string): Promise<boolean> {
  const parsed = tryParseAddress(text);
  if (!parsed) return false;
  const [[found], [account]] = await Promise.all([lookUp(reads, [parsed], false), readRecords(reads, [accountId])]);
  if (found?.kind !== 'principal' || !found.record.isEnabled || !account?.isEnabled) return false;
  if (found.record.id === accountId) return true;
  if (found.record.kind !== 'group') return false;
  const own = new Set([account.address, ...account.aliases]);
  return (await readMembers(reads, found.record.id)).some((member) => own.has(member));
}

/** Enabled groups by the addresses of their members. */
export type GroupTable = ReadonlyMap<string, readonly { id: string; address: string }[]>;

/** All groups in one look: only groups and lists have rows of members, so that accounts cost nothing. */
export async function readGroups(reads: KvReads): Promise<GroupTable> {
  const members = new Map<string, string[]>();
  const all = allMembersRange();
  for (let begin = all.begin; ; ) {
    const rows = await reads.getRange(begin, all.end, { limit: memberRowsPerRead });
    for (const { key, value } of rows) {
      const id = memberRowOwner(key);
      const known = members.get(id);
      if (known) known.push(...decodeMembers(value));
      else members.set(id, decodeMembers(value));
    }
    if (rows.length < memberRowsPerRead) break;
    begin = keyAfter(rows.at(-1)!.key);
  }
  const records = await readRecords(reads, [...members.keys()]);
  const table = new Map<string, { id: string; address: string }[]>();
  for (const record of records) {
    if (record?.kind !== 'group' || !record.isEnabled) continue;
    const group = { id: record.id, address: record.address };
    for (const member of members.get(record.id)!) {
      const known = table.get(member);
      if (known) known.push(group);
      else table.set(member, [group]);
    }
  }
  return table;
}

/** The principal that owns exactly this address; no subaddress, no catch-all. */
export async function ownerOf(reads: KvReads, parsed: ParsedAddress): Promise<PrincipalRecord | undefined> {
  const id = (await reads.get(addressKeyOf(parsed)))?.toString('latin1');
  return id === undefined ? undefined : (await readRecords(reads, [id]))[0];
}
