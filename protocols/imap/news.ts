/**
 * Telling a client what has happened meanwhile: about the selected mailbox by the index, about everything else as NOTIFY asks. Used at the end of every command,
 * in IDLE, and with NOTIFY at any time.
 */
import { KvError } from '../../store/kv/contract.js';
import type { SessionContext } from './context.js';
import type { SelectedMailbox } from './selected.js';

export interface NewsOptions {
  /** Asks the store even without a notice. */
  looks: boolean;
  /** EXPUNGE or VANISHED may be told (RFC 9051 7.5.1). */
  expunges: boolean;
  /** Expunges are held back when the command has named messages by number. */
  holdsForNumbers?: boolean;
  /** The command has itself removed messages. */
  ownRemovals?: boolean;
}

/**
 * Reads and tells. Answers whether anything was told. A store that can't be read now is no failure: what is known is told, and the notice stays set; the client
 * is told how far it may trust the modseqs that it has seen.
 */
export async function tellNews(context: SessionContext, options: NewsOptions): Promise<boolean> {
  const { selected, notifier } = context;
  if (!selected && !notifier) {
    context.hasNotice = context.hasOtherNotice = false;
    return false;
  }
  const hadNotice = context.hasNotice || options.looks;
  let hasTold = false;
  try {
    if (hadNotice) await context.refresh();
  } catch (error) {
    if (!(error instanceof KvError)) throw error;
    context.logger.warn({ err: error }, 'no news: the store can not be read');
    if (selected && context.qresync) {
      context.untagged(`OK [HIGHESTMODSEQ ${Math.max(1, selected.completeModseq)}] Later changes are not all known yet`);
      hasTold = true;
    }
  }
  const uids = selected?.uids;
  if (context.announce(options.expunges, { ownRemovals: options.ownRemovals === true })) hasTold = true;
  if (await tellFollowed(context)) hasTold = true;
  if (!notifier) return hasTold;
  try {
    if (selected && uids && (await notifier.tellArrivals(selected, uids))) hasTold = true;
    if (context.hasOtherNotice || options.looks) {
      context.hasOtherNotice = false;
      if (await notifier.tellOthers()) hasTold = true;
    }
  } catch (error) {
    if (!(error instanceof KvError)) throw error;
    context.logger.warn({ err: error }, 'no notifications: the store can not be read');
    context.hasOtherNotice = true;
  }
  return hasTold;
}

/** Changes of searches that the client follows (RFC 5267 4.3); what can't be found out now is told with the next news. */
async function tellFollowed(context: SessionContext): Promise<boolean> {
  try {
    return (await context.following?.tellChanges()) ?? false;
  } catch (error) {
    if (!(error instanceof KvError)) throw error;
    context.logger.warn({ err: error }, 'no updates of searches: the store can not be read');
    return false;
  }
}

/** RFC 7162 3.1, 3.2.7, section 6: where a client must be told which modseq it has reached, the code for its tagged reply, or a response of its own. */
export class ModseqWatch {
  readonly #context: SessionContext;
  readonly #selected: SelectedMailbox | undefined;
  readonly #wasAware: boolean;
  readonly #toldExpunges: number;

  constructor(context: SessionContext) {
    this.#context = context;
    this.#selected = context.selected;
    this.#wasAware = context.condstore;
    this.#toldExpunges = context.selected?.toldExpunges ?? 0;
  }

  /** After the news: writes what has to be untagged, and answers the code for the reply if it has room for one. */
  async conclude(replyHasRoom: boolean): Promise<string | undefined> {
    const context = this.#context;
    const { selected } = context;
    if (!selected || selected !== this.#selected || !context.condstore) return undefined;
    const hasTold = context.qresync && selected.toldExpunges !== this.#toldExpunges;
    const isHolding = selected.holdsExpunges;
    if (this.#wasAware && !hasTold && !isHolding) return undefined;
    try {
      const modseq = await context.reachedModseq(selected);
      if (modseq === undefined) return undefined;
      if (hasTold && replyHasRoom) return `HIGHESTMODSEQ ${modseq}`;
      context.untagged(`OK [HIGHESTMODSEQ ${modseq}] Reached`);
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      context.logger.warn({ err: error }, 'no modseq told: the store can not be read');
    }
    return undefined;
  }
}
