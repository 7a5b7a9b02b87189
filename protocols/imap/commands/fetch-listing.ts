/**
 * FETCH of what the index knows and of ENVELOPE and BODYSTRUCTURE, for any number of messages: straight from the index's columns and the stored records into
 * the output, without an object per message.
 */
import type { EmailId, IndexView, UidList } from '../../../store/mail/contract.js';
import type { Rendering } from '../../message/index.js';
import type { SessionContext } from '../context.js';
import { formatDateTime } from '../grammar/dates.js';
import type { FetchRequest, SimpleItem } from '../grammar/fetch-items.js';
import { formatFlags } from '../grammar/format.js';
import { lowerBound } from '../grammar/sequence-set.js';
import { NumberedLines } from '../numbered-lines.js';
import type { SelectedMailbox } from '../selected.js';
import { readRenderings } from '../summaries.js';

const indexBatchSize = 1_000;
const renderedBatchSize = 500;
const rendered: ReadonlySet<SimpleItem> = new Set<SimpleItem>(['ENVELOPE', 'BODYSTRUCTURE']);
const listed: ReadonlySet<SimpleItem> = new Set<SimpleItem>([
  ...(['UID', 'FLAGS', 'MODSEQ', 'INTERNALDATE', 'RFC822.SIZE', 'SAVEDATE', 'EMAILID'] as const),
  ...rendered,
]);

/** Whether a request asks for nothing else. */
export function isListing({ items, sections }: FetchRequest): boolean {
  if (sections.length > 0) return false;
  for (const item of items) if (!listed.has(item)) return false;
  return true;
}

/** Responses that were begun, without ENVELOPE, BODYSTRUCTURE and the end; and the messages that they are about. */
interface Begun {
  heads: string[];
  ids: EmailId[];
}

export class FetchListing {
  readonly #context: SessionContext;
  readonly #selected: SelectedMailbox;
  readonly #items: ReadonlySet<SimpleItem>;
  readonly #changedSince: number;
  #missing = 0;

  constructor(context: SessionContext, selected: SelectedMailbox, items: ReadonlySet<SimpleItem>, changedSince?: number) {
    this.#context = context;
    this.#selected = selected;
    this.#items = items;
    this.#changedSince = changedSince ?? Number.NEGATIVE_INFINITY;
  }

  /** Answers for all of `uids` (ascending) that are there; tells how many are gone. `giveTurn` lets others run now and then. */
  async all(uids: UidList, giveTurn: (done: number) => Promise<void> | undefined): Promise<number> {
    const isRendered = [...this.#items].some((item) => rendered.has(item));
    if (isRendered) await this.#renderedAll(uids, giveTurn);
    else await this.#indexedAll(uids, giveTurn);
    return this.#missing;
  }

  async #indexedAll(uids: UidList, giveTurn: (done: number) => Promise<void> | undefined): Promise<void> {
    const { output, uidOnly } = this.#context;
    const wanted = new Wanted(this.#items, uidOnly);
    const lines = wanted.isFlagsAlone ? new NumberedLines(output, wanted.middle, uids.length) : undefined;
    for (let from = 0; from < uids.length; from += indexBatchSize) {
      const to = Math.min(uids.length, from + indexBatchSize);
      let text = '';
      this.#visit(uids, from, to, (message) => {
        if (lines) lines.add(message.sequence, wanted.withUid ? message.uid : -1, wanted.flagsTail(message));
        else text += `${this.#headOf(message, wanted)})\r\n`;
      });
      lines?.flush();
      output.write(text);
      await output.ready();
      await giveTurn(to);
    }
  }

  /** The records of the next batch are read while one is written. */
  async #renderedAll(uids: UidList, giveTurn: (done: number) => Promise<void> | undefined): Promise<void> {
    const { output } = this.#context;
    let next = this.#prepare(uids, 0);
    for (let from = 0; from < uids.length; from += renderedBatchSize) {
      const { begun, renderings } = await next;
      next = this.#prepare(uids, from + renderedBatchSize);
      // Awaited in the next round; a failure must not count as unhandled until then.
      next.catch(() => {});
      for (let i = 0; i < begun.heads.length; i++) {
        const rendering = renderings[i];
        if (rendering) output.write(this.#finished(begun.heads[i]!, rendering));
        else this.#missing++;
        if (i % 64 === 63) await output.ready();
      }
      await output.ready();
      await giveTurn(Math.min(uids.length, from + renderedBatchSize));
    }
  }

  async #prepare(uids: UidList, from: number): Promise<{ begun: Begun; renderings: (Rendering | undefined)[] }> {
    const begun: Begun = { heads: [], ids: [] };
    const wanted = new Wanted(this.#items, this.#context.uidOnly);
    this.#visit(uids, from, Math.min(uids.length, from + renderedBatchSize), (message) => {
      begun.heads.push(this.#headOf(message, wanted));
      begun.ids.push(message.view.emailIdAt(message.at));
    });
    if (begun.ids.length === 0) return { begun, renderings: [] };
    return { begun, renderings: await readRenderings(this.#context, this.#selected.accountId, begun.ids) };
  }

  #finished(head: string, { envelope, bodyStructure }: Rendering): string {
    const items = this.#items;
    let text = head.endsWith('(') ? head : `${head} `;
    if (items.has('ENVELOPE')) text += items.has('BODYSTRUCTURE') ? `ENVELOPE ${envelope} ` : `ENVELOPE ${envelope}`;
    if (items.has('BODYSTRUCTURE')) text += `BODYSTRUCTURE ${bodyStructure}`;
    return `${text})\r\n`;
  }

  #headOf(message: Visited, wanted: Wanted): string {
    return this.#context.fetchHead(message.uid, message.sequence) + wanted.text(message);
  }

  /** Calls `each` for each of these places of `uids` that is still there. Synchronous: it is one view of the mailbox. */
  #visit(uids: UidList, from: number, to: number, each: (message: Visited) => void): void {
    if (from >= to) return;
    const { index, uids: announced } = this.#selected;
    this.#selected.tellKeywords(this.#context.write);
    const view = index.view();
    const recent = this.#selected.recent;
    const firstRecent = recent?.lowest ?? Number.POSITIVE_INFINITY;
    const message: Visited = { view, at: 0, uid: 0, sequence: 0, isRecent: false };
    let at = lowerBound(view.uids, uids[from]!);
    let place = lowerBound(announced, uids[from]!);
    for (let i = from; i < to; i++) {
      const uid = uids[i]!;
      // Both lists ascend as `uids` does: mostly this is the next of each.
      if (view.uids[at] !== uid) at = lowerBound(view.uids, uid);
      if (announced[place] !== uid) place = lowerBound(announced, uid);
      if (view.uids[at] !== uid) {
        this.#missing++;
        continue;
      }
      if (view.modseqAt(at) > this.#changedSince) {
        message.at = at;
        message.uid = uid;
        message.sequence = announced[place] === uid ? place + 1 : 0;
        message.isRecent = uid >= firstRecent && recent!.has(uid);
        each(message);
      }
      at++;
      place++;
    }
  }
}

