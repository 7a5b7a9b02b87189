/**
 * Brings the full-text index of one account up to date: by the change log where it reaches back far enough, else by going through all messages.
 * Every step is saved with how far it got, so that it may end at any moment and anybody may go on.
 */
import { type Clock, counter, histogram } from '../../../ops/telemetry/index.js';
import type { AccountId, EmailId } from '../../../store/mail/contract.js';
import type { OpenMailStore } from '../../../store/mail/index.js';
import { type SearchDocument, SearchError, type SearchStore } from '../../../store/search/contract.js';
import { type DocumentDependencies, documentsOf } from './documents.js';

const scansTotal = counter(
  'starling_search_scans_total',
  'Accounts whose messages were all gone through for the full-text index.',
);
const batchSeconds = histogram(
  'starling_search_batch_seconds',
  'From reading the first message of a batch to its place in the index.',
);

export interface WorkSettings {
  /** Messages that are added at one time. */
  batchMessages: number;
  /** Text that is added at one time, in characters. */
  batchChars: number;
}

export interface WorkDependencies extends DocumentDependencies {
  search: SearchStore;
  mail: Pick<OpenMailStore, 'messages' | 'summaries' | 'exists' | 'usage' | 'changesSince' | 'messageIds'>;
  clock: Clock;
  workSettings: () => WorkSettings;
}

/**
 * How a turn ended. `done`: everything up to `modseq` is in. `more`: the time was over, or somebody else was faster. `left`: a newer release's index, which is
 * not to be touched. `gone`: there is no such account, and no index of it any more.
 */
export type WorkResult = { outcome: 'done' | 'gone'; modseq: number } | { outcome: 'more' | 'left' };

/** Where the walk through all messages of an account stands. */
interface Walk {
  /** The index stood at this modseq when it began. */
  fromModseq: number;
  /** Messages of later changes are found in the log. */
  targetModseq: number;
  afterId: EmailId | undefined;
  /** In the index when it was left. With another number somebody else has been there, or it was begun anew: then the walk is of no use. */
  documents: number;
}

const setsPerRead = 500;
const idsPerRead = 500;
/** Messages and summaries that are in memory at one time. */
const messagesPerRead = 50;
/** Changes without new messages are not worth a write, unless the log goes on so far that it may be truncated. */
const unsavedModseqs = 1_000;
/** Merges after one turn. */
const maxTidySteps = 64;
/** Walks that are remembered; the others find their place by what is in the index. */
const maxWalks = 100;

/** The index has moved under us: another node works on the same account. */
class Overtaken extends Error {}

export class AccountWork {
  readonly #d: WorkDependencies;
  readonly #walks = new Map<AccountId, Walk>();

  constructor(dependencies: WorkDependencies) {
    this.#d = dependencies;
  }

  /** For the search store, which is not left in the middle of a segment: at the end of the service it goes on without rests. */
  readonly #breathe = (): Promise<void> => this.#d.pause().catch(() => undefined);

  /** One turn, until about `untilMs` (monotonic). Throws KvError, and the reason of the pace's signal. */
  async turn(accountId: AccountId, untilMs: number): Promise<WorkResult> {
    try {
      const result = await this.#turn(accountId, untilMs);
      if (result.outcome === 'done') await this.tidy(accountId);
      return result;
    } catch (error) {
      if (error instanceof Overtaken) return { outcome: 'more' };
      if (!(error instanceof SearchError)) throw error;
      if (error.code === 'unknown-format') return { outcome: 'left' };
      if (error.code === 'changed') return { outcome: 'more' };
      this.#d.logger.error({ err: error, accountId }, 'a full-text index is damaged and is made anew');
      await this.#d.search.remove(accountId);
      return { outcome: 'more' };
    }
  }

  /** About how many messages searches must look through for want of an index; 0 where that can't be told. Throws KvError. */
  async tail(accountId: AccountId): Promise<number> {
    const { mail, search } = this.#d;
    try {
      const [usage, progress] = await Promise.all([mail.usage(accountId), search.progress(accountId)]);
      return Math.max(0, usage.messages - (progress?.documents ?? 0));
    } catch (error) {
      if (error instanceof SearchError) return 0;
      throw error;
    }
  }

