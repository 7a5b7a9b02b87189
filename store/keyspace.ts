/**
 * The one table of all keys. Keys are tuples (`fdb-tuple`); the first element is the subspace. Record values are msgpack arrays that begin
 * with a format version, or fixed-width bytes where said so.
 *
 * | key | value | written by | purged by |
 * |-|-|-|-|
 * | meta, name | small record | first start, upgrades | never |
 * | meta, 'transfer' | what a copy or restore into this store has done so far; no node starts while it is there | copy, restore | its own end |
 * | meta, 'transfer-blobs' | what such a copy or restore has claimed outside the store | copy, restore | its own end |
 * | meta, 'moved' | this store was copied elsewhere and shares its blobs with the copy; no node starts on it | copy | never |
 * | meta, 'secret', name | 32 random bytes of this installation | first use | never |
 * | meta, 'sealed-secret', name | 32 random bytes of this installation, sealed with the cluster key (`gossip`: what nodes know one another by) | first use, reseal | never |
 * | node, 'row', nodeId | node row: addresses, roles, formats, heartbeat | that node, first together with its fence | that node when it leaves; else whoever declares it dead, after its claims are free |
 * | node, 'fence', nodeId | empty: stands as long as the node may save | that node at start, together with its row | that node when it leaves; else whoever declares it dead, first of all |
 * | node, 'request', nodeId | empty: an operator wants this node to drain | `node drain ID` on any node | with the row |
 * | node, 'lease', job | holder, epoch, renewals of a job that one node does for all | its holder, and who takes it over | never: the epoch only rises |
 * | directory, 'domain', name | domain record | administration | domain removal |
 * | directory, 'account', accountId | account, group or list | administration | account removal |
 * | directory, 'address', domain, local part | accountId | with its account | with its account |
 * | directory, 'members', id, part | members of a group or list | with its record | with its record |
 * | directory, 'admin', id | empty: an account with administrator's rights | with its account | with its account |
 * | directory, 'generation' | 8-byte counter, raised by every directory write | atomic add | never |
 * | blob, 'head', blobId | size, where the bytes lie (here, files, S3), storage id, chunk lengths, compression, tombstone | first link | purge |
 * | blob, 'chunk', storageId, n | bytes | blob writer | purge |
 * | blob, 'link', blobId, kind, owner… | empty; of uploads the time (s) at which it ends | the owner's transaction | the owner's transaction |
 * | blob, 'expiry', due (s), blobId, account, uploadId | empty | link of an upload | purge |
 * | blob, 'upload', storageId | started (s), state, place, chunks; also the list of what to remove | blob writer, purge | first link, or purge |
 * | blob, 'storage', place | mark of the files or the bucket that this installation uses | first use | never |
 * | blob, 'candidate', blobId | generation (s) at which the last link may have gone | unlink | purge |
 * | mail, account, 'state' | modseq, used bytes, messages, uidvalidity seed | each change | account removal |
 * | mail, account, 'mailbox', mailboxId | mailbox record | mailbox changes | mailbox removal |
 * | mail, account, 'name', parentId, name | mailboxId | mailbox changes | mailbox removal |
 * | mail, account, 'counts', mailboxId | uidnext, totals, highest modseq, UIDVALIDITY | each change in the mailbox | mailbox removal |
 * | mail, account, 'message', emailId | blob, size, dates, thread, keywords, mailboxes | insert, flags, copy | last expunge |
 * | mail, account, 'summary', emailId | envelope and structure (opaque here) | insert | last expunge |
 * | mail, account, 'entry', mailboxId, uid | email, \Deleted, modseq and a copy of the small facts | insert, flags, copy | expunge |
 * | mail, account, 'log', modseq (, part) | what changed at this modseq; longer lists go on in parts | each change | log truncation |
 * | mail, account, 'log-floor' | modseq up to which the log is gone; UIDVALIDITY seed, for an account that is made again | log truncation (same transaction), account removal | never: it outlives the account |
 * | mail, account, 'thread', threadId, emailId | 8-byte hashes of the references that the message answers for | insert | last expunge |
 * | mail, account, 'reference', hash | threadId | insert | thread's last expunge (lazily) |
 * | mail, account, 'removal', mailboxId | a removed mailbox whose entries are still being cleared; mailboxId '': the whole account | mailbox or account removal | its own end |
 * | queue, 'message', queueId | message record | enqueue | last destination done |
 * | queue, 'destination', queueId, domain, part | recipients, claim, attempts | enqueue, claim, save | done |
 * | queue, 'due', shard, due (s), queueId, domain, part | empty | enqueue, release, reschedule | claim |
 * | queue, 'claim', nodeId, queueId, domain, part | claim epoch | claim | save, release, takeover |
 * | queue, 'receipt', queueId | empty | enqueue without a claim; takeover or release of a claim by birth; cancel | forgetReceipts, an hour later |
 * | settings, 'head' | version, generation, floor, section to the version that wrote it last; nodes watch it | every change of settings | never |
 * | settings, 'version', version | when, who, comment, changes (secrets masked), section to version | a change | 200 versions later |
 * | settings, 'section', name, version | contents as they were set; secrets sealed, as bytes | a change of the section | with the last version that names it |
 * | settings, 'key-check' | a known text sealed with the cluster key | first start, reseal | never |
 */
