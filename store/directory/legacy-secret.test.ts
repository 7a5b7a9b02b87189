/** What accounts keep for CRAM-MD5 and DIGEST-MD5: only where they are switched to it, under seal, and never at the cost of the password. */
import { createHash, createHmac, randomBytes } from 'node:crypto';
import { Packr } from 'msgpackr';
import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { type MemoryStore, openMemoryStore } from '../kv/index.js';
import { createSealer } from '../settings/index.js';
import { createDirectory } from './directory.js';
import { finishHmacMd5 } from './hmac-md5-state.js';
import { accountKey } from './keys.js';
import { digestHa1, digestRealm } from './legacy-secret.js';

const secret = 'correct horse';
const alice = 'alice@example.test';
const [key, otherKey] = [randomBytes(32), randomBytes(32)];
const open = (kv: MemoryStore, keys: Uint8Array[] = [key]) =>
  createDirectory({
    kv,
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
    sealer: createSealer(keys, systemRandom),
  });

async function bench() {
  const kv = openMemoryStore();
  const directory = open(kv);
  await directory.createDomain('example.test');
  return { kv, directory };
}

const read = (kv: MemoryStore, id: string) => kv.read((reads) => reads.get(accountKey(id)));

describe('a legacy secret', () => {
  it('is kept only where it is asked for, from one password to the next, until it is dropped', async () => {
    const { directory } = await bench();
    const plain = await directory.createPrincipal({ kind: 'account', address: alice, password: secret });
    expect(plain).not.toHaveProperty('keepsLegacySecret');
    expect(await directory.legacySecret(alice)).toBeUndefined();
    await directory.setPassword(alice, secret);
    expect(await directory.legacySecret(alice)).toBeUndefined();

    await directory.setPassword(alice, secret, { keepsLegacySecret: true });
    expect(await directory.principal(alice)).toMatchObject({ keepsLegacySecret: true });
    await directory.setPassword(alice, 'another horse');
    await directory.updatePrincipal(alice, { displayName: 'Alice', aliases: ['al@example.test'] });
    const found = await directory.legacySecret('AL@example.test');
    const wanted = createHmac('md5', 'another horse').update('<1@x>').digest('hex');
    expect(finishHmacMd5(found!.hmacMd5State, Buffer.from('<1@x>')).toString('hex')).toBe(wanted);
    expect(found!.digestHa1.equals(createHash('md5').update(`${alice}:${digestRealm}:another horse`).digest())).toBe(true);
    expect(found!.accountId).toBe(plain.id);

    await directory.dropLegacySecret(alice);
    await directory.dropLegacySecret(alice);
    expect(await directory.legacySecret(alice)).toBeUndefined();
    expect(await directory.verifyPassword(alice, 'another horse')).toMatchObject({ ok: true });
    await directory.setPassword(alice, secret, { keepsLegacySecret: true });
    await directory.setPassword(alice, secret, { keepsLegacySecret: false });
    expect(await directory.legacySecret(alice)).toBeUndefined();
    expect(await directory.legacySecret('nobody@example.test')).toBeUndefined();
  });

  it('is made with the account, of a password, where the directory has a seal', async () => {
    const { directory, kv } = await bench();
    const account = { kind: 'account', address: alice, keepsLegacySecret: true } as const;
    await expect(directory.createPrincipal(account)).rejects.toMatchObject({ code: 'weak-password' });
    const unsealed = createDirectory({ kv, clock: systemClock, random: systemRandom, logger: silentLogger });
    await expect(unsealed.createPrincipal({ ...account, password: secret })).rejects.toMatchObject({ code: 'not-supported' });
    await directory.createPrincipal({ ...account, password: secret });
    expect(await directory.legacySecret(alice)).toBeDefined();
    expect(await unsealed.legacySecret(alice)).toBeUndefined();
    await expect(unsealed.setPassword(alice, secret)).rejects.toMatchObject({ code: 'not-supported' });
  });

  it('does not lie in the store in plain', async () => {
    const { directory, kv } = await bench();
    const { id } = await directory.createPrincipal({
      kind: 'account',
      address: alice,
      password: secret,
      keepsLegacySecret: true,
    });
    const found = await directory.legacySecret(alice);
    const record = (await read(kv, id))!;
    expect(record.includes(found!.digestHa1)).toBe(false);
    expect(record.includes(found!.hmacMd5State.subarray(0, 16))).toBe(false);
    expect(record.includes(secret)).toBe(false);
  });

  it('is lost, and only it, when a node of the release before writes the record', async () => {
    const { directory, kv } = await bench();
    const { id } = await directory.createPrincipal({
      kind: 'account',
      address: alice,
      password: secret,
      keepsLegacySecret: true,
    });
    const packr = new Packr({ useRecords: false });
    // The release before: it takes the first three of the credential's fields, and writes as many.
    const fields = packr.unpack((await read(kv, id))!) as unknown[];
    expect(fields[0]).toBe(1);
    expect(fields).toHaveLength(11);
    const credential = fields[9] as unknown[];
    expect(credential).toHaveLength(4);
    fields[9] = credential.slice(0, 3);
    await kv.transact(async (tx) => tx.set(accountKey(id), packr.pack(fields)));
    expect(await directory.verifyPassword(alice, secret)).toMatchObject({ ok: true });
    expect(await directory.scramSecret(alice)).toBeDefined();
    expect(await directory.legacySecret(alice)).toBeUndefined();
  });

  it('goes to a new cluster key, and is nothing but missing under a wrong one', async () => {
    const { directory, kv } = await bench();
    const { id } = await directory.createPrincipal({
      kind: 'account',
      address: alice,
      password: secret,
      keepsLegacySecret: true,
    });
    await directory.createPrincipal({ kind: 'account', address: 'bob@example.test', password: secret });
    expect(await directory.resealSecrets()).toBe(0);
    const before = await read(kv, id);
    const both = open(kv, [otherKey, key]);
    expect(await both.resealSecrets()).toBe(1);
    expect(await both.resealSecrets()).toBe(0);
    expect((await read(kv, id))!.equals(before!)).toBe(false);
    expect(await open(kv, [otherKey]).legacySecret(alice)).toBeDefined();
    expect(await directory.legacySecret(alice)).toBeUndefined();
    expect(await directory.verifyPassword(alice, secret)).toMatchObject({ ok: true });
  });

  it('hashes as RFC 2831 2.1.2.1 says: ISO 8859-1 where that can hold the text, else UTF-8', () => {
    const md5 = (text: Buffer) => createHash('md5').update(text).digest();
    expect(digestHa1('\u00e9', 'r', '\u00fc')).toEqual(md5(Buffer.from('\u00e9:r:\u00fc', 'latin1')));
    expect(digestHa1('\u00e9', 'r', '\u20ac')).toEqual(
      md5(Buffer.concat([Buffer.from('\u00e9:r:', 'latin1'), Buffer.from('\u20ac')])),
    );
  });
});
