/**
 * APPEND (RFC 9051 6.3.12) with MULTIAPPEND (RFC 3502) and UTF8 (RFC 6855). Each message goes to a blob as it comes in, and is held once for its
 * summary; all of them become visible in one transaction, or none.
 */
import type { BlobWriter } from '../../../store/blobs/contract.js';
import { type AccountId, type Mailbox, MailError, mailLimits, type NewMessage } from '../../../store/mail/contract.js';
import { summarizeWithin } from '../../message/index.js';
import type { SessionContext } from '../context.js';
import { Cursor } from '../grammar/cursor.js';
import { parseDateTime } from '../grammar/dates.js';
import type { RawCommand, ReaderEvent } from '../grammar/reader.js';
import { formatNumbers } from '../grammar/sequence-set.js';
import { ConnectionClosed } from '../output.js';
import { bad, no, ok, Refusal, type Reply, replyOfError } from '../replies.js';
import { type FlagList, readFlags } from './store.js';

type LiteralEvent = Extract<ReaderEvent, { kind: 'literal' }>;

/** Waits for the next event of the command that is coming in; undefined when the client is gone. */
export type EventSource = () => Promise<ReaderEvent | undefined>;

interface MessageHead {
  flags: FlagList;
  receivedAtMs: number;
  /** The message stands in `UTF8 (…)`. */
  inUtf8: boolean;
}

/** Reads up to the mailbox name; undefined when the name itself is a literal still to come. */
function readMailboxName(cursor: Cursor): string | undefined {
  cursor.tag();
  cursor.space();
  cursor.word();
  cursor.space();
  return cursor.isAtEnd ? undefined : cursor.astring();
}

/** Whether the literal that a command announces is a message of APPEND (and not its mailbox name). */
export function announcesMessage(soFar: RawCommand, context: SessionContext): boolean {
  if (!/^[^ ]{1,64} APPEND /i.test(soFar.texts[0] ?? '')) return false;
  try {
    return readMailboxName(new Cursor(soFar, context.services.limits.grammar)) !== undefined;
  } catch {
    return false;
  }
}

/** ` (flags) "date" ` in front of a message. */
function readHead(cursor: Cursor, nowMs: number): MessageHead {
  const head: MessageHead = { flags: { keywords: [], deleted: false }, receivedAtMs: nowMs, inUtf8: false };
  cursor.space();
  if (cursor.sees('(')) {
    head.flags = readFlags(cursor, false);
    cursor.space();
  }
  if (cursor.sees('"')) {
    head.receivedAtMs = parseDateTime(cursor.quoted());
    cursor.space();
  }
  if (cursor.seesWord('UTF8 (')) {
    cursor.word();
    cursor.space();
    cursor.expect('(');
    head.inUtf8 = true;
  }
  if (!cursor.isAtEnd) cursor.fail('Expected a message literal');
  return head;
}

/** Part of the bytes in flight that one account may hold, unless it is with a single message. */
const accountShare = 1 / 4;

interface Waiting {
  accountId: AccountId;
  bytes: number;
  start: () => void;
}

/** Bytes of APPENDs that this process holds; more wait their turn. Who waits for an account's own share holds up nobody else. */
class Reservations {
  #usedBytes = 0;
  readonly #usedByAccount = new Map<AccountId, number>();
  #waiting: Waiting[] = [];

  /** Answers the way to give the bytes back; harmless to call twice. */
  async take(accountId: AccountId, bytes: number, limitBytes: number): Promise<() => void> {
    await new Promise<void>((resolve) => {
      this.#waiting.push({ accountId, bytes, start: resolve });
      this.#startNext(limitBytes);
    });
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#count(accountId, -bytes);
      this.#startNext(limitBytes);
    };
  }

  #count(accountId: AccountId, bytes: number): void {
    this.#usedBytes += bytes;
    const ofAccount = (this.#usedByAccount.get(accountId) ?? 0) + bytes;
    if (ofAccount > 0) this.#usedByAccount.set(accountId, ofAccount);
    else this.#usedByAccount.delete(accountId);
  }

  /** In the order of coming, but for those whose own account is in their way. */
  #startNext(limitBytes: number): void {
    let isFull = false;
    this.#waiting = this.#waiting.filter(({ accountId, bytes, start }) => {
      const ofAccount = this.#usedByAccount.get(accountId) ?? 0;
      if (isFull || (ofAccount > 0 && ofAccount + bytes > limitBytes * accountShare)) return true;
      isFull = this.#usedBytes > 0 && this.#usedBytes + bytes > limitBytes;
      if (isFull) return true;
      this.#count(accountId, bytes);
      start();
      return false;
    });
  }
}

const reservations = new Reservations();

class AppendRun {
  readonly #context: SessionContext;
  readonly #nextEvent: EventSource;
  readonly #writers: BlobWriter[] = [];
  readonly #messages: NewMessage[] = [];
  #mailbox: Mailbox | undefined;
  #quotaLimitBytes: number | undefined;
  #usedBytes = 0;
  /** Between messages the text continues after `)` of UTF8. */
  #inUtf8 = false;

  constructor(context: SessionContext, nextEvent: EventSource) {
    this.#context = context;
    this.#nextEvent = nextEvent;
  }

