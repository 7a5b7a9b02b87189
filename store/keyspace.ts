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
 * | mail, account, 'index', mailboxId | which generation of chunks is the snapshot of the mailbox's entries, at which modseq, checksum, counts | background, after a mailbox of thousands of messages was read whole or has changed much | the next one; mailbox removal, account removal |
 * | mail, account, 'index', mailboxId, 0 | generation whose chunks are being written | writer of a snapshot | its end, or the next writer |
 * | mail, account, 'index', mailboxId, generation, n | entries in columns, compressed; derived from the entries, may be cleared at any time | writer of a snapshot | a newer snapshot |
 * | mail, account, 'log', modseq (, part) | what changed at this modseq; longer lists go on in parts | each change | log truncation |
 * | mail, account, 'log-floor' | modseq up to which the log is gone; UIDVALIDITY seed, for an account that is made again; between which modseqs lies a time that was lost | log truncation (same transaction), account removal, restore | never: it outlives the account |
 * | mail, account, 'thread', threadId, emailId | 8-byte hashes of the references that the message answers for | insert | last expunge |
 * | mail, account, 'reference', hash | threadId | insert | thread's last expunge (lazily) |
 * | mail, account, 'maildrop-lock' | node, token, since (ms): the POP3 session that has the maildrop; counts while the node's fence stands | login over POP3 | the session's end; account removal; whoever takes it over |
 * | mail, account, 'removal', mailboxId | a removed mailbox whose entries are still being cleared; mailboxId '': the whole account | mailbox or account removal | its own end |
 * | mail, account, 'acl', mailboxId | identifiers and their rights (RFC 4314) | changes of the list; with a new mailbox: those of the one it is in | mailbox removal, account removal |
 * | mail, grantee, 'granted', owner, mailboxId | empty: the list of that mailbox names this account or group (grantee 'anyone': everybody) | with the list | with the list; who meets a stale one |
 * | mail, account, 'subscription', owner, mailboxId | its path when it was subscribed, or went: a mailbox of somebody else, or one's own that is gone | SUBSCRIBE, mailbox removal | UNSUBSCRIBE, a new mailbox of the name, account removal |
 * | mail, account, 'annotation', mailboxId, 'shared' or 'private', entry | the bytes of the value (RFC 5464); mailboxId '': the server's; a private one may be of a mailbox of somebody else | SETMETADATA | SETMETADATA, mailbox removal, account removal |
 * | mail, account, 'flag-ranges', mailboxId | changes of flags that stand for many UIDs: modseq, UIDs, what comes and goes; newer than the rows of those entries that have a lower modseq, and than their messages | flags of many messages | background, once the rows are up to date; mailbox removal, account removal |
 * | mail, account, 'line-ends', emailId | bytes by which the message grows when each of its lines ends in CRLF; only of those that do | insert | last expunge; account removal |
 * | mail, account, 'recent', mailboxId | 4 bytes: first UID that no read-write session was told of; without it no message is \Recent | with a new mailbox; SELECT, and later for sessions that stay | mailbox removal, account removal |
 * | queue, 'message', queueId | message record | enqueue | last destination done |
 * | queue, 'destination', queueId, domain, part | recipients, claim, attempts | enqueue, claim, save | done |
 * | queue, 'due', shard, due (s), queueId, domain, part | flags, sender's hash (4 bytes), virtual queue; empty from earlier releases | enqueue, release, reschedule | claim |
 * | queue, 'express', shard, due (s), queueId, domain, part | as its due entry, beside which it stands for high priorities | with its due entry | with its due entry; who meets a stale one |
 * | queue, 'line', line, shard, queueId, domain, part | as its due entry: due, but something is in the way (domain, `queue:NAME`, `*`, `from:` hash) | enqueue, park | claim, hold, cancel; who meets a stale one |
 * | queue, 'usage', name, slot, 0 or 1 | 8-byte counters: messages, bytes | enqueue, last destination done | forgetReceipts, when zero |
 * | queue, 'health', domain | a domain that is down: failures, last reply, next probe | reports of deliveries, probes | the next success, or a probe with nothing to send |
 * | queue, 'pause', what | by whom, why, since | operators | operators |
 * | queue, 'destinations-generation' | 8-byte counter, raised when a domain goes down or up and by pauses | atomic add | never |
 * | queue, 'claim', nodeId, queueId, domain, part | claim epoch | claim | save, release, takeover |
 * | queue, 'receipt', queueId | empty | enqueue without a claim; takeover or release of a claim by birth; cancel | forgetReceipts, an hour later |
 * | queue, 'history', queueId, time (ms), kind, hash of the value | node and events: what one transaction did to the message | enqueue, save, operators: with what it tells | forget, days after the message has left the queue |
 * | queue, 'expansion', queueId, list | the last member (in order) of a large list that has its copy, and how many have | each batch of its expansion | the last batch; with old history, where the message was cancelled |
 * | settings, 'head' | version, generation, floor, section to the version that wrote it last; nodes watch it | every change of settings | never |
 * | settings, 'version', version | when, who, comment, changes (secrets masked), section to version | a change | 200 versions later |
 * | settings, 'section', name, version | contents as they were set; secrets sealed, as bytes | a change of the section | with the last version that names it |
 * | settings, 'key-check' | a known text sealed with the cluster key | first start, reseal | never |
 * | search, account, 'head' | how far the index is, its segments, languages | each addition, merge | account removal |
 * | search, account, 'block', segmentId, n | 16 kB of a segment, which never changes | addition, merge; large ones ahead of the head | tidy, a minute after its segment was replaced; account removal |
 * | search, account, 'loose', segmentId | since when its blocks are in no head: being written, or replaced | a large addition or merge | the switch of the head; tidy |
 * | limits, 'rate', name, period (ms), key | uses of one key by 24ths of the period, lots that nodes have taken included | take | forgetExpired, 6 h after the last use is out of the sum |
 * | limits, 'count', name, period (ms), key | the same, of what is only counted | count, each second | forgetExpired, 6 h later; reset |
 * | limits, 'slots', name, key, nodeId | slots of a concurrency limit that a node keeps; counts while its fence stands | that node | that node; whoever meets it once the fence is gone; forgetExpired |
 * | limits, 'greylist', 'network', network | until when it passes (ms) | a triplet of it that came again | forgetExpired, 6 h later |
 * | limits, 'greylist', 'triplet', 16 bytes of digest | first seen, over at (ms) | first attempt | its pass; forgetExpired, 6 h later |
 * | limits, 'known-login', network or address, login or '' | until when it is known (ms) | a good login | forgetExpired, 6 h later |
 * | limits, 'rate-expiry', 'count-expiry', 'greylist-expiry', 'known-login-expiry', hour, then as the record's key | empty: when the record was to end when it was made | with the record | forgetExpired, which writes a later one for a record in use |
 * | limits, 'ban', network | reason, note, since, until | ban | lift; forgetExpired, 6 h after its end |
 * | limits, 'ban-generation' | 8-byte counter, raised by every ban and lift | atomic add | never |
 * | limits, 'ban-log', versionstamp | network that was banned or lifted, when | with each change | forgetExpired, an hour later |
 * | limits, 'ban-log-floor' | key of the log up to which it is gone | forgetExpired (same transaction) | never |
 * | lookups, 'entry', list, key | value, end (ms) | operators | removal; forgetExpired, 6 h after its end |
 * | indexing, slot, account | 8-byte modseq up to which the full-text index must look at changes | each transaction that makes messages, account removal, `search reindex` | the indexing service, when it is there |
 * | lookups, 'entry-expiry', hour, list, key | empty | with an entry that ends | forgetExpired |
 */
