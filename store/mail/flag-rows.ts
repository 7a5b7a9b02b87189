/**
 * New rows of entries and messages whose flags change, made from the bytes of the rows that were read: only the places of the flags are written anew. Rows
 * of an unusual form (uncommon keywords, messages in several mailboxes) are told apart, and are for whoever decodes them.
 */
import { idOffset } from './entry-row.js';
import { emailIdLength } from './ids.js';
import { lastNumber, maxNumberBytes, putNumber, readNumber, skipNumber } from './packed-numbers.js';

/** Where the id ends and the flags begin. */
export const flagsOffset = idOffset + emailIdLength;
const shortString = 0xa0;
const idHead = shortString | emailIdLength;

/** The flags of one entry's row (see `encodeEntry`); one object reads many rows. */
export class EntryFlags {
  isDeleted = false;
  modseq = 0;
  /** Keyword bits. */
  bits = 0;
  /** Where the bytes after the bits begin: no other keywords, size, received, saved. The same bytes end the entry's item in the log. */
  tail = 0;

  /** False for a row of another form. */
  read(row: Buffer): boolean {
    if (row[0] !== 0x99 || row[1] !== 1 || row[2] !== idHead || row.length <= flagsOffset || row[flagsOffset]! > 1) return false;
    this.isDeleted = row[flagsOffset] === 1;
    let at = readNumber(row, flagsOffset + 1);
    if (at < 0) return false;
    this.modseq = lastNumber.value;
    at = readNumber(row, at);
    if (at < 0 || row[at] !== 0) return false;
    this.bits = lastNumber.value;
    this.tail = at;
    for (let field = 0; field < 4; field++) {
      at = skipNumber(row, at);
      if (at < 0) return false;
    }
    return at === row.length;
  }
}

/** The bytes of an entry's flags and modseq as they stand in its row. */
export function entryMiddle(isDeleted: boolean, modseq: number, bits: number): Buffer {
  const out = Buffer.allocUnsafe(1 + 2 * maxNumberBytes);
  out[0] = isDeleted ? 1 : 0;
  return out.subarray(0, putNumber(out, putNumber(out, 1, modseq), bits));
}

/** An entry's row with another middle. `tail` is that of the row. */
export function withEntryMiddle(row: Buffer, tail: number, middle: Buffer): Buffer {
  const out = Buffer.allocUnsafe(flagsOffset + middle.length + row.length - tail);
  row.copy(out, 0, 0, flagsOffset);
  middle.copy(out, flagsOffset);
  row.copy(out, flagsOffset + middle.length, tail);
  return out;
}

/** The flags of a message's row (see `encodeMessage`). */
export class MessageFlags {
  bits = 0;
  bitsAt = 0;
  bitsEnd = 0;
  /** Where the thread's id stands; 0 where it is the message's own. */
  threadAt = 0;

  /** False for a row of another form, and for a message that has an entry anywhere but in this mailbox. `mailboxId`: its bytes. */
  read(row: Buffer, mailboxId: Buffer): boolean {
    if (row[0] !== 0x98 || row[1] !== 1 || row[2] !== 0xc4 || row.length < 4) return false;
    let at = skipNumber(row, 4 + row[3]!);
    if (at >= 0) at = skipNumber(row, at);
    if (at < 0) return false;
    this.threadAt = row[at] === idHead ? at + 1 : 0;
    if (this.threadAt > 0) at += 1 + emailIdLength;
    else if (row[at++] !== 0) return false;
    this.bitsAt = at;
    at = readNumber(row, at);
    if (at < 0) return false;
    this.bits = lastNumber.value;
    this.bitsEnd = at;
    if (row[at] !== 0 || row[at + 1] !== 0x92 || row[at + 2] !== (shortString | mailboxId.length)) return false;
    at += 3;
    if (at + mailboxId.length >= row.length) return false;
    if (mailboxId.compare(row, at, at + mailboxId.length) !== 0) return false;
    return skipNumber(row, at + mailboxId.length) === row.length;
  }
}

/** A message's row with other keyword bits. `places` is what was read of the row. */
export function withMessageBits(row: Buffer, { bitsAt, bitsEnd }: MessageFlags, bits: number): Buffer {
  const out = Buffer.allocUnsafe(row.length + maxNumberBytes);
  row.copy(out, 0, 0, bitsAt);
  const at = putNumber(out, bitsAt, bits);
  return out.subarray(0, at + row.copy(out, at, bitsEnd));
}

/** The thread of a message; '' where it is named as the message is. */
export function threadIdOf(row: Buffer, { threadAt }: MessageFlags): string {
  return threadAt === 0 ? '' : row.toString('latin1', threadAt, threadAt + emailIdLength);
}