import { unpack } from 'fdb-tuple';
import { kvLimits, prefixEnd } from './kv/contract.js';

/** First elements of keys; never renumbered. */
export const subspace = { meta: 1, node: 2, directory: 3, blob: 4, mail: 5, queue: 6, settings: 7, search: 8 } as const;

export type KeyItem = string | number | Uint8Array;

// Keys are packed into one scratch buffer by this writer of ours (the library's takes several times longer, and each message packs dozens of keys);
// the encoding is FoundationDB's tuple layer to the byte, which the tests hold against the library.
const scratch = Buffer.allocUnsafe(2 * kvLimits.maxKeyBytes + 1024);
const maxShortString = 64;
const tupleBytes = 0x01;
const tupleString = 0x02;
const tupleIntZero = 0x14;

function writeNumber(value: number, at: number): number {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`a key holds integers from 0 to 2^53-1, not ${value}`);
  if (value === 0) {
    scratch[at] = tupleIntZero;
    return at + 1;
  }
  let length = 1;
  for (let rest = value; rest > 0xff; rest = Math.floor(rest / 256)) length++;
  scratch[at] = tupleIntZero + length;
  let rest = value;
  for (let index = at + length; index > at; index--) {
    scratch[index] = rest % 256;
    rest = Math.floor(rest / 256);
  }
  return at + 1 + length;
}

/** Writes bytes already in scratch at `from..to` in escaped form (0x00 becomes 0x00 0xff) and the closing 0x00. */
function escapeZeros(from: number, to: number): number {
  const firstZero = scratch.subarray(from, to).indexOf(0);
  if (firstZero >= 0) {
    const raw = Buffer.from(scratch.subarray(from, to));
    to = from;
    for (const byte of raw) {
      scratch[to++] = byte;
      if (byte === 0) scratch[to++] = 0xff;
    }
  }
  scratch[to] = 0;
  return to + 1;
}

function writeItem(item: KeyItem, at: number): number {
  if (typeof item === 'number') return writeNumber(item, at);
  if (typeof item === 'string') {
    if (item.length * 3 + at > scratch.length / 2) throw new RangeError('key too long');
    scratch[at] = tupleString;
    if (item.length <= maxShortString) {
      // Names and ids are short ASCII: a plain loop beats the call into native code.
      let to = at + 1;
      let index = 0;
      for (; index < item.length; index++) {
        const code = item.charCodeAt(index);
        if (code === 0 || code > 0x7f) break;
        scratch[to++] = code;
      }
      if (index === item.length) {
        scratch[to] = 0;
        return to + 1;
      }
    }
    return escapeZeros(at + 1, at + 1 + scratch.write(item, at + 1, 'utf8'));
  }
  if (item.length + at > scratch.length / 2) throw new RangeError('key too long');
  scratch[at] = tupleBytes;
  scratch.set(item, at + 1);
  return escapeZeros(at + 1, at + 1 + item.length);
}

/** A key from its tuple. Integers sort numerically, strings by UTF-8 bytes, a shorter tuple before a longer one. */
export function key(...items: KeyItem[]): Buffer {
  let at = 0;
  for (const item of items) at = writeItem(item, at);
  const packed = Buffer.allocUnsafe(at);
  if (at <= maxShortString) for (let index = 0; index < at; index++) packed[index] = scratch[index]!;
  else scratch.copy(packed, 0, 0, at);
  return packed;
}

/** The tuple of a key. Byte elements come back as Buffers. */
export function keyItems(packed: Uint8Array): KeyItem[] {
  return unpack(Buffer.isBuffer(packed) ? packed : Buffer.from(packed)) as KeyItem[];
}

export interface KeyRange {
  begin: Buffer;
  end: Buffer;
}

/** All keys whose tuple begins with these items and has at least one more. */
export function keysUnder(...items: KeyItem[]): KeyRange {
  const prefix = key(...items);
  return { begin: Buffer.concat([prefix, zero]), end: Buffer.concat([prefix, last]) };
}

const zero = Buffer.from([0x00]);
const last = Buffer.from([0xff]);

/** All keys of a prefix, the prefix itself included. */
export function keysFrom(prefix: Uint8Array): KeyRange {
  return { begin: Buffer.from(prefix), end: prefixEnd(prefix) };
}

/** Keys of nodes: the cluster writes rows, fences and leases, and the queue asserts fences. Not to be written elsewhere. */
export const nodeKeys = {
  row: (nodeId: string): Buffer => key(subspace.node, 'row', nodeId),
  fence: (nodeId: string): Buffer => key(subspace.node, 'fence', nodeId),
  request: (nodeId: string): Buffer => key(subspace.node, 'request', nodeId),
  lease: (job: string): Buffer => key(subspace.node, 'lease', job),
  rows: (): KeyRange => keysUnder(subspace.node, 'row'),
  fences: (): KeyRange => keysUnder(subspace.node, 'fence'),
} as const;
