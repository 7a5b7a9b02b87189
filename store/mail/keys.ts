/**
 * Keys of one account's mail. The tuples are those of `store/keyspace.ts`; prefixes are packed once and what varies (ids, UIDs, modseqs) is
 * appended by hand, because a delivery builds a dozen of these.
 */
import { type KeyRange, key, subspace } from '../keyspace.js';
import { pendingKey } from '../search/pending.js';
import type { AccountId, EmailId, MailboxId, ThreadId } from './contract.js';
import { Density } from './dense-reads.js';

const stringCode = 0x02;
const bytesCode = 0x01;
/** An integer of n bytes has the code 0x14 + n. */
const zeroCode = 0x14;
const maxCachedMailboxPrefixes = 64;

function uintLength(value: number): number {
  if (value < 0x100) return value === 0 ? 0 : 1;
  if (value < 0x1_0000) return 2;
  if (value < 0x100_0000) return 3;
  if (value < 0x1_0000_0000) return 4;
  return value < 0x100_0000_0000 ? 5 : 6;
}

/** `prefix` followed by a non-negative integer below 2^48 as a tuple element. */
export function withUint(prefix: Buffer, value: number): Buffer {
  const length = uintLength(value);
  const out = Buffer.allocUnsafe(prefix.length + 1 + length);
  out.set(prefix);
  out[prefix.length] = zeroCode + length;
  if (length > 0) out.writeUIntBE(value, prefix.length + 1, length);
  return out;
}

/** `prefix` followed by an id (no zero byte in it) as a tuple string. */
export function withId(prefix: Buffer, id: string): Buffer {
  const out = Buffer.allocUnsafe(prefix.length + id.length + 2);
  out.set(prefix);
  out[prefix.length] = stringCode;
  out.write(id, prefix.length + 1, 'latin1');
  out[out.length - 1] = 0;
  return out;
}

/** The integer that stands at `offset` of a key, and where the next element begins. */
export function uintAt(packed: Buffer, offset: number): { value: number; next: number } {
  const length = packed[offset]! - zeroCode;
  if (length < 0 || length > 6) throw new RangeError('no integer at this place of the key');
  return { value: length === 0 ? 0 : packed.readUIntBE(offset + 1, length), next: offset + 1 + length };
}

/** The id (a tuple string without zero bytes) that stands at `offset` of a key, and where the next element begins. */
export function idAt(packed: Buffer, offset: number): { value: string; next: number } {
  const end = packed.indexOf(0, offset + 1);
  return { value: packed.toString('latin1', offset + 1, end), next: end + 1 };
}

function under(prefix: Buffer): KeyRange {
  return { begin: Buffer.concat([prefix, Buffer.of(0x00)]), end: Buffer.concat([prefix, Buffer.of(0xff)]) };
}

/** All keys of one account. Ids must be of the alphabets that the contract names. */
export class AccountKeys {
  readonly state: Buffer;
  readonly logFloor: Buffer;
  readonly log: Buffer;
  readonly allMessages: KeyRange;
  readonly allMailboxes: KeyRange;
  readonly allCounts: KeyRange;
  readonly allNames: KeyRange;
  readonly allLog: KeyRange;
  readonly allThreads: KeyRange;
  readonly allReferences: KeyRange;
  readonly allRemovals: KeyRange;
  readonly allEntries: KeyRange;
  readonly allSummaries: KeyRange;
  /** Snapshots of mailbox indexes. */
  readonly allIndexes: KeyRange;
  readonly allAcls: KeyRange;
  /** What others have granted to this account (or group, or everybody). */
  readonly allGranted: KeyRange;
  readonly allSubscriptions: KeyRange;
  readonly allAnnotations: KeyRange;
  readonly allRecents: KeyRange;
  /** Messages some of whose lines do not end in CRLF. */
  readonly allLineEnds: KeyRange;
  /** Changes of flags that are not written into all rows yet. */
  readonly allFlagRanges: KeyRange;
  /** Says that the full-text index has work with this account. */
  readonly indexing: Buffer;
  private readonly aclPrefix: Buffer;
  private readonly recentPrefix: Buffer;
  private readonly lineEndsPrefix: Buffer;
  private readonly flagRangesPrefix: Buffer;
  private readonly mailboxPrefix: Buffer;
  private readonly countsPrefix: Buffer;
  private readonly messagePrefix: Buffer;
  private readonly summaryPrefix: Buffer;
  private readonly entryPrefix: Buffer;
  private readonly indexPrefix: Buffer;
  private readonly threadPrefix: Buffer;
  private readonly referencePrefix: Buffer;
  private readonly removalPrefix: Buffer;
  /** How messages asked for together lie in these tables. */
  readonly density: Readonly<Record<'entries' | 'messages' | 'summaries', Density>> = {
    entries: new Density(),
    messages: new Density(),
    summaries: new Density(),
  };
  private readonly entryPrefixes = new Map<MailboxId, Buffer>();

