/** What the tests of this room share: a mail store on a fresh memory or embedded store with real blobs, and quick ways to fill it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Clock, silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { type BlobStore, createBlobStore } from '../blobs/index.js';
import { keyItems, keysUnder, subspace } from '../keyspace.js';
import { type KvStore, type MemoryFaultOptions, openEmbeddedStore, openMemoryStore } from '../kv/index.js';
import { createMailStore, type MailboxId, type MailStoreOptions, type NewMessage, type OpenMailStore } from './index.js';

export const testBackends = ['memory', 'embedded'] as const;
export type TestBackend = (typeof testBackends)[number];

export interface Room {
  kv: KvStore;
  blobs: BlobStore;
  mail: OpenMailStore;
  close(): Promise<void>;
}

export async function openRoom(
  backend: TestBackend,
  options: {
    faults?: MemoryFaultOptions;
    clock?: Clock;
    indexCacheBytes?: number;
    indexSnapshots?: MailStoreOptions['indexSnapshots'];
    flagRanges?: MailStoreOptions['flagRanges'];
    mayWriteFlagRanges?: () => boolean;
  } = {},
): Promise<Room> {
  const directory = backend === 'embedded' ? mkdtempSync(join(tmpdir(), 'starling-mail-')) : undefined;
  const kv = directory
    ? await openEmbeddedStore({ directory, durability: 'none' })
    : openMemoryStore(options.faults ? { faults: options.faults } : {});
  const shared = { kv, clock: options.clock ?? systemClock, random: systemRandom, logger: silentLogger };
  const blobs = createBlobStore(shared);
  const mail = createMailStore({
    ...shared,
    blobs,
    ...(options.indexCacheBytes === undefined ? {} : { indexCacheBytes: () => options.indexCacheBytes! }),
    ...(options.indexSnapshots && { indexSnapshots: options.indexSnapshots }),
    ...(options.flagRanges && { flagRanges: options.flagRanges }),
    ...(options.mayWriteFlagRanges && { mayWriteFlagRanges: options.mayWriteFlagRanges }),
  });
  const close = async () => {
    await mail.close();
    await kv.close();
    if (directory) rmSync(directory, { recursive: true, force: true });
  };
  return { kv, blobs, mail, close };
}

/** A message whose content is `text` (so that equal texts share a blob). */
export function newMessage(
  room: Pick<Room, 'blobs'>,
  mailboxIds: readonly MailboxId[],
  text: string,
  more: Partial<NewMessage> = {},
): NewMessage {
  return {
    blob: room.blobs.prepare(Buffer.from(text)),
    mailboxIds,
    receivedAtMs: 1_700_000_000_000,
    summary: Buffer.from(`summary of ${text}`),
    messageIds: [],
    ...more,
  };
}

export async function mailboxId(room: Pick<Room, 'mail'>, accountId: string, ...path: string[]): Promise<MailboxId> {
  const found = await room.mail.mailboxByPath(accountId, path);
  if (!found) throw new Error(`no mailbox ${path.join('/')}`);
  return found.mailbox.id;
}

/** All rows under an account's part of the mail subspace, by the name of their table. */
export async function rowsOf(kv: KvStore, accountId: string): Promise<Map<string, number>> {
  const { begin, end } = keysUnder(subspace.mail, accountId);
  const rows = await kv.read((reads) => reads.getRange(begin, end));
  const counts = new Map<string, number>();
  for (const row of rows) {
    const name = String(keyItems(row.key)[2]);
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return counts;
}

/** `blobId/emailId` of each link that messages of this account have, sorted. */
export async function blobLinks(kv: KvStore, accountId: string): Promise<string[]> {
  const { begin, end } = keysUnder(subspace.blob, 'link');
  const rows = await kv.read((reads) => reads.getRange(begin, end));
  return rows
    .map((row) => keyItems(row.key))
    .filter((items) => items[3] === 'message' && items[4] === accountId)
    .map((items) => `${String(items[2])}/${String(items[5])}`)
    .sort();
}

/** Resolves once `condition` holds; fails after a generous time. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let turn = 0; turn < 60_000; turn++) {
    if (await condition()) return;
    await systemClock.sleep(5);
  }
  throw new Error('the condition was never met');
}
