/** Checks blobs: heads have bytes and links, links have owners; deeply also every byte, and chunks that belong to nothing. */
import { createHash } from 'node:crypto';
import { BlobCorrupt, type BlobId, BlobMissing, type BlobOwner } from '../../blobs/contract.js';
import { isIdOf } from '../../blobs/ids.js';
import { strayObjects } from '../../blobs/inspect.js';
import { candidateKey, chunkKey, headKey, linkRange, uploadKey } from '../../blobs/keys.js';
import { type BlobHead, chunkCountOf, decodeHead, type ExternalHead, encodeSeconds, encodeUpload } from '../../blobs/records.js';
import { keyItems, key as keyOf, keysUnder, subspace } from '../../keyspace.js';
import { type KeyValue, KvError, type KvReads, type KvTransaction } from '../../kv/contract.js';
import { AccountKeys } from '../../mail/keys.js';
import { decodeMessage } from '../../mail/records.js';
import { messageKey } from '../../queue/records.js';
import { StorageIdSet } from './id-set.js';
import type { Inspection } from './inspection.js';
import { ObjectCheck } from './objects.js';

const headsPerPage = 50;
const linksPerPage = 500;
const area = 'blobs';

export async function checkBlobs(inspection: Inspection): Promise<void> {
  // Chunks first: what is linked or purged meanwhile is found among uploads or heads, which are read later.
  const storages = inspection.options.deep ? await chunkStorages(inspection) : undefined;
  const objects = new ObjectCheck(inspection);
  for await (const rows of inspection.pages(keysUnder(subspace.blob, 'head'), headsPerPage)) {
    const heads = await checkHeads(inspection, rows, storages);
    // A deep check has read them.
    if (!inspection.options.deep) await objects.check(heads);
    inspection.result.blobs += rows.length;
    inspection.progress(area, rows.length);
  }
  for await (const rows of inspection.pages(keysUnder(subspace.blob, 'link'), linksPerPage)) {
    await checkLinks(inspection, rows);
    inspection.progress(area, rows.length);
  }
  if (!storages) return;
  await checkStrayChunks(inspection, storages);
  await checkStrayObjects(inspection);
}

/** A head that this version can read. */
function readable(id: BlobId, value: Buffer): BlobHead | undefined {
  try {
    return decodeHead(id, value);
  } catch (error) {
    if (error instanceof BlobCorrupt) return undefined;
    throw error;
  }
}

/** Answers those whose bytes lie outside of the store. */
async function checkHeads(
  inspection: Inspection,
  rows: readonly KeyValue[],
  storages: StorageIdSet | undefined,
): Promise<{ id: BlobId; head: ExternalHead }[]> {
  const heads = rows.map(({ key, value }) => {
    const id = keyItems(key)[2] as string;
    return { id, key, head: readable(id, value) };
  });
  const ids = heads.map(({ id }) => id);
  const lastChunks = heads.map(({ head, key }) => (head?.layout === 'chunked' ? lastChunkKey(head) : key));
  const [candidates, links, chunks] = await inspection.read((reads) =>
    Promise.all([
      reads.getMany(ids.map(candidateKey)),
      Promise.all(ids.map((id) => firstLink(reads, id))),
      reads.getMany(lastChunks),
    ]),
  );
  for (const [at, { id, key, head }] of heads.entries()) {
    if (head?.layout === 'chunked') storages?.mark(head.storageId);
    if (!head) {
      // Damaged, or written by a newer version: its bytes may be any that seem to belong to nothing, so none is mended away.
      if (storages) inspection.note('chunks that belong to nothing were not looked for: a head could not be read');
      storages?.markAll();
      const isSo = async (tx: KvTransaction) => {
        const value = await tx.get(key);
        return value !== undefined && readable(id, value) === undefined;
      };
      await inspection.suspect({ area, where: id, problem: 'its head can not be read', isSo });
      continue;
    }
    if (!links[at] && !candidates[at]) {
      await inspection.suspect({
        area,
        where: id,
        problem: 'nobody links to it, and no purge would find it',
        isSo: async (tx) => {
          const [value, candidate] = await tx.getMany([key, candidateKey(id)]);
          return value !== undefined && !candidate && !(await firstLink(tx, id));
        },
        mend: (tx) => tx.set(candidateKey(id), encodeSeconds(nowSecondsOf(inspection))),
      });
    }
    if (!chunks[at])
      await suspectChunks(
        inspection,
        id,
        `the last of its ${chunkCountOf(head as BlobHead & { layout: 'chunked' })} chunks is missing`,
      );
    if (inspection.options.deep) await checkContent(inspection, id);
  }
  return heads.flatMap(({ id, head }) => (head?.layout === 'external' ? [{ id, head }] : []));
}