  constructor(readonly accountId: AccountId) {
    const part = (name: string) => key(subspace.mail, accountId, name);
    this.state = part('state');
    this.logFloor = part('log-floor');
    this.log = part('log');
    this.mailboxPrefix = part('mailbox');
    this.countsPrefix = part('counts');
    this.messagePrefix = part('message');
    this.summaryPrefix = part('summary');
    this.entryPrefix = part('entry');
    this.indexPrefix = part('index');
    this.threadPrefix = part('thread');
    this.referencePrefix = part('reference');
    this.removalPrefix = part('removal');
    this.allMessages = under(this.messagePrefix);
    this.allMailboxes = under(this.mailboxPrefix);
    this.allCounts = under(this.countsPrefix);
    this.allNames = under(part('name'));
    this.allLog = under(this.log);
    this.allThreads = under(this.threadPrefix);
    this.allReferences = under(this.referencePrefix);
    this.allRemovals = under(this.removalPrefix);
    this.allEntries = under(this.entryPrefix);
    this.allSummaries = under(this.summaryPrefix);
    this.allIndexes = under(this.indexPrefix);
    this.indexing = pendingKey(accountId);
    this.aclPrefix = part('acl');
    this.allAcls = under(this.aclPrefix);
    this.allGranted = under(part('granted'));
    this.allSubscriptions = under(part('subscription'));
    this.allAnnotations = under(part('annotation'));
    this.recentPrefix = part('recent');
    this.allRecents = under(this.recentPrefix);
    this.lineEndsPrefix = part('line-ends');
    this.allLineEnds = under(this.lineEndsPrefix);
    this.flagRangesPrefix = part('flag-ranges');
    this.allFlagRanges = under(this.flagRangesPrefix);
  }