/** A message of the view; one object for all messages of a visit. */
interface Visited {
  view: IndexView;
  at: number;
  uid: number;
  /** 0 where it has not been announced. */
  sequence: number;
  isRecent: boolean;
}

/** What is asked for of the index, looked up once. */
class Wanted {
  readonly withUid: boolean;
  /** FLAGS, perhaps with UID, and nothing else, of messages with numbers. */
  readonly isFlagsAlone: boolean;
  readonly #flags: boolean;
  /** Anything but UID and FLAGS. */
  readonly #more: boolean;
  readonly #items: ReadonlySet<SimpleItem>;
  /** Texts of flags numbers, good for one visit: numbers may mean something else in the next. */
  readonly #known = new Map<number, string>();
  #visit: Visited | undefined;
  #lastKey = Number.NaN;
  #last = '';

  constructor(items: ReadonlySet<SimpleItem>, uidOnly: boolean) {
    this.#items = items;
    this.withUid = items.has('UID');
    this.#flags = items.has('FLAGS');
    this.#more = [...items].some((item) => item !== 'UID' && item !== 'FLAGS' && !rendered.has(item));
    this.isFlagsAlone = this.#flags && !uidOnly && items.size === (this.withUid ? 2 : 1);
  }

  /** Where there is nothing but FLAGS and UID: what comes between the sequence number and the UID, or the flags. */
  get middle(): string {
    return this.withUid ? ' FETCH (UID ' : ' FETCH (';
  }

  /** Where there is nothing but FLAGS and UID: all from the flags to the closing parenthesis. */
  flagsTail(message: Visited): string {
    return this.#flagsOf(message);
  }

  /** The items of one message, separated by spaces. */
  text(message: Visited): string {
    let text = this.withUid ? `UID ${message.uid}` : '';
    if (this.#flags) text = this.withUid ? `${text} ${this.#flagsOf(message)}` : this.#flagsOf(message);
    return this.#more ? this.#others(text, message.view, message.at) : text;
  }

  #flagsOf(message: Visited): string {
    const { view, at, isRecent } = message;
    if (message !== this.#visit) {
      this.#known.clear();
      this.#visit = message;
      this.#lastKey = Number.NaN;
    }
    const number = view.flagsAt(at);
    const key = isRecent ? -1 - number : number;
    if (key === this.#lastKey) return this.#last;
    let flags = this.#known.get(key);
    if (flags === undefined) {
      flags = `FLAGS ${formatFlags(view.keywordsOf(number), view.isDeletedOf(number), isRecent)}`;
      // Alone it is the end of the response as well.
      if (this.isFlagsAlone) flags = `${this.withUid ? ' ' : ''}${flags})`;
      this.#known.set(key, flags);
    }
    this.#lastKey = key;
    this.#last = flags;
    return flags;
  }

  #others(begin: string, view: IndexView, at: number): string {
    const items = this.#items;
    let text = begin;
    const add = (item: string) => {
      text = text === '' ? item : `${text} ${item}`;
    };
    if (items.has('MODSEQ')) add(`MODSEQ (${view.modseqAt(at)})`);
    if (items.has('INTERNALDATE')) add(`INTERNALDATE "${formatDateTime(view.receivedAtMsAt(at))}"`);
    if (items.has('RFC822.SIZE')) add(`RFC822.SIZE ${view.sizeBytesAt(at)}`);
    if (items.has('SAVEDATE')) add(`SAVEDATE "${formatDateTime(view.savedAtMsAt(at))}"`);
    if (items.has('EMAILID')) add(`EMAILID (${view.emailIdAt(at)})`);
    return text;
  }
}
