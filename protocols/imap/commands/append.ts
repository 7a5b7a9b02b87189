/**
 * APPEND (RFC 9051 6.3.12) with MULTIAPPEND (RFC 3502) and UTF8 (RFC 6855), and REPLACE (RFC 8508). Each message goes to a blob as it comes in, and is held once for its
 * summary; all of them become visible in one transaction, or none.
 */
import type { BlobWriter } from '../../../store/blobs/contract.js';
import { type AccountId, type InsertedMessage, MailError, mailLimits, type NewMessage } from '../../../store/mail/contract.js';
import { summarizeWithin, withoutNulParts } from '../../message/index.js';
import type { SessionContext } from '../context.js';
import { Cursor } from '../grammar/cursor.js';
import { parseDateTime } from '../grammar/dates.js';
import type { RawCommand, ReaderEvent } from '../grammar/reader.js';
import { formatNumbers } from '../grammar/sequence-set.js';
import { messageLimit, refusedByLimit } from '../message-limit.js';
import { ConnectionClosed } from '../output.js';
import { type MailboxPlace, permittedFlags, requirePlace, requireRights } from '../places.js';
import { bad, no, ok, Refusal, type Reply, replyOfError, uidRequired } from '../replies.js';
import type { SelectedMailbox } from '../selected.js';
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

/** What stands in front of the first message. */
interface Heading {
  name: 'APPEND' | 'REPLACE';
  /** Of the message that REPLACE replaces. */
  number: number;
  byUid: boolean;
  /** Undefined when it is itself a literal still to come. */
  mailbox: string | undefined;
}

function readHeading(cursor: Cursor): Heading {
  cursor.tag();
  cursor.space();
  let name = cursor.word();
  const byUid = name === 'UID';
  if (byUid) {
    cursor.space();
    name = cursor.word();
  }
  cursor.space();
  const isReplace = name === 'REPLACE';
  let number = 0;
  if (isReplace) {
    number = cursor.number();
    cursor.space();
  }
  return { name: isReplace ? 'REPLACE' : 'APPEND', number, byUid, mailbox: cursor.isAtEnd ? undefined : cursor.astring() };
}

/** The command whose message a literal is that has been announced (and not its mailbox name); undefined when it is none. */
export function announcesMessage(soFar: RawCommand, context: SessionContext): Heading['name'] | undefined {
  if (!/^[^ ]{1,64} (?:APPEND|(?:UID )?REPLACE) /i.test(soFar.texts[0] ?? '')) return undefined;
  try {
    const heading = readHeading(new Cursor(soFar, context.services.limits.grammar));
    return heading.mailbox === undefined ? undefined : heading.name;
  } catch {
    return undefined;
  }
}

/** The message that goes when the new one is there. */
interface Replaced {
  selected: SelectedMailbox;
  uid: number;
}