  mailbox(id: MailboxId): Buffer {
    return withId(this.mailboxPrefix, id);
  }
  /** Names are any text, so this one goes through the general encoder. */
  name(parentId: MailboxId | '', name: string): Buffer {
    return key(subspace.mail, this.accountId, 'name', parentId, name);
  }
  /** All names directly under a mailbox. */
  namesUnder(parentId: MailboxId | ''): KeyRange {
    return under(key(subspace.mail, this.accountId, 'name', parentId));
  }
  counts(id: MailboxId): Buffer {
    return withId(this.countsPrefix, id);
  }
  message(id: EmailId): Buffer {
    return withId(this.messagePrefix, id);
  }
  /** The key of the message whose id stands at [from, to) of these bytes. */
  messageNamedIn(bytes: Buffer, from: number, to: number): Buffer {
    const { messagePrefix } = this;
    const out = Buffer.allocUnsafe(messagePrefix.length + to - from + 2);
    messagePrefix.copy(out);
    out[messagePrefix.length] = stringCode;
    bytes.copy(out, messagePrefix.length + 1, from, to);
    out[out.length - 1] = 0;
    return out;
  }
  summary(id: EmailId): Buffer {
    return withId(this.summaryPrefix, id);
  }
  entry(mailboxId: MailboxId, uid: number): Buffer {
    return withUint(this.entriesOf(mailboxId), uid);
  }
  /** Entries of a mailbox with `fromUid <= uid <= toUid`. */
  entryRange(mailboxId: MailboxId, fromUid = 0, toUid = 0xffff_ffff): KeyRange {
    const prefix = this.entriesOf(mailboxId);
    return { begin: withUint(prefix, Math.max(0, fromUid)), end: withUint(prefix, Math.min(toUid, 0xffff_ffff) + 1) };
  }
  /** The UID of an entry's key, for a key of this mailbox. */
  uidOf(mailboxId: MailboxId, packed: Buffer): number {
    return uintAt(packed, this.entriesOf(mailboxId).length).value;
  }
  /** Says which generation of chunks is the snapshot of a mailbox's index. */
  indexHead(id: MailboxId): Buffer {
    return withId(this.indexPrefix, id);
  }
  /** Whoever writes the next snapshot says so here; below all generations, which begin with 1. */
  indexClaim(id: MailboxId): Buffer {
    return withUint(this.indexHead(id), 0);
  }
  indexChunk(id: MailboxId, generation: number, n: number): Buffer {
    return withUint(withUint(this.indexHead(id), generation), n);
  }
  /** Chunks of one generation, from the `n`th. */
  indexChunks(id: MailboxId, generation: number, n = 0): KeyRange {
    return { begin: this.indexChunk(id, generation, n), end: withUint(this.indexHead(id), generation + 1) };
  }
  /** Head, claim and all chunks of a mailbox. */
  indexOf(id: MailboxId): KeyRange {
    const head = this.indexHead(id);
    return { begin: head, end: Buffer.concat([head, Buffer.of(0xff)]) };
  }
  /** The mailbox of any key of a snapshot. */
  indexMailboxOf(packed: Buffer): MailboxId {
    return idAt(packed, this.indexPrefix.length).value;
  }
  /** Part 0 stands at the modseq itself; more parts only where a change did not fit one value. */
  logAt(modseq: number, part = 0): Buffer {
    const first = withUint(this.log, modseq);
    return part === 0 ? first : withUint(first, part);
  }
  logModseqOf(packed: Buffer): number {
    return uintAt(packed, this.log.length).value;
  }
  thread(threadId: ThreadId, emailId: EmailId): Buffer {
    return withId(withId(this.threadPrefix, threadId), emailId);
  }
  threadRange(threadId: ThreadId): KeyRange {
    return under(withId(this.threadPrefix, threadId));
  }
  /** Thread and message of a thread row's key. */
  threadRowOf(packed: Buffer): { threadId: ThreadId; emailId: EmailId } {
    const thread = idAt(packed, this.threadPrefix.length);
    return { threadId: thread.value, emailId: idAt(packed, thread.next).value };
  }
  reference(hash: Buffer): Buffer {
    let zeros = 0;
    for (const byte of hash) if (byte === 0) zeros++;
    const out = Buffer.allocUnsafe(this.referencePrefix.length + hash.length + zeros + 2);
    let at = this.referencePrefix.copy(out);
    out[at++] = bytesCode;
    for (const byte of hash) {
      out[at++] = byte;
      if (byte === 0) out[at++] = 0xff;
    }
    out[at] = 0;
    return out;
  }
  /** '' stands for the whole account. */
  removal(id: MailboxId | ''): Buffer {
    return withId(this.removalPrefix, id);
  }
  removalOf(packed: Buffer): MailboxId | '' {
    return idAt(packed, this.removalPrefix.length).value;
  }
  acl(id: MailboxId): Buffer {
    return withId(this.aclPrefix, id);
  }
  aclOf(packed: Buffer): MailboxId {
    return idAt(packed, this.aclPrefix.length).value;
  }
  /** The note with a grantee that a mailbox of this account was granted. */
  grantedTo(grantee: string, id: MailboxId): Buffer {
    return key(subspace.mail, grantee, 'granted', this.accountId, id);
  }
  /** Of this account to a mailbox of `ownerId`. */
  subscription(ownerId: AccountId, id: MailboxId): Buffer {
    return key(subspace.mail, this.accountId, 'subscription', ownerId, id);
  }
  subscriptionsTo(ownerId: AccountId): KeyRange {
    return under(key(subspace.mail, this.accountId, 'subscription', ownerId));
  }
  /** '' stands for the server. Names of entries are any text. */
  annotation(id: MailboxId | '', scope: string, name: string): Buffer {
    return key(subspace.mail, this.accountId, 'annotation', id, scope, name);
  }
  annotationsOf(id: MailboxId | '', scope: string): KeyRange {
    return under(key(subspace.mail, this.accountId, 'annotation', id, scope));
  }
  allAnnotationsOf(id: MailboxId | ''): KeyRange {
    return under(key(subspace.mail, this.accountId, 'annotation', id));
  }
  /** What a message lacks of line ends. */
  lineEnds(id: EmailId): Buffer {
    return withId(this.lineEndsPrefix, id);
  }
  lineEndsOf(packed: Buffer): EmailId {
    return idAt(packed, this.lineEndsPrefix.length).value;
  }
  /** From which UID on messages are \\Recent. */
  recent(id: MailboxId): Buffer {
    return withId(this.recentPrefix, id);
  }
  recentOf(packed: Buffer): MailboxId {
    return idAt(packed, this.recentPrefix.length).value;
  }
  /** Changes of flags of this mailbox that are not written into all rows yet. */
  flagRanges(id: MailboxId): Buffer {
    return withId(this.flagRangesPrefix, id);
  }
  flagRangesMailbox(packed: Buffer): MailboxId {
    return idAt(packed, this.flagRangesPrefix.length).value;
  }
  mailboxOf(packed: Buffer): MailboxId {
    return idAt(packed, this.mailboxPrefix.length).value;
  }
  countsOf(packed: Buffer): MailboxId {
    return idAt(packed, this.countsPrefix.length).value;
  }
  messageOf(packed: Buffer): EmailId {
    return idAt(packed, this.messagePrefix.length).value;
  }
  entryOf(packed: Buffer): { mailboxId: MailboxId; uid: number } {
    const mailbox = idAt(packed, this.entryPrefix.length);
    return { mailboxId: mailbox.value, uid: uintAt(packed, mailbox.next).value };
  }

  private entriesOf(mailboxId: MailboxId): Buffer {
    const known = this.entryPrefixes.get(mailboxId);
    if (known) return known;
    if (this.entryPrefixes.size >= maxCachedMailboxPrefixes) this.entryPrefixes.clear();
    const prefix = withId(this.entryPrefix, mailboxId);
    this.entryPrefixes.set(mailboxId, prefix);
    return prefix;
  }
}

/** Keeps the packed prefixes of accounts lately used. */
export function accountKeysCache(maxAccounts = 2_000): (accountId: AccountId) => AccountKeys {
  const cache = new Map<AccountId, AccountKeys>();
  return (accountId) => {
    const known = cache.get(accountId);
    if (known) return known;
    if (cache.size >= maxAccounts) cache.delete(cache.keys().next().value!);
    const made = new AccountKeys(accountId);
    cache.set(accountId, made);
    return made;
  };
}
