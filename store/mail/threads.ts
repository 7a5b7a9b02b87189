/**
 * Which thread a message belongs to. A hash of each of its message ids leads to a thread; the first known one decides, those unknown
 * are written. Threads are never merged, so an id that was given stays (TRAPS 34). Each message's thread row holds the hashes it answers for:
 * they go to another message of the thread when it goes, and away with the last.
 */
import type { KvTransaction } from '../kv/contract.js';
import type { EmailId, ThreadId } from './contract.js';
import { referenceHashBytes } from './ids.js';
import type { AccountKeys } from './keys.js';

/** Hashes that one thread row may answer for; a thread with more forgets the latest. */
const maxInheritedBytes = 1_000 * referenceHashBytes;

/** The thread of these hashes (own message id first) and those hashes that have to be written. */
export function findThread(
  known: ReadonlyMap<string, ThreadId | undefined>,
  hashes: readonly Buffer[],
  emailId: EmailId,
): { threadId: ThreadId; missing: Buffer[] } {
  let threadId: ThreadId | undefined;
  const missing: Buffer[] = [];
  for (const hash of hashes) {
    const found = known.get(hash.toString('latin1'));
    if (found === undefined) missing.push(hash);
    else threadId ??= found;
  }
  return { threadId: threadId ?? emailId, missing };
}

/** The value of a thread row: the hashes for which the message answers, end to end. */
export function threadRowValue(hashes: readonly Buffer[]): Buffer {
  return Buffer.concat(hashes);
}

/** The hashes of a thread row. */
export function hashesOf(value: Buffer): Buffer[] {
  const hashes: Buffer[] = [];
  for (let at = 0; at + referenceHashBytes <= value.length; at += referenceHashBytes) {
    hashes.push(value.subarray(at, at + referenceHashBytes));
  }
  return hashes;
}

/** Takes destroyed messages out of their threads; references go to a message that stays, or away with the thread. */
export async function removeFromThreads(
  tx: KvTransaction,
  keys: AccountKeys,
  messages: readonly { id: EmailId; threadId: ThreadId }[],
): Promise<void> {
  if (messages.length === 0) return;
  const rowKeys = messages.map((message) => keys.thread(message.threadId, message.id));
  const values = await tx.snapshot.getMany(rowKeys);
  const orphans = new Map<ThreadId, Buffer[]>();
  messages.forEach(({ threadId }, place) => {
    tx.clear(rowKeys[place]!);
    const hashes = orphans.get(threadId) ?? [];
    const value = values[place];
    if (value && value.length > 0) hashes.push(value);
    orphans.set(threadId, hashes);
  });
  await Promise.all([...orphans].map(([threadId, hashes]) => bequeath(tx, keys, threadId, Buffer.concat(hashes))));
}

async function bequeath(tx: KvTransaction, keys: AccountKeys, threadId: ThreadId, orphaned: Buffer): Promise<void> {
  if (orphaned.length === 0) return;
  const { begin, end } = keys.threadRange(threadId);
  const [heir] = await tx.snapshot.getRange(begin, end, { limit: 1 });
  let lost = orphaned;
  if (heir) {
    const room = Math.max(0, maxInheritedBytes - heir.value.length);
    tx.set(heir.key, Buffer.concat([heir.value, orphaned.subarray(0, room)]));
    lost = orphaned.subarray(room);
  }
  for (const hash of hashesOf(lost)) tx.clear(keys.reference(hash));
}
