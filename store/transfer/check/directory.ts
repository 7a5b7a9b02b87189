/** Checks the directory: addresses lead to accounts that have them, and the other way round. */
import { tryParseAddress } from '../../directory/addresses.js';
import { accountKey, accountRange, addressKeyOf, domainKey, generationKey, lastItem } from '../../directory/keys.js';
import { decodePrincipal, type PrincipalRecord } from '../../directory/records.js';
import { keyItems, keysUnder, subspace } from '../../keyspace.js';
import type { KvReads, KvTransaction } from '../../kv/contract.js';
import { AccountKeys } from '../../mail/keys.js';
import type { Inspection } from './inspection.js';

const rowsPerPage = 200;
const removalGraceMs = 2_000;
const area = 'directory';

/** Every mend is a change of the directory that nodes must hear of. */
function changed(mend: (tx: KvTransaction) => void): (tx: KvTransaction) => void {
  return (tx) => {
    tx.add(generationKey, 1n);
    mend(tx);
  };
}

export async function checkDirectory(inspection: Inspection): Promise<void> {
  await checkAccounts(inspection);
  await checkAddresses(inspection);
  await checkOwners(inspection, 'members', 'members of an unknown group or list');
  await checkOwners(inspection, 'admin', "administrator's rights of an unknown account");
  await checkMailOwners(inspection);
}

const addressesOf = ({ address, aliases }: PrincipalRecord) => [address, ...aliases];

async function checkAccounts(inspection: Inspection): Promise<void> {
  for await (const rows of inspection.pages(accountRange(), rowsPerPage)) {
    for (const { key, value } of rows) {
      const record = inspection.readable(area, lastItem(key), () => decodePrincipal(lastItem(key), value));
      if (record) await checkAddressesOf(inspection, record);
    }
    inspection.progress(area, rows.length);
  }
}

async function checkAddressesOf(inspection: Inspection, record: PrincipalRecord): Promise<void> {
  const parsed = addressesOf(record).map((address) => ({ address, parsed: tryParseAddress(address) }));
  const known = parsed.flatMap((one) => (one.parsed ? [{ address: one.address, parsed: one.parsed }] : []));
  const [rows, domains] = await inspection.read((reads) =>
    Promise.all([
      reads.getMany(known.map((one) => addressKeyOf(one.parsed))),
      reads.getMany(known.map((one) => domainKey(one.parsed.domain))),
    ]),
  );
  for (const [at, { address, parsed: where }] of known.entries()) {
    const rowKey = addressKeyOf(where);
    const stillHas = async (reads: KvReads) => {
      const value = await reads.get(accountKey(record.id));
      return value !== undefined && addressesOf(decodePrincipal(record.id, value)).includes(address);
    };
    if (!rows[at]) {
      await inspection.suspect({
        area,
        where: address,
        problem: `belongs to ${record.id}, but mail for it is not found`,
        isSo: async (tx) => !(await tx.get(rowKey)) && (await stillHas(tx)),
        mend: changed((tx) => tx.set(rowKey, Buffer.from(record.id, 'latin1'))),
      });
    } else if (rows[at].toString('latin1') !== record.id) {
      await inspection.suspect({
        area,
        where: address,
        problem: `belongs to ${record.id}, but leads to ${rows[at].toString('latin1')}`,
        isSo: async (tx) => (await tx.get(rowKey))?.toString('latin1') !== record.id && (await stillHas(tx)),
      });
    }
    if (!domains[at]) {
      await inspection.suspect({
        area,
        where: address,
        problem: 'its domain is unknown',
        isSo: async (tx) => !(await tx.get(domainKey(where.domain))) && (await stillHas(tx)),
      });
    }
  }
}

/** True also of a record that can't be read: that is told where accounts are looked at. */
function hasAddress(id: string, record: Buffer, address: string): boolean {
  try {
    return addressesOf(decodePrincipal(id, record)).includes(address);
  } catch {
    return true;
  }
}

async function checkAddresses(inspection: Inspection): Promise<void> {
  for await (const rows of inspection.pages(keysUnder(subspace.directory, 'address'), rowsPerPage)) {
    const owners = await inspection.read((reads) => reads.getMany(rows.map(({ value }) => accountKey(value.toString('latin1')))));
    for (const [at, { key, value }] of rows.entries()) {
      const [, , domain, local] = keyItems(key) as [number, string, string, string];
      const id = value.toString('latin1');
      const address = `${local}@${domain}`;
      const hasIt = (record: Buffer | undefined) => record !== undefined && hasAddress(id, record, address);
      if (hasIt(owners[at])) continue;
      await inspection.suspect({
        area,
        where: address,
        problem: `leads to ${id}, which ${owners[at] ? 'does not have it' : 'does not exist'}`,
        isSo: async (tx) => {
          const [row, owner] = await tx.getMany([key, accountKey(id)]);
          return row?.toString('latin1') === id && !hasIt(owner);
        },
        mend: changed((tx) => tx.clear(key)),
      });
    }
    inspection.progress(area, rows.length);
  }
}

async function checkOwners(inspection: Inspection, table: 'members' | 'admin', problem: string): Promise<void> {
  for await (const rows of inspection.pages(keysUnder(subspace.directory, table), rowsPerPage)) {
    const owners = rows.map(({ key }) => keyItems(key)[2] as string);
    const records = await inspection.read((reads) => reads.getMany(owners.map(accountKey)));
    for (const [at, { key }] of rows.entries()) {
      if (records[at]) continue;
      await inspection.suspect({
        area,
        where: owners[at]!,
        problem,
        isSo: async (tx) => {
          const [row, record] = await tx.getMany([key, accountKey(owners[at]!)]);
          return row !== undefined && record === undefined;
        },
        mend: changed((tx) => tx.clear(key)),
      });
    }
    inspection.progress(area, rows.length);
  }
}

/** Mail of accounts that the directory does not know, unless it is on its way out. */
async function checkMailOwners(inspection: Inspection): Promise<void> {
  for await (const accountId of mailAccounts(inspection)) {
    const keys = new AccountKeys(accountId);
    const isOwnerless = async (reads: KvReads) => {
      const [record, mail, removing] = await reads.getMany([accountKey(accountId), keys.state, keys.removal('')]);
      return !record && mail !== undefined && !removing;
    };
    if (!(await inspection.read(isOwnerless))) continue;
    // An account that is being removed loses its name a moment before its mail.
    await inspection.options.clock.sleep(removalGraceMs);
    await inspection.suspect({ area, where: accountId, problem: 'has mail, but no account in the directory', isSo: isOwnerless });
  }
}

/** Every account that has anything in the mail subspace, ascending. */
export async function* mailAccounts(inspection: Inspection): AsyncGenerator<string, void, undefined> {
  const all = keysUnder(subspace.mail);
  for (let begin = all.begin; ; ) {
    const from = begin;
    const [row] = await inspection.read((reads) => reads.getRange(from, all.end, { limit: 1 }));
    if (!row) return;
    const accountId = keyItems(row.key)[1] as string;
    yield accountId;
    begin = keysUnder(subspace.mail, accountId).end;
  }
}