import { unpack } from 'fdb-tuple';
import { kvLimits, prefixEnd } from './kv/contract.js';

/** First elements of keys; never renumbered. */
export const subspace = {
  meta: 1,
  node: 2,
  directory: 3,
  blob: 4,
  mail: 5,
  queue: 6,
  settings: 7,
  search: 8,
  limits: 9,
  lookups: 10,
  indexing: 11,
} as const;

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

// Indexes are read by their keys alone, thousands of them at a time: they are unpacked by a reader of ours, too. What the writer above does not write
// (a number of another kind, a tuple in a tuple) is left to the library.

/** Where a string or bytes that begin at `from` end: at a 0x00 that no 0xff follows. Past the end where there is none. */
function endOfBytes(packed: Buffer, from: number): number {
  let end = from;
  // Items are short: a plain loop beats the call into native code.
  for (; end < packed.length; end++) {
    if (packed[end] !== 0) continue;
    if (packed[end + 1] !== 0xff) break;
    end++;
  }
  return end;
}

/** The octets of an item without the 0xff that follows each 0x00 in it; as a rule there is none, and they are where they were. */
function withoutEscapes(packed: Buffer, from: number, end: number): Buffer {
  const octets = packed.subarray(from, end);
  if (!octets.includes(0)) return octets;
  const raw = Buffer.allocUnsafe(octets.length);
  let length = 0;
  for (let at = 0; at < octets.length; at++) {
    const octet = octets[at]!;
    raw[length++] = octet;
    if (octet === 0) at++;
  }
  return raw.subarray(0, length);
}

function readNumber(packed: Buffer, from: number, length: number): number {
  let value = 0;
  for (let at = from; at < from + length; at++) value = value * 256 + packed[at]!;
  return value;
}

/** The items of a key that `key` has packed; undefined for anything else. */
function readItems(packed: Buffer): KeyItem[] | undefined {
  const items: KeyItem[] = [];
  for (let at = 0; at < packed.length; ) {
    const kind = packed[at]!;
    if (kind === tupleString || kind === tupleBytes) {
      const end = endOfBytes(packed, at + 1);
      if (end >= packed.length) return undefined;
      const raw = withoutEscapes(packed, at + 1, end);
      items.push(kind === tupleString ? raw.toString('utf8') : Buffer.from(raw));
      at = end + 1;
      continue;
    }
    const length = kind - tupleIntZero;
    // Seven bytes may hold more than a number can; only what `key` writes is surely right.
    if (length < 0 || length > 7 || at + length >= packed.length) return undefined;
    const value = readNumber(packed, at + 1, length);
    if (!Number.isSafeInteger(value)) return undefined;
    items.push(value);
    at += 1 + length;
  }
  return items;
}

/** The tuple of a key. Byte elements come back as Buffers. */
export function keyItems(packed: Uint8Array): KeyItem[] {
  const bytes = Buffer.isBuffer(packed) ? packed : Buffer.from(packed);
  return readItems(bytes) ?? (unpack(bytes) as KeyItem[]);
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
