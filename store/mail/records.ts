/**
 * Values of the mail subspace: account state and mailbox counts as fixed-width bytes (read and written by every change), all others as
 * msgpack arrays that begin with a format version.
 */
import { Packr } from 'msgpackr';
import type { EmailId, Mailbox, MailboxCounts, MailboxEntry, MailboxId, MailboxRole, Message, ThreadId } from './contract.js';
import { decodeKeywords, encodeKeywords } from './keywords.js';

const format = 1;
const packr = new Packr({ useRecords: false });

/** msgpack of plain arrays, numbers, strings and bytes. */
export function packValue(value: unknown[]): Buffer {
  return packr.pack(value);
}

/** The array of a value; throws when its format is one that this version does not read: any but 1, up to `newest`. */
export function unpackValue(bytes: Uint8Array, what: string, newest: number = format): unknown[] {
  const value = packr.unpack(bytes) as unknown;
  if (!Array.isArray(value) || !(value[0] >= format && value[0] <= newest)) throw new Error(`unknown format of a ${what} record`);
  return value;
}

/** What every change of an account reads and writes; its key is the account's point of serialisation. */
export interface AccountState {
  modseq: number;
  /** Sum of the sizes of messages; one in several mailboxes counts once. */
  usedBytes: number;
  messages: number;
  /** The last UIDVALIDITY given. */
  uidValiditySeed: number;
  mailboxes: number;
  /**
   * Since this modseq every change has kept the mailboxes' `shared`. Unknown (and what mailboxes say is not to be relied on) before the first change by a
   * release that does, and after each change by one that does not: such a one writes the state without it.
   */
  placesSince?: number | undefined;
  /** Mailboxes with changes of flags that are not written into all rows yet. Who does not know of these must not read the account: it has another format. */
  ranged: number;
}

/** Of a state without and with what `placesSince` and `ranged` say. */
const [shortStateBytes, longStateBytes] = [25, 35];
const rangedFormat = 2;

export function encodeState(state: AccountState): Buffer {
  const { placesSince, ranged } = state;
  const out = Buffer.allocUnsafe(placesSince === undefined && ranged === 0 ? shortStateBytes : longStateBytes);
  out[0] = ranged > 0 ? rangedFormat : format;
  if (out.length === longStateBytes) {
    out.writeUIntBE(placesSince ?? state.modseq, 25, 6);
    out.writeUInt32BE(ranged, 31);
  }
  out.writeUIntBE(state.modseq, 1, 6);
  out.writeUIntBE(state.usedBytes, 7, 6);
  out.writeUInt32BE(state.messages, 13);
  out.writeUInt32BE(state.uidValiditySeed, 17);
  out.writeUInt32BE(state.mailboxes, 21);
  return out;
}

export function decodeState(bytes: Buffer): AccountState {
  if (bytes[0] !== format && bytes[0] !== rangedFormat) throw new Error('unknown format of an account state');
  const isLong = bytes.length >= longStateBytes;
  return {
    ...(isLong && { placesSince: bytes.readUIntBE(25, 6) }),
    ranged: isLong ? bytes.readUInt32BE(31) : 0,
    modseq: bytes.readUIntBE(1, 6),
    usedBytes: bytes.readUIntBE(7, 6),
    messages: bytes.readUInt32BE(13),
    uidValiditySeed: bytes.readUInt32BE(17),
    mailboxes: bytes.readUInt32BE(21),
  };
}

/** Counts with the UIDVALIDITY beside them, so that an insert need not read the mailbox record. */
export interface StoredCounts extends MailboxCounts {
  uidValidity: number;
  /** Messages that are in another mailbox as well, and the modseq at which that was found out; to be relied on from the account's `placesSince` on. */
  shared?: number | undefined;
  sharedAt?: number | undefined;
}

const [shortCountsBytes, longCountsBytes] = [35, 45];

export function encodeCounts(counts: StoredCounts): Buffer {
  const { shared, sharedAt } = counts;
  const out = Buffer.allocUnsafe(shared === undefined || sharedAt === undefined ? shortCountsBytes : longCountsBytes);
  if (shared !== undefined && sharedAt !== undefined) {
    out.writeUInt32BE(shared, 35);
    out.writeUIntBE(sharedAt, 39, 6);
  }
  out[0] = format;
  // UIDNEXT may be 2^32 once the last UID is given.
  out.writeUIntBE(counts.uidNext, 1, 6);
  out.writeUInt32BE(counts.total, 7);
  out.writeUInt32BE(counts.unseen, 11);
  out.writeUInt32BE(counts.deleted, 15);
  out.writeUIntBE(counts.bytes, 19, 6);
  out.writeUIntBE(counts.highestModseq, 25, 6);
  out.writeUInt32BE(counts.uidValidity, 31);
  return out;
}

export function decodeCounts(bytes: Buffer): StoredCounts {
  if (bytes[0] !== format) throw new Error('unknown format of mailbox counts');
  return {
    uidNext: bytes.readUIntBE(1, 6),
    total: bytes.readUInt32BE(7),
    unseen: bytes.readUInt32BE(11),
    deleted: bytes.readUInt32BE(15),
    bytes: bytes.readUIntBE(19, 6),
    highestModseq: bytes.readUIntBE(25, 6),
    uidValidity: bytes.readUInt32BE(31),
    ...(bytes.length >= longCountsBytes && { shared: bytes.readUInt32BE(35), sharedAt: bytes.readUIntBE(39, 6) }),
  };
}

/** Whether two rows say the same of a mailbox's messages and their flags; where else those are may have been found out in between. */
export function sameCounts(a: Buffer, b: Buffer): boolean {
  return a.compare(b, 0, shortCountsBytes, 0, shortCountsBytes) === 0;
}