/** Finds what REPLACE names. Throws a refusal where it may not go. */
async function findReplaced(context: SessionContext, { number, byUid }: Heading): Promise<Replaced> {
  if (context.uidOnly && !byUid) throw new Refusal(uidRequired);
  const selected = context.requireWritable();
  await context.refresh();
  requireRights(selected.place.rights, 't', 'e');
  const uid = byUid ? number : selected.uids[number - 1];
  if (uid === undefined || uid === 0) throw new Refusal(bad('No message has that number'));
  if (!selected.index.get(uid))
    throw new Refusal(no('The message to be replaced is gone', byUid ? 'NONEXISTENT' : 'EXPUNGEISSUED'));
  return { selected, uid };
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

/**
 * Short messages are written by the transaction that files them; those of a MULTIAPPEND that are together longer than this go to the store as they come, so that
 * the transaction keeps within its limit and the process within its memory.
 */
const maxHeldBytes = 2_500_000;

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
  #place: MailboxPlace | undefined;
  #replaced: Replaced | undefined;
  #quotaLimitBytes: number | undefined;
  #usedBytes = 0;
  /** Of messages that have come, what the transaction at the end will write. */
  #heldBytes = 0;
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
    const heading = readHeading(cursor);
    const name = heading.mailbox!;
    if (heading.name === 'REPLACE') this.#replaced = await findReplaced(this.#context, heading);
    const found = requirePlace(await this.#context.find(this.#context.path(name)), 'TRYCREATE', 'i');
    this.#place = found;
    this.#quotaLimitBytes = await this.#context.quotaLimitBytes(found.accountId);
    if (this.#quotaLimitBytes !== undefined) this.#usedBytes = (await mail.usage(found.accountId)).usedBytes;
    const { selected, uid } = this.#replaced ?? {};
    // The store looks again when it counts what the old message gives back.
    if (selected && uid && selected.accountId === found.accountId) this.#usedBytes -= selected.index.get(uid)?.sizeBytes ?? 0;
  }

  /** Takes one message from its head to its last byte. */
  async #message(cursor: Cursor, event: LiteralEvent): Promise<void> {
    const { services, output, input } = this.#context;
    const { limits } = services;
    if (this.#replaced && this.#messages.length > 0) throw new Refusal(bad('REPLACE takes one message'));
    const head = readHead(cursor, services.clock.nowMs());
    this.#inUtf8 = head.inUtf8;
    if (event.sizeBytes > limits.grammar.maxMessageBytes) throw new Refusal(no('Message too large', 'TOOBIG'));
    // RFC 3502: a client cancels a MULTIAPPEND with an empty message.
    if (event.sizeBytes === 0) throw new Refusal(no('Empty message, nothing appended'));
    // RFC 9738 3.1: all or nothing.
    if (this.#messages.length >= messageLimit(this.#context)) throw refusedByLimit(this.#context);
    if (this.#messages.length >= limits.maxAppendMessages) throw new Refusal(no('Too many messages in one APPEND', 'LIMIT'));
    this.#usedBytes += event.sizeBytes;
    if (this.#quotaLimitBytes !== undefined && this.#usedBytes > this.#quotaLimitBytes)
      throw new Refusal(no('Quota exceeded', 'OVERQUOTA'));
    const release = await reservations.take(this.#context.accountId, event.sizeBytes, limits.maxAppendBytesInFlight);
    try {
      if (event.synchronising) output.write('+ Ready for literal data\r\n');
      input.reader.stream();
      await this.#receive(event, head);
    } finally {
      release();
    }
  }

  async #receive({ sizeBytes, binary }: LiteralEvent, head: MessageHead): Promise<void> {
    const { blobs } = this.#context.services;
    const writer = blobs.writer({ maxHeldBytes: maxHeldBytes - this.#heldBytes });
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
    // RFC 3516 4.3; in a plain literal there is no NUL by the grammar, and what a client sends there all the same is kept to the byte.
    const message = binary ? withoutNulParts(bytes) : bytes;
    const blob = await (message === bytes ? writer : await this.#rewritten(writer, message)).finish();
    this.#heldBytes += blob.heldBytes ?? 0;
    const { encoded, messageIds, missingLineEndBytes } = summarizeWithin(message, mailLimits.maxSummaryBytes);
    const flags = permittedFlags(this.#place!.rights, head.flags);
    this.#messages.push({
      blob,
      mailboxIds: [this.#place!.mailbox.id],
      keywords: flags.keywords,
      isDeleted: flags.deleted,
      receivedAtMs: head.receivedAtMs,
      summary: encoded,
      messageIds,
      missingLineEndBytes,
    });
  }

  /** Another writer, for what the message has become. */
  async #rewritten(before: BlobWriter, message: Buffer): Promise<BlobWriter> {
    await before.abort();
    const writer = this.#context.services.blobs.writer({ maxHeldBytes: maxHeldBytes - this.#heldBytes });
    this.#writers.push(writer);
    await writer.write(message);
    return writer;
  }

  async #commit(): Promise<Reply> {
    const { accountId, mailbox } = this.#place!;
    await this.#requireRightsStill();
    let inserted: InsertedMessage[];
    try {
      inserted = await this.#store();
    } catch (error) {
      // A mailbox that was removed meanwhile is as missing as one that never was.
      if (error instanceof MailError && error.code === 'no-mailbox') throw new Refusal(no('No such mailbox', 'TRYCREATE'));
      throw error;
    }
    const uids = inserted.map((message) => message.uids[0]!.uid);
    this.#context.markOwn(accountId, mailbox.id, uids);
    const code = `APPENDUID ${inserted[0]?.uids[0]?.uidValidity ?? mailbox.uidValidity} ${formatNumbers(uids)}`;
    if (!this.#replaced) return ok('APPEND completed', code);
    // RFC 8508 section 3: in front of the EXPUNGE of the old one.
    this.#context.untagged(`OK [${code}] The new message is there`);
    return { ...ok('REPLACE completed'), hasRemoved: true };
  }

  /** A message may take long to come in: what was taken back meanwhile is not there any more. */
  async #requireRightsStill(): Promise<void> {
    const { accountId, shared } = this.#context;
    const place = this.#place!;
    if (shared && place.accountId !== accountId) {
      const rights = await shared.rightsOf(place.accountId, place.mailbox.id);
      requirePlace({ ...place, rights }, 'TRYCREATE', 'i');
    }
    const { selected } = this.#replaced ?? {};
    if (!selected || selected.accountId === accountId) return;
    await this.#context.refresh();
    requireRights(selected.place.rights, 't', 'e');
  }

  async #store(): Promise<InsertedMessage[]> {
    const { mail } = this.#context.services;
    const { accountId } = this.#place!;
    const options = this.#quotaLimitBytes === undefined ? {} : { quotaLimitBytes: this.#quotaLimitBytes };
    if (!this.#replaced) return mail.append(accountId, this.#messages, options);
    const { selected, uid } = this.#replaced;
    const from = { accountId: selected.accountId, mailboxId: selected.mailbox.id };
    return [await mail.replace(from, uid, accountId, this.#messages[0]!, options)];
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