const lastChunkKey = (head: BlobHead & { layout: 'chunked' }) => chunkKey(head.storageId, Math.max(0, chunkCountOf(head) - 1));

async function firstLink(reads: KvReads, id: BlobId): Promise<boolean> {
  const { begin, end } = linkRange(id);
  return (await reads.getRange(begin, end, { limit: 1 })).length > 0;
}

function suspectChunks(inspection: Inspection, id: BlobId, problem: string): Promise<void> {
  const isSo = async (tx: KvTransaction) => {
    const value = await tx.get(headKey(id));
    const head = value && readable(id, value);
    return head?.layout === 'chunked' && !(await tx.get(lastChunkKey(head)));
  };
  return inspection.suspect({ area, where: id, problem, isSo });
}

/** Reads all bytes. */
async function checkContent(inspection: Inspection, id: BlobId): Promise<void> {
  const digestOf = async () => {
    const hash = createHash('sha256');
    for await (const bytes of inspection.options.blobs.stream(id)) hash.update(bytes);
    return hash.digest('hex');
  };
  let problem: string;
  try {
    const digest = await digestOf();
    if (isIdOf(id, digest)) return;
    problem = `its bytes have the digest ${digest}`;
  } catch (error) {
    if (error instanceof BlobMissing) return;
    if (error instanceof KvError && error.code === 'unavailable') {
      // A storage that is not there is no damage to what lies in it.
      inspection.note(`blob ${id} was not read: ${error.message}`);
      return;
    }
    if (!(error instanceof BlobCorrupt)) throw error;
    problem = error.message;
  }
  // Bytes do not change: it is so as long as the blob exists.
  await inspection.suspect({ area, where: id, problem, isSo: async (tx) => (await tx.get(headKey(id))) !== undefined });
}

async function checkLinks(inspection: Inspection, rows: readonly KeyValue[]): Promise<void> {
  const links = rows.map(({ key }) => ({ key, ...linkOf(key) }));
  const ids = [...new Set(links.map(({ id }) => id))];
  const [owners, heads] = await inspection.read((reads) =>
    Promise.all([reads.getMany(links.map(({ key, owner }) => ownerKey(owner) ?? key)), reads.getMany(ids.map(headKey))]),
  );
  const missing = new Set(ids.filter((_, at) => !heads[at]));
  for (const [at, { key, id, owner }] of links.entries()) {
    const isOwned = (value: Buffer | undefined) => value !== undefined && ownsBlob(owner, value, id);
    if (isOwned(owners[at])) {
      if (missing.has(id)) await suspectGone(inspection, key, id, describeOwner(owner));
      continue;
    }
    const traces = traceKey(owner);
    await inspection.suspect({
      area,
      where: id,
      problem: `is linked by ${describeOwner(owner)}, which does not exist`,
      isSo: async (tx) => {
        const [link, value] = await tx.getMany([key, ownerKey(owner) ?? key]);
        return link !== undefined && !isOwned(value);
      },
      // Where something of the message is left, its record was lost, and the link is the way back to its bytes.
      ...((await hasTrace(inspection, traces)) ? {} : { mend: (tx: KvTransaction) => dropLink(inspection, tx, key, id, traces) }),
    });
  }
}

async function suspectGone(inspection: Inspection, key: Buffer, id: BlobId, owner: string): Promise<void> {
  const isSo = async (tx: KvTransaction) => {
    const [link, head] = await tx.getMany([key, headKey(id)]);
    return link !== undefined && head === undefined;
  };
  await inspection.suspect({ area, where: id, problem: `its bytes are gone, and ${owner} needs them`, isSo });
}

function linkOf(packed: Buffer): { id: BlobId; owner: BlobOwner } {
  const [, , id, kind, first, second] = keyItems(packed) as [number, string, string, string, string, string];
  if (kind === 'message') return { id, owner: { kind, accountId: first, emailId: second } };
  if (kind === 'queue') return { id, owner: { kind, queueId: first } };
  return { id, owner: { kind: 'upload', accountId: first, uploadId: second } };
}

