/** One running FETCH: gathers what the items need for a batch of messages at a time, and writes the responses. */

import { BlobCorrupt, BlobMissing } from '../../../store/blobs/contract.js';
import { KvError } from '../../../store/kv/contract.js';
import type { MailboxEntry, Message, UidList } from '../../../store/mail/contract.js';
import { formatBodyStructure, formatEnvelope, type MessageSummary } from '../../message/index.js';
import { type SessionContext, yieldEventLoop } from '../context.js';
import { formatDateTime } from '../grammar/dates.js';
import type { FetchRequest, SectionItem } from '../grammar/fetch-items.js';
import { formatFlags, formatString, rawUtf8 } from '../grammar/format.js';
import { ConnectionClosed } from '../output.js';
import { type MessageBytes, needsStructure, SectionReader, type SectionValue } from '../rendering/sections.js';
import type { SelectedMailbox } from '../selected.js';
import { readSummaries } from '../summaries.js';
import { FetchListing, isListing } from './fetch-listing.js';

/** Messages of one batch without and with sections. */
const listBatchSize = 500;
const bodyBatchSize = 64;
/** Messages up to this size are read whole, ahead of their turn: where most of them is wanted, and where only a piece is (a blob's chunk is no smaller). */
const maxReadAheadBytes = 131_072;
const maxReadAheadForPieceBytes = 65_536;
/** Messages that are read ahead at one time. */
const readAheadMessages = 8;
/** Time after which others get a turn. */
const turnMs = 10;

/** What a batch needs besides its entries, by place. */
interface Batch {
  entries: MailboxEntry[];
  summaries: (MessageSummary | undefined)[];
  messages: (Message | undefined)[];
}

export class FetchRun {
  readonly #context: SessionContext;
  readonly #selected: SelectedMailbox;
  readonly #request: FetchRequest;
  readonly #sections: SectionReader;
  readonly #needsSummary: boolean;
  readonly #needsMessage: boolean;
  readonly #setsSeen: boolean;
  readonly #readsWhole: boolean;
  #turnStartMs: number;
  #missing = 0;

  constructor(context: SessionContext, selected: SelectedMailbox, request: FetchRequest) {
    const { items, sections } = request;
    this.#context = context;
    this.#selected = selected;
    this.#request = request;
    this.#sections = new SectionReader(context.services.blobs);
    this.#needsSummary =
      items.has('PREVIEW') ||
      items.has('ENVELOPE') ||
      items.has('BODY') ||
      items.has('BODYSTRUCTURE') ||
      sections.some(needsStructure);
    this.#needsMessage = sections.length > 0 || items.has('THREADID');
    // RFC 4314 section 4: only with the right to.
    this.#setsSeen = !selected.isReadOnly && selected.place.rights.has('s') && sections.some((item) => !item.peek);
    // Reading ahead pays where most of the message is wanted, or more than one piece of it.
    this.#readsWhole =
      sections.some((item) => item.section.path.length === 0 && item.section.text !== 'HEADER') || sections.length > 1;
    this.#turnStartMs = context.services.clock.monotonicMs();
  }

  /** Answers for all of `uids` that are there (changed after `changedSince` where given); tells how many are gone. */
  async all(uids: UidList, changedSince?: number): Promise<number> {
    if (isListing(this.#request)) {
      const listing = new FetchListing(this.#context, this.#selected, this.#request.items, changedSince);
      return listing.all(uids, (done) => {
        this.#context.progress(done, uids.length);
        return this.#giveTurn();
      });
    }
    const size = this.#request.sections.length > 0 ? bodyBatchSize : listBatchSize;
    let next = this.#prepare(uids, 0, size, changedSince);
    for (let from = 0; from < uids.length; from += size) {
      const batch = await next;
      next = this.#prepare(uids, from + size, size, changedSince);
      // Awaited in the next round; a failure must not count as unhandled until then.
      next.catch(() => {});
      await this.#writeBatch(batch);
      await this.#context.output.ready();
      this.#context.progress(Math.min(uids.length, from + size), uids.length);
      await this.#giveTurn();
    }
    return this.#missing;
  }

  async #prepare(uids: UidList, from: number, size: number, changedSince: number | undefined): Promise<Batch> {
    const entries: MailboxEntry[] = [];
    const { index } = this.#selected;
    for (let i = from; i < Math.min(uids.length, from + size); i++) {
      const entry = index.get(uids[i]!);
      if (!entry) this.#missing++;
      else if (changedSince === undefined || entry.modseq > changedSince) entries.push(entry);
    }
    if (entries.length === 0) return { entries, summaries: [], messages: [] };
    const { mail } = this.#context.services;
    const { accountId } = this.#selected;
    const ids = this.#needsSummary || this.#needsMessage ? entries.map((entry) => entry.emailId) : [];
    const [summaries, messages] = await Promise.all([
      this.#needsSummary ? readSummaries(this.#context, accountId, ids) : [],
      this.#needsMessage ? mail.messages(accountId, ids) : [],
    ]);
    return { entries, summaries, messages };
  }

  async #writeBatch(batch: Batch): Promise<void> {
    const changed = this.#setsSeen ? await this.#markSeen(batch.entries) : new Set<number>();
    const showsFlags = this.#request.items.has('FLAGS') || changed.size > 0;
    if (showsFlags) this.#selected.tellKeywords(this.#context.write, batch.entries);
    if (this.#request.sections.length > 0) {
      await this.#writeWithSections(batch, changed);
      return;
    }
    const { output } = this.#context;
    for (let i = 0; i < batch.entries.length; i++) {
      const line = this.#simpleItems(batch, i, false);
      if (line === undefined) this.#missing++;
      else output.write(`${line})\r\n`);
      if (i % 64 === 63) {
        await output.ready();
        await this.#giveTurn();
      }
    }
  }

