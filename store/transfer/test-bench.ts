/** What the tests of this folder stand on: an installation with accounts, mail, uploads and a queue in all its states, on any store. */
import { type Clock, silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { type BlobStore, createBlobStore } from '../blobs/index.js';
import { createDirectory, type Directory } from '../directory/index.js';
import { key, keyItems, subspace } from '../keyspace.js';
import { type KeyValue, type KvStore, openMemoryStore } from '../kv/index.js';
import { createMailStore, type OpenMailStore } from '../mail/index.js';
import { createQueue, type NodeIdentity, type Queue } from '../queue/index.js';
import { raiseFence } from '../queue/test-fences.js';
import type { BackupSink, BackupSource } from './places.js';
import { isTransferred, wholeSpace } from './spaces.js';

export interface House {
  kv: KvStore;
  blobs: BlobStore;
  mail: OpenMailStore;
  directory: Directory;
  queue: Queue;
}

export const nowSeconds = 1_800_000_000;
export const oldNode: NodeIdentity = { nodeId: 'a'.repeat(32), incarnation: 1 };

export function openHouse(kv: KvStore): House {
  const parts = { kv, clock: systemClock, random: systemRandom, logger: silentLogger };
  const blobs = createBlobStore(parts);
  return {
    kv,
    blobs,
    mail: createMailStore({ ...parts, blobs }),
    directory: createDirectory(parts),
    queue: createQueue({ ...parts, blobs }),
  };
}

/** Never waits, so that backoff takes no time. */
export const impatientClock: Clock = { ...systemClock, sleep: async () => {} };

/** Accounts alice and bob with `messages` messages each, a group, large and small blobs, and queued messages that are due, claimed and held. */
export async function furnish(house: House, messages = 20, largeBytes = 300_000): Promise<{ accountIds: string[] }> {
  const { kv, blobs, mail, directory, queue } = house;
  await kv.transact(async (tx) => {
    tx.set(key(subspace.meta, 'secret', 'scram-fake-salt'), systemRandom.bytes(32));
    tx.set(key(subspace.settings, 'current'), Buffer.from('settings'));
  });
  await directory.createDomain('example.test');
  const accountIds: string[] = [];
  for (const name of ['alice', 'bob']) {
    const { id } = await directory.createPrincipal({
      kind: 'account',
      address: `${name}@example.test`,
      aliases: [`${name[0]!}@example.test`],
    });
    accountIds.push(id);
    await mail.ensureAccount(id);
    const inbox = (await mail.mailboxByPath(id, ['INBOX']))!.mailbox.id;
    const archive = (await mail.createMailbox(id, ['Work', 'Archive'])).id;
    for (let n = 0; n < messages; n++) {
      const body = Buffer.from(`Subject: message ${n} of ${name}\r\n\r\n${'text '.repeat(n * 37)}\r\n`);
      await mail.append(id, [
        {
          // Both kinds of ids.
          blob: blobs.prepare(body, { isUnique: n % 4 < 2 }),
          mailboxIds: n % 3 === 0 ? [inbox, archive] : [inbox],
          receivedAtMs: 1_700_000_000_000 + n,
          summary: Buffer.from(`summary ${n}`),
          messageIds: [`${n}@${name}`, ...(n % 2 ? [`${n - 1}@${name}`] : [])],
          keywords: n % 2 ? ['$seen'] : [],
        },
      ]);
    }
    const writer = blobs.writer();
    await writer.write(systemRandom.bytes(largeBytes));
    const large = await writer.finish();
    await mail.append(id, [
      { blob: large, mailboxIds: [archive], receivedAtMs: 1, summary: Buffer.from('large'), messageIds: [] },
    ]);
    if (messages > 3) await mail.expunge(id, inbox, [2], { onlyDeleted: false });
  }
  await directory.createPrincipal({
    kind: 'group',
    address: 'all@example.test',
    members: ['alice@example.test', 'bob@example.test'],
  });
  await raiseFence(kv, oldNode);
  for (const [n, claimFor] of [undefined, oldNode, undefined].entries()) {
    const id = queue.newId();
    await kv.transact((tx) =>
      queue.enqueue(
        tx,
        {
          id,
          blob: blobs.prepare(Buffer.from(`queued ${n}`)),
          relayOffsetBytes: 0,
          from: 'alice@example.test',
          receivedAtMs: nowSeconds * 1000,
          expiresAtMs: nowSeconds * 1000 + 86_400_000,
          isUtf8: false,
          body: '7BIT',
          priority: 0,
          source: { protocol: 'submission' },
          destinations: ['one.example', 'two.example'].map((domain) => ({
            domain,
            isLocal: false,
            recipients: [{ address: `x${n}@${domain}` }],
          })),
        },
        { nowSeconds, claimFor },
      ),
    );
    if (n === 2) await queue.hold(id);
  }
  return { accountIds };
}

export async function allRows(kv: KvStore): Promise<KeyValue[]> {
  return kv.read((reads) => reads.getRange(wholeSpace.begin, wholeSpace.end));
}

/** Rows that go with the installation, as text, without what freeing claims changes. */
export async function comparableRows(kv: KvStore): Promise<string[]> {
  const changing = ['claim', 'destination', 'due', 'receipt'].map((table) => key(subspace.queue, table));
  return (await allRows(kv))
    .filter((row) => isTransferred(row.key) && !changing.some((prefix) => row.key.subarray(0, prefix.length).equals(prefix)))
    .map((row) => `${row.key.toString('hex')}=${row.value.toString('hex')}`);
}

/** The same without what a restore moves ahead in every account. */
export async function restoredRows(kv: KvStore): Promise<string[]> {
  const moved = (await allRows(kv))
    .filter(({ key: packed }) => packed[1] === subspace.mail && movedTables.has(String(keyItems(packed)[2])))
    .map((row) => `${row.key.toString('hex')}=`);
  return (await comparableRows(kv)).filter((row) => !moved.some((prefix) => row.startsWith(prefix)));
}

const movedTables = new Set(['state', 'counts', 'log', 'log-floor']);

export const emptyStore = (): ReturnType<typeof openMemoryStore> => openMemoryStore({ clock: impatientClock });

/** Keeps a backup in memory. */
export class MemorySink implements BackupSink {
  readonly name = 'memory';
  readonly #parts: Buffer[] = [];
  state: 'open' | 'finished' | 'aborted' = 'open';

  async write(bytes: Uint8Array): Promise<void> {
    this.#parts.push(Buffer.from(bytes));
  }
  async finish(): Promise<void> {
    this.state = 'finished';
  }
  async abort(): Promise<void> {
    this.state = 'aborted';
  }
  get bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

export function memorySource(bytes: Buffer, isRepeatable = true, chunkBytes = 10_000): BackupSource {
  return {
    name: 'memory',
    isRepeatable,
    async *open() {
      for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
    },
    sizeBytes: async () => bytes.length,
  };
}