/** Uploads own themselves until their time is over. */
function ownerKey(owner: BlobOwner): Buffer | undefined {
  if (owner.kind === 'message') return new AccountKeys(owner.accountId).message(owner.emailId);
  return owner.kind === 'queue' ? messageKey(owner.queueId) : undefined;
}

function ownsBlob(owner: BlobOwner, value: Buffer, id: BlobId): boolean {
  try {
    return owner.kind !== 'message' || decodeMessage(owner.emailId, value).blobId === id;
  } catch {
    // Told where messages are looked at; a record that can't be read may well own it.
    return true;
  }
}

const describeOwner = (owner: BlobOwner): string => {
  if (owner.kind === 'message') return `message ${owner.emailId} of account ${owner.accountId}`;
  return owner.kind === 'queue' ? `queued message ${owner.queueId}` : `upload ${owner.uploadId} of account ${owner.accountId}`;
};

const traceKey = (owner: BlobOwner) =>
  owner.kind === 'message'
    ? new AccountKeys(owner.accountId).summary(owner.emailId)
    : owner.kind === 'queue'
      ? destinationsOf(owner.queueId)
      : undefined;

/** The key before the destinations of a message: there is a trace where one follows. */
const destinationsOf = (queueId: string) => keyOf(subspace.queue, 'destination', queueId);

async function hasTrace(inspection: Inspection, trace: Buffer | undefined): Promise<boolean> {
  return trace !== undefined && inspection.read((reads) => traceIn(reads, trace));
}

async function traceIn(reads: KvReads, trace: Buffer): Promise<boolean> {
  const end = Buffer.concat([trace, Buffer.of(0xff)]);
  return (await reads.getRange(trace, end, { limit: 1 })).length > 0;
}

async function dropLink(
  inspection: Inspection,
  tx: KvTransaction,
  key: Buffer,
  id: BlobId,
  trace: Buffer | undefined,
): Promise<void> {
  if (trace && (await traceIn(tx, trace))) return;
  tx.clear(key);
  tx.set(candidateKey(id), encodeSeconds(nowSecondsOf(inspection)));
}

const nowSecondsOf = (inspection: Inspection) => Math.floor(inspection.options.clock.nowMs() / 1000);

/** Storage ids that have chunks. */
async function chunkStorages(inspection: Inspection): Promise<StorageIdSet> {
  const storages = new StorageIdSet();
  const all = keysUnder(subspace.blob, 'chunk');
  for (let begin = all.begin; ; ) {
    const from = begin;
    const [row] = await inspection.read((reads) => reads.getRange(from, all.end, { limit: 1 }));
    if (!row) break;
    const storageId = keyItems(row.key)[2] as Buffer;
    storages.add(storageId);
    begin = keysUnder(subspace.blob, 'chunk', storageId).end;
    inspection.progress(area, 0);
  }
  for await (const rows of inspection.pages(keysUnder(subspace.blob, 'upload'), linksPerPage)) {
    for (const { key } of rows) storages.mark(keyItems(key)[2] as Buffer);
  }
  return storages;
}

/** Chunks under ids that neither an upload nor a head knew. */
async function checkStrayChunks(inspection: Inspection, storages: StorageIdSet): Promise<void> {
  for (const storageId of storages.unmarked()) {
    const { begin, end } = keysUnder(subspace.blob, 'chunk', storageId);
    const [last] = await inspection.read((reads) => reads.getRange(begin, end, { limit: 1, reverse: true }));
    if (!last) continue;
    const count = (keyItems(last.key)[3] as number) + 1;
    await inspection.suspect({
      area,
      where: storageId.toString('hex'),
      problem: `its chunks, up to ${count}, belong to nothing`,
      isSo: async (tx) => {
        const [upload, rows] = await Promise.all([tx.get(uploadKey(storageId)), tx.getRange(begin, end, { limit: 1 })]);
        return !upload && rows.length > 0;
      },
      // Nothing can ever link them: chunks come with their head or with an upload, in one transaction.
      mend: (tx) =>
        tx.set(
          uploadKey(storageId),
          encodeUpload({ state: 'garbage', sinceSeconds: nowSecondsOf(inspection), place: 'store', chunkCount: count }),
        ),
    });
  }
}

async function checkStrayObjects(inspection: Inspection): Promise<void> {
  const storages = inspection.options.blobs.storages();
  if (storages.length === 0) return;
  for await (const stray of strayObjects(inspection.kv, storages, { nowMs: inspection.options.clock.nowMs() })) {
    inspection.note(`${stray.storage.place}: object ${stray.storageId} belongs to nothing`);
  }
}
