/**
 * Changed flags of many messages of one mailbox on their way into the change log, as the bytes of its values (see `log.ts`): items are put together from the
 * bytes of the rows, so that nothing of a message becomes an object.
 */
import type { MailboxId } from './contract.js';
import { idOffset } from './entry-row.js';
import { emailIdLength } from './ids.js';
import { maxNumberBytes, putArrayHead, putNumber } from './packed-numbers.js';

/** Codes of changes (see `kinds` in `log.ts`). */
const entryChanged = 1;
const emailUpdated = 4;
const shortString = 0xa0;
/** Beside strings and items: heads, format, token, number of parts. */
const maxHeadBytes = 64;
/** Of one message beside its entry's tail: two ids, and what stands around the numbers of two items. */
const maxMessageBytes = 2 * (1 + emailIdLength) + 16 + 6 * maxNumberBytes;

/** Strings and items of one value. */
export interface LogPart {
  strings: Buffer;
  stringCount: number;
  items: Buffer;
  itemCount: number;
}

class GrowingBytes {
  bytes = Buffer.allocUnsafe(1_024);
  length = 0;

  room(more: number): void {
    if (this.length + more <= this.bytes.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.length + more, this.bytes.length * 2));
    this.bytes.copy(grown, 0, 0, this.length);
    this.bytes = grown;
  }

  take(): Buffer {
    return this.bytes.subarray(0, this.length);
  }
}

export class LogRows {
  readonly #parts: LogPart[] = [];
  #strings = new GrowingBytes();
  #items = new GrowingBytes();
  #stringCount = 0;
  #itemCount = 0;
  #threads = new Map<string, number>();

  constructor(
    readonly mailboxId: MailboxId,
    /** A value is no larger. */
    private readonly maxBytes: number,
  ) {
    this.#begin();
  }

  /**
   * One entry of the mailbox with changed flags. `row`: its new row, of the usual form; `middleEnd`: where the bytes after the keyword bits begin in it.
   * `threadId`: of its message, where that has changed with it; '' where it is the message's own.
   */
  add(uid: number, row: Buffer, middleEnd: number, isDeleted: boolean, bits: number, threadId: string | undefined): void {
    const tailBytes = row.length - middleEnd;
    const more = maxMessageBytes + tailBytes;
    if (this.#strings.length + this.#items.length + more + maxHeadBytes > this.maxBytes) this.#end();
    this.#strings.room(more);
    this.#items.room(more);
    const email = this.#addString(row, idOffset);
    if (threadId !== undefined) this.#putEmailUpdated(email, threadId);
    const out = this.#items.bytes;
    let at = this.#items.length;
    out[at++] = 0x9a;
    out[at++] = entryChanged;
    // The mailbox is the first of the strings.
    out[at++] = 0;
    at = putNumber(out, at, uid);
    at = putNumber(out, at, email);
    out[at++] = isDeleted ? 1 : 0;
    at = putNumber(out, at, bits);
    this.#items.length = at + row.copy(out, at, middleEnd);
    this.#itemCount++;
  }

  /** What was added, in parts of one value each. Nothing may be added afterwards. */
  parts(): readonly LogPart[] {
    if (this.#itemCount > 0) this.#end();
    return this.#parts;
  }

  #putEmailUpdated(email: number, threadId: string): void {
    let thread = threadId === '' ? email : this.#threads.get(threadId);
    if (thread === undefined) {
      thread = this.#addString(Buffer.from(threadId, 'latin1'), 0);
      this.#threads.set(threadId, thread);
    }
    const out = this.#items.bytes;
    let at = this.#items.length;
    out[at++] = 0x93;
    out[at++] = emailUpdated;
    at = putNumber(out, at, email);
    this.#items.length = putNumber(out, at, thread);
    this.#itemCount++;
  }

  /** An id of a message or thread; answers its number. */
  #addString(bytes: Buffer, from: number): number {
    const strings = this.#strings;
    strings.bytes[strings.length++] = shortString | emailIdLength;
    strings.length += bytes.copy(strings.bytes, strings.length, from, from + emailIdLength);
    return this.#stringCount++;
  }

  #begin(): void {
    this.#strings = new GrowingBytes();
    this.#items = new GrowingBytes();
    this.#threads = new Map();
    const strings = this.#strings;
    strings.bytes[0] = shortString | this.mailboxId.length;
    strings.length = 1 + strings.bytes.write(this.mailboxId, 1, 'latin1');
    this.#stringCount = 1;
    this.#itemCount = 0;
  }

  #end(): void {
    const [strings, items] = [this.#strings.take(), this.#items.take()];
    this.#parts.push({ strings, stringCount: this.#stringCount, items, itemCount: this.#itemCount });
    this.#begin();
  }
}

/** The value of one part. `token`: only in the first. `parts`: how many values the set has. */
export function logPartValue(part: LogPart, format: number, token: Buffer | undefined, parts: number): Buffer {
  const out = Buffer.allocUnsafe(maxHeadBytes + part.strings.length + part.items.length);
  out[0] = 0x95;
  out[1] = format;
  let at = 2;
  if (token) {
    out[at++] = 0xc4;
    out[at++] = token.length;
    at += token.copy(out, at);
  } else out[at++] = 0;
  at = putNumber(out, at, parts);
  at = putArrayHead(out, at, part.stringCount);
  at += part.strings.copy(out, at);
  at = putArrayHead(out, at, part.itemCount);
  at += part.items.copy(out, at);
  return out.subarray(0, at);
}