  /** One change for the batch (RFC 9051 6.4.5: BODY[] sets \Seen). Reading must go on when the store takes no writes for want of space. */
  async #markSeen(entries: MailboxEntry[]): Promise<Set<number>> {
    const unseen = entries.filter((entry) => !entry.keywords.includes('$seen')).map((entry) => entry.uid);
    const changed = new Set<number>();
    if (unseen.length === 0) return changed;
    const { mail } = this.#context.services;
    try {
      const change = { mode: 'add', keywords: ['$seen'], deleted: false } as const;
      const result = await mail.changeFlags(this.#selected.accountId, this.#selected.mailbox.id, unseen, change);
      const after = new Map(result.entries.map((entry) => [entry.uid, entry]));
      for (let i = 0; i < entries.length; i++) {
        const entry = after.get(entries[i]!.uid);
        if (!entry) continue;
        entries[i] = entry;
        changed.add(entry.uid);
        this.#selected.markKnown(entry.uid, entry.modseq);
      }
    } catch (error) {
      if (!(error instanceof KvError) || error.reason !== 'no-space') throw error;
      this.#context.logger.warn({ err: error }, '\\Seen not set: no space');
    }
    return changed;
  }

  /** The response up to (without) its closing parenthesis; undefined when the message vanished while we were reading. */
  #simpleItems(batch: Batch, at: number, withFlags: boolean): string | undefined {
    const entry = batch.entries[at]!;
    const { items } = this.#request;
    const summary = batch.summaries[at];
    if (this.#needsSummary && !summary) return undefined;
    let text = this.#context.fetchHead(entry.uid);
    let gap = '';
    const add = (item: string) => {
      text += gap + item;
      gap = ' ';
    };
    // RFC 7162 3.2.4: flags that are told as news come with the UID.
    if (items.has('UID') || (withFlags && this.#context.condstore)) add(`UID ${entry.uid}`);
    if (items.has('FLAGS') || withFlags)
      add(`FLAGS ${formatFlags(entry.keywords, entry.isDeleted, this.#selected.isRecent(entry.uid))}`);
    // RFC 7162 3.1: with CONDSTORE every FETCH that tells flags as news tells the modseq too.
    if (items.has('MODSEQ') || (withFlags && this.#context.condstore)) add(`MODSEQ (${entry.modseq})`);
    if (items.has('INTERNALDATE')) add(`INTERNALDATE "${formatDateTime(entry.receivedAtMs)}"`);
    if (items.has('RFC822.SIZE')) add(`RFC822.SIZE ${entry.sizeBytes}`);
    if (items.has('SAVEDATE')) add(`SAVEDATE "${formatDateTime(entry.savedAtMs)}"`);
    if (items.has('EMAILID')) add(`EMAILID (${entry.emailId})`);
    if (items.has('THREADID')) {
      const message = batch.messages[at];
      if (!message) return undefined;
      add(`THREADID (${message.threadId})`);
    }
    if (summary) {
      if (items.has('ENVELOPE')) add(`ENVELOPE ${formatEnvelope(summary.envelope)}`);
      if (items.has('BODY')) add(`BODY ${formatBodyStructure(summary.structure, false)}`);
      if (items.has('BODYSTRUCTURE')) add(`BODYSTRUCTURE ${formatBodyStructure(summary.structure, true)}`);
      if (items.has('PREVIEW')) add(`PREVIEW ${formatString(rawUtf8(summary.preview ?? ''))}`);
    }
    return text;
  }

  async #writeWithSections(batch: Batch, changed: ReadonlySet<number>): Promise<void> {
    const ahead = new ReadAhead(this.#context, batch, this.#readsWhole ? maxReadAheadBytes : maxReadAheadForPieceBytes);
    for (let i = 0; i < batch.entries.length; i++) {
      const isNews = changed.has(batch.entries[i]!.uid);
      if (!(await this.#writeOne(batch, i, ahead, isNews))) this.#missing++;
      await this.#context.output.ready();
      await this.#giveTurn();
    }
  }

  /** False, with nothing written, for a message that is gone, or whose bytes are: the others of the batch are given all the same. */
  async #writeOne(batch: Batch, at: number, ahead: ReadAhead, withFlags: boolean): Promise<boolean> {
    const message = batch.messages[at];
    try {
      const whole = await ahead.take(at);
      const head = message && this.#simpleItems(batch, at, withFlags);
      if (!message || head === undefined) return false;
      const bytes: MessageBytes = { blobId: message.blobId, sizeBytes: message.sizeBytes, ...(whole ? { whole } : {}) };
      await this.#writeSections(head, bytes, batch.summaries[at]);
      return true;
    } catch (error) {
      if (!(error instanceof BlobMissing || error instanceof BlobCorrupt)) throw error;
      this.#context.logger.error({ err: error, emailId: message?.id }, 'a message can not be read');
      return false;
    }
  }

  /** Values that fit in memory are ready before the first byte is written, so that a failure leaves the line unbroken. */
  async #writeSections(head: string, bytes: MessageBytes, summary: MessageSummary | undefined): Promise<void> {
    const { sections } = this.#request;
    const { output } = this.#context;
    const structure = summary?.structure;
    const first = await this.#sections.read(sections[0]!, bytes, structure);
    output.write(head.endsWith('(') ? head : `${head} `);
    try {
      await this.#writeSection(sections[0]!, first, bytes);
      for (let i = 1; i < sections.length; i++) {
        const value = await this.#sections.read(sections[i]!, bytes, structure);
        output.write(' ');
        await this.#writeSection(sections[i]!, value, bytes);
      }
    } catch (error) {
      // In the middle of a response nothing can be said any more.
      this.#context.logger.error({ err: error }, 'a body broke off in the middle');
      throw new ConnectionClosed();
    }
    output.write(')\r\n');
  }

  async #writeSection(item: SectionItem, value: SectionValue, message: MessageBytes): Promise<void> {
    const { output, services } = this.#context;
    const origin = item.partial && value.kind !== 'nil' ? `<${item.partial.offset}>` : '';
    const name = `${item.label}${origin} `;
    if (value.kind === 'nil') output.write(`${name}NIL`);
    else if (value.kind === 'number') output.write(`${name}${value.value}`);
    else if (value.kind === 'bytes') {
      const mark = value.binary && value.bytes.includes(0) ? '~' : '';
      output.write(`${name}${mark}{${value.bytes.length}}\r\n`);
      output.bytes(value.bytes);
    } else {
      const length = value.range.end - value.range.start;
      output.write(`${name}{${length}}\r\n`);
      let sent = 0;
      for await (const chunk of services.blobs.stream(message.blobId, value.range)) {
        sent += chunk.length;
        output.bytes(chunk);
        await output.ready();
      }
      if (sent !== length) throw new Error(`blob ${message.blobId} gave ${sent} bytes instead of ${length}`);
    }
  }

  async #giveTurn(): Promise<void> {
    const { clock } = this.#context.services;
    if (clock.monotonicMs() - this.#turnStartMs < turnMs) return;
    await yieldEventLoop();
    this.#turnStartMs = clock.monotonicMs();
  }
}

/** Reads small messages of a batch before their turn, a bounded number at one time. */
class ReadAhead {
  readonly #context: SessionContext;
  readonly #batch: Batch;
  readonly #maxBytes: number;
  readonly #reads = new Map<number, Promise<Buffer | undefined>>();
  #next = 0;

  constructor(context: SessionContext, batch: Batch, maxBytes: number) {
    this.#context = context;
    this.#batch = batch;
    this.#maxBytes = maxBytes;
  }

  /** The whole message at this place; undefined when it is not read ahead. Places are taken in order. */
  take(at: number): Promise<Buffer | undefined> | undefined {
    while (this.#next < this.#batch.messages.length && this.#next < at + readAheadMessages) {
      const message = this.#batch.messages[this.#next];
      if (message && message.sizeBytes <= this.#maxBytes) {
        const read = this.#context.services.blobs.read(message.blobId);
        read.catch(() => {});
        this.#reads.set(this.#next, read);
      }
      this.#next++;
    }
    const read = this.#reads.get(at);
    this.#reads.delete(at);
    return read;
  }
}