  async run(first: LiteralEvent): Promise<Reply> {
    let isComplete = false;
    try {
      let event: ReaderEvent | undefined = first;
      let cursor = new Cursor(first.soFar, this.#context.services.limits.grammar);
      await this.#open(cursor);
      while (event?.kind === 'literal') {
        await this.#message(cursor, event);
        event = await this.#nextEvent();
        if (event?.kind === 'literal') cursor = this.#continuation(event.soFar);
      }
      isComplete = true;
      if (event?.kind === 'fault' && !event.fatal) throw new Refusal(bad('Line too long'));
      if (event?.kind !== 'command') throw new ConnectionClosed();
      this.#continuation(event.command).end();
      return await this.#commit();
    } catch (error) {
      await Promise.all(this.#writers.map((writer) => writer.abort().catch(() => {})));
      if (error instanceof ConnectionClosed) throw error;
      if (!isComplete) await this.#skip();
      throw error;
    }
  }

  /** The text behind the last message, as its own cursor. */
  #continuation(command: RawCommand): Cursor {
    const cursor = new Cursor({ texts: [command.texts.at(-1) ?? ''], literals: [] }, this.#context.services.limits.grammar);
    if (this.#inUtf8) cursor.expect(')');
    return cursor;
  }

  async #open(cursor: Cursor): Promise<void> {
    const { mail } = this.#context.services;
    const name = readMailboxName(cursor)!;
    const found = await mail.mailboxByPath(this.#context.accountId, this.#context.path(name));
    if (!found) throw new Refusal(no('No such mailbox', 'TRYCREATE'));
    this.#mailbox = found.mailbox;
    this.#quotaLimitBytes = await this.#context.quotaLimitBytes();
    if (this.#quotaLimitBytes !== undefined) this.#usedBytes = (await mail.usage(this.#context.accountId)).usedBytes;
  }

  /** Takes one message from its head to its last byte. */
  async #message(cursor: Cursor, event: LiteralEvent): Promise<void> {
    const { services, output, input } = this.#context;
    const { limits } = services;
    const head = readHead(cursor, services.clock.nowMs());
    this.#inUtf8 = head.inUtf8;
    if (event.sizeBytes > limits.grammar.maxMessageBytes) throw new Refusal(no('Message too large', 'TOOBIG'));
    // RFC 3502: a client cancels a MULTIAPPEND with an empty message.
    if (event.sizeBytes === 0) throw new Refusal(no('Empty message, nothing appended'));
    if (this.#messages.length >= limits.maxAppendMessages) throw new Refusal(no('Too many messages in one APPEND', 'LIMIT'));
    this.#usedBytes += event.sizeBytes;
    if (this.#quotaLimitBytes !== undefined && this.#usedBytes > this.#quotaLimitBytes)
      throw new Refusal(no('Quota exceeded', 'OVERQUOTA'));
    const release = await reservations.take(this.#context.accountId, event.sizeBytes, limits.maxAppendBytesInFlight);
    try {
      if (event.synchronising) output.write('+ Ready for literal data\r\n');
      input.reader.stream();
      await this.#receive(event.sizeBytes, head);
    } finally {
      release();
    }
  }

  async #receive(sizeBytes: number, head: MessageHead): Promise<void> {
    const { blobs } = this.#context.services;
    const writer = blobs.writer();
    this.#writers.push(writer);
    // Pages of it are real only once they are written, so a client that announces much and sends little costs little.
    const bytes = Buffer.allocUnsafeSlow(sizeBytes);
    let length = 0;
    for (;;) {
      const event = await this.#nextEvent();
      if (event?.kind === 'chunk-end') break;
      if (event?.kind !== 'chunk') throw new ConnectionClosed();
      const at = length;
      length += event.bytes.copy(bytes, length);
      await writer.write(bytes.subarray(at, length));
    }
    const blob = await writer.finish();
    const { encoded, messageIds } = summarizeWithin(bytes, mailLimits.maxSummaryBytes);
    this.#messages.push({
      blob,
      mailboxIds: [this.#mailbox!.id],
      keywords: head.flags.keywords,
      isDeleted: head.flags.deleted,
      receivedAtMs: head.receivedAtMs,
      summary: encoded,
      messageIds,
    });
  }

  async #commit(): Promise<Reply> {
    const { mail } = this.#context.services;
    const mailbox = this.#mailbox!;
    const options = this.#quotaLimitBytes === undefined ? {} : { quotaLimitBytes: this.#quotaLimitBytes };
    let uids: number[];
    let uidValidity = mailbox.uidValidity;
    try {
      const inserted = await mail.append(this.#context.accountId, this.#messages, options);
      uids = inserted.map((message) => message.uids[0]!.uid);
      uidValidity = inserted[0]?.uids[0]?.uidValidity ?? uidValidity;
    } catch (error) {
      // A mailbox that was removed meanwhile is as missing as one that never was.
      if (error instanceof MailError && error.code === 'no-mailbox') throw new Refusal(no('No such mailbox', 'TRYCREATE'));
      throw error;
    }
    return ok('APPEND completed', `APPENDUID ${uidValidity} ${formatNumbers(uids)}`);
  }

  /** Reads and drops what is still to come of a refused command. */
  async #skip(): Promise<void> {
    if (this.#context.input.reader.refuse()) return;
    for (;;) {
      const event = await this.#nextEvent();
      if (!event || (event.kind === 'fault' && event.fatal)) throw new ConnectionClosed();
      if (event.kind === 'skipped' || event.kind === 'fault') return;
    }
  }
}

/** Runs an APPEND whose first message literal has been announced. The reply is the tagged one; the whole command has been consumed then. */
export async function runAppend(context: SessionContext, first: LiteralEvent, nextEvent: EventSource): Promise<Reply> {
  try {
    return await new AppendRun(context, nextEvent).run(first);
  } catch (error) {
    const reply = replyOfError(error);
    if (!reply || error instanceof ConnectionClosed) throw error;
    return reply;
  }
}