/** Up to where the log is gone, and what an account that is made again must stay above. Outlives the account. */
export interface LogFloor {
  modseq: number;
  /** The last UIDVALIDITY of a removed account; 0 as long as it lives. */
  uidValiditySeed: number;
  /** Modseqs between these two, both excluded, were given by a history that a restore has lost (`lost-history.ts`). */
  lost?: { from: number; to: number };
}

/** Without and with what `lost` says; releases before it do not look at the end. */
const [shortFloorBytes, longFloorBytes] = [11, 23];

export function encodeLogFloor(floor: LogFloor): Buffer {
  const out = Buffer.allocUnsafe(floor.lost ? longFloorBytes : shortFloorBytes);
  out[0] = format;
  out.writeUIntBE(floor.modseq, 1, 6);
  out.writeUInt32BE(floor.uidValiditySeed, 7);
  if (floor.lost) {
    out.writeUIntBE(floor.lost.from, shortFloorBytes, 6);
    out.writeUIntBE(floor.lost.to, shortFloorBytes + 6, 6);
  }
  return out;
}

export function decodeLogFloor(bytes: Buffer | undefined): LogFloor {
  if (!bytes) return { modseq: 0, uidValiditySeed: 0 };
  if (bytes[0] !== format) throw new Error('unknown format of a log floor');
  return {
    modseq: bytes.readUIntBE(1, 6),
    uidValiditySeed: bytes.readUInt32BE(7),
    ...(bytes.length >= longFloorBytes && {
      lost: { from: bytes.readUIntBE(shortFloorBytes, 6), to: bytes.readUIntBE(shortFloorBytes + 6, 6) },
    }),
  };
}

/** A mailbox record: all but the path, which follows from the parents. */
export type MailboxRecord = Omit<Mailbox, 'path'>;

export function encodeMailbox(mailbox: MailboxRecord): Buffer {
  const { name, parentId, role, uidValidity, isSubscribed, sortOrder } = mailbox;
  return packValue([format, name, parentId, role ?? 0, uidValidity, isSubscribed ? 1 : 0, sortOrder]);
}

export function decodeMailbox(id: MailboxId, bytes: Buffer): MailboxRecord {
  const [, name, parentId, role, uidValidity, isSubscribed, sortOrder] = unpackValue(bytes, 'mailbox') as [
    number,
    string,
    MailboxId | '',
    MailboxRole | 0,
    number,
    0 | 1,
    number,
  ];
  const record: MailboxRecord = { id, name, parentId, uidValidity, isSubscribed: isSubscribed === 1, sortOrder };
  if (role !== 0) record.role = role;
  return record;
}

/** A message as the transaction that changes it holds it. */
export interface StoredMessage extends Message {
  keywords: readonly string[];
  mailboxes: Record<MailboxId, number>;
}

export function encodeMessage(message: StoredMessage): Buffer {
  const { bits, others } = encodeKeywords(message.keywords);
  const places: (string | number)[] = [];
  for (const mailboxId in message.mailboxes) places.push(mailboxId, message.mailboxes[mailboxId]!);
  return packValue([
    format,
    Buffer.from(message.blobId, 'hex'),
    message.sizeBytes,
    message.receivedAtMs,
    message.threadId === message.id ? 0 : message.threadId,
    bits,
    others,
    places,
    // Releases before it pass over this one.
    ...(message.missingLineEndBytes ? [message.missingLineEndBytes] : []),
  ]);
}

export function decodeMessage(id: EmailId, bytes: Buffer): StoredMessage {
  const [, blob, sizeBytes, receivedAtMs, threadId, bits, others, places, missingLineEndBytes] = unpackValue(
    bytes,
    'message',
  ) as [number, Buffer, number, number, ThreadId | 0, number, string[] | 0, (string | number)[], number?];
  const mailboxes: Record<MailboxId, number> = {};
  for (let at = 0; at < places.length; at += 2) mailboxes[places[at] as string] = places[at + 1] as number;
  return {
    id,
    blobId: blob.toString('hex'),
    sizeBytes,
    receivedAtMs,
    threadId: threadId === 0 ? id : threadId,
    keywords: decodeKeywords(bits, others),
    mailboxes,
    ...(missingLineEndBytes !== undefined && { missingLineEndBytes }),
  };
}

/** What a message lacks of line ends, in bytes. */
export function encodeLineEnds(missingBytes: number): Buffer {
  return packValue([format, missingBytes]);
}

export function decodeLineEnds(bytes: Buffer): number {
  return (unpackValue(bytes, 'line ends') as [number, number])[1];
}

export function encodeEntry(entry: MailboxEntry): Buffer {
  const { bits, others } = encodeKeywords(entry.keywords);
  const deleted = entry.isDeleted ? 1 : 0;
  return packValue([
    format,
    entry.emailId,
    deleted,
    entry.modseq,
    bits,
    others,
    entry.sizeBytes,
    entry.receivedAtMs,
    entry.savedAtMs,
  ]);
}

export function decodeEntry(uid: number, bytes: Buffer): MailboxEntry {
  const [, emailId, deleted, modseq, bits, others, sizeBytes, receivedAtMs, savedAtMs] = unpackValue(bytes, 'entry') as [
    number,
    EmailId,
    0 | 1,
    number,
    number,
    string[] | 0,
    number,
    number,
    number,
  ];
  const keywords = decodeKeywords(bits, others);
  return { uid, emailId, isDeleted: deleted === 1, modseq, keywords, sizeBytes, receivedAtMs, savedAtMs };
}