  /** Merges, and drops what was destroyed. */
  async tidy(accountId: AccountId): Promise<void> {
    const { search, mail, pause } = this.#d;
    const isGone = async (ids: readonly EmailId[]) =>
      (await mail.messages(accountId, ids)).map((message) => message === undefined);
    for (let step = 0; step < maxTidySteps && (await search.tidy(accountId, isGone, this.#breathe)); step++) await pause();
  }

  async #turn(accountId: AccountId, untilMs: number): Promise<WorkResult> {
    const { mail, search } = this.#d;
    // Read first: what is noted for an account that is made again at this moment is later.
    const { modseq } = await mail.usage(accountId);
    if (!(await mail.exists(accountId))) {
      await search.remove(accountId);
      return { outcome: 'gone', modseq };
    }
    const progress = await search.progress(accountId);
    const run = new Run(this.#d, accountId, progress?.modseq ?? 0, this.#breathe);
    // At 0 the first walk has not been ended: it knows what is in already.
    const reach = run.modseq === 0 ? undefined : await mail.changesSince(accountId, run.modseq, 1);
    if (!reach && run.modseq > (await mail.usage(accountId)).modseq) {
      // Of an account that has been put back to an earlier state: the same modseqs mean other messages now.
      await search.remove(accountId);
      return { outcome: 'more' };
    }
    if (!reach && !(await this.#walk(run, progress?.documents ?? 0, untilMs))) return { outcome: 'more' };
    return this.#follow(run, untilMs);
  }

  /** Goes through all messages. False when the time was over. */
  async #walk(run: Run, documents: number, untilMs: number): Promise<boolean> {
    const { mail, search, clock } = this.#d;
    const { accountId } = run;
    const known = this.#walks.get(accountId);
    const isValid = known && known.fromModseq === run.modseq && documents === known.documents;
    const walk: Walk = isValid
      ? known
      : { fromModseq: run.modseq, targetModseq: (await mail.usage(accountId)).modseq, afterId: undefined, documents };
    if (!isValid) scansTotal.inc();
    this.#walks.delete(accountId);
    // What an earlier walk has put in need not be read again.
    const view = await search.open(accountId);
    for (let isOver = false; !isOver; ) {
      const ids = await mail.messageIds(accountId, {
        limit: idsPerRead,
        ...(walk.afterId !== undefined && { afterId: walk.afterId }),
      });
      isOver = ids.length < idsPerRead;
      await run.take(ids.filter((id) => !view || view.documentOf(id) < 0).map((id) => ({ id, before: run.modseq })));
      walk.afterId = ids.at(-1) ?? walk.afterId;
      if (!isOver && clock.monotonicMs() >= untilMs) {
        await run.flush(run.modseq);
        walk.documents = await this.#documentsNow(run, documents);
        if (this.#walks.size >= maxWalks) this.#walks.delete(this.#walks.keys().next().value!);
        this.#walks.set(accountId, walk);
        return false;
      }
    }
    await run.flush(run.modseq);
    await this.#documentsNow(run, documents);
    await run.flush(Math.max(walk.targetModseq, run.modseq), true);
    return true;
  }

  /**
   * Documents in the index. Throws Overtaken where there are fewer than this turn found and added: it was removed meanwhile and begun anew by our own next batch,
   * so that what came before is not in it. The next turn goes from the start, and reads only what is missing.
   */
  async #documentsNow({ accountId, added }: Run, before: number): Promise<number> {
    const now = (await this.#d.search.progress(accountId))?.documents ?? 0;
    if (now < before + added) throw new Overtaken();
    return now;
  }

  /** Reads the change log from where the index stands. */
  async #follow(run: Run, untilMs: number): Promise<WorkResult> {
    const { mail, clock } = this.#d;
    let reached = run.modseq;
    for (;;) {
      const changes = await mail.changesSince(run.accountId, reached, setsPerRead);
      // Truncated this moment: the next turn goes through all messages.
      if (!changes) return { outcome: 'more' };
      const created = changes.sets.flatMap(({ modseq, changes: list }) =>
        list.flatMap((change) => (change.kind === 'email-created' ? [{ id: change.emailId, before: modseq - 1 }] : [])),
      );
      await run.take(created);
      reached = changes.upToModseq;
      await run.flush(reached, reached - run.modseq >= unsavedModseqs);
      if (!changes.hasMore) return { outcome: 'done', modseq: reached };
      if (clock.monotonicMs() >= untilMs) return { outcome: 'more' };
    }
  }
}

interface Wanted {
  id: EmailId;
  /** All changes up to this one are in the index when everything in front of this message is. */
  before: number;
}

/** The batches of one turn. */
class Run {
  #documents: SearchDocument[] = [];
  #chars = 0;
  #beganMs = 0;
  /** Documents that were put into the index. */
  added = 0;

  constructor(
    private readonly d: WorkDependencies,
    readonly accountId: AccountId,
    /** Where the index stands. */
    public modseq: number,
    private readonly breathe: () => Promise<void>,
  ) {}

  async take(wanted: readonly Wanted[]): Promise<void> {
    const { clock, workSettings } = this.d;
    for (let at = 0; at < wanted.length; at += messagesPerRead) {
      const part = wanted.slice(at, at + messagesPerRead);
      const beforeOf = new Map(part.map(({ id, before }) => [id, before]));
      for await (const document of documentsOf(this.d, this.accountId, [...beforeOf.keys()])) {
        const { batchMessages, batchChars } = workSettings();
        if (this.#documents.length >= batchMessages || this.#chars >= batchChars) {
          await this.flush(Math.max(this.modseq, beforeOf.get(document.emailId) ?? 0));
        }
        if (this.#documents.length === 0) this.#beganMs = clock.monotonicMs();
        this.#documents.push(document);
        for (const { text } of document.texts) this.#chars += text.length;
      }
    }
  }

  /** Puts the batch into the index; an empty one only where how far it is `mustBeSaved`. Throws Overtaken. */
  async flush(toModseq: number, mustBeSaved = false): Promise<void> {
    const documents = this.#documents;
    if (documents.length === 0 && !(mustBeSaved && toModseq > this.modseq)) return;
    const { search, clock } = this.d;
    this.#documents = [];
    this.#chars = 0;
    const step = { fromModseq: this.modseq, toModseq };
    if (!(await search.add(this.accountId, documents, step, this.breathe))) throw new Overtaken();
    this.modseq = toModseq;
    this.added += documents.length;
    if (documents.length > 0) batchSeconds.observe((clock.monotonicMs() - this.#beganMs) / 1000);
  }
}
