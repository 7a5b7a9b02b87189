/**
 * Goes over all accounts of this node's share, slowly and again and again: finds mail that nobody noted (of before there was an index, or taken by a node of an
 * earlier release), and tidies indexes whose messages were destroyed.
 */
import type { Clock } from '../../../ops/telemetry/index.js';
import type { Directory } from '../../../store/directory/contract.js';
import type { AccountId } from '../../../store/mail/contract.js';
import type { OpenMailStore } from '../../../store/mail/index.js';
import { SearchError, type SearchStore } from '../../../store/search/contract.js';
import type { AccountWork } from './account-work.js';

/** Accounts that one step looks at. */
const accountsPerStep = 50;

export interface SweepOptions {
  directory: Pick<Directory, 'principals'>;
  mail: Pick<OpenMailStore, 'exists' | 'usage'>;
  search: Pick<SearchStore, 'progress'>;
  work: Pick<AccountWork, 'tidy'>;
  clock: Clock;
  /** Between the beginnings of two rounds; the first one begins at once. */
  intervalMs: number;
  pause: () => Promise<void>;
}

export class Sweep {
  readonly #o: SweepOptions;
  #left: AccountId[] = [];
  #nextAtMs: number;

  constructor(options: SweepOptions) {
    this.#o = options;
    this.#nextAtMs = options.clock.monotonicMs();
  }

  /** Looks at some accounts; answers those with work. Throws KvError. */
  async some(isOwn: (accountId: AccountId) => boolean): Promise<AccountId[]> {
    const { directory, clock, intervalMs, pause } = this.#o;
    if (this.#left.length === 0) {
      if (clock.monotonicMs() < this.#nextAtMs) return [];
      this.#nextAtMs = clock.monotonicMs() + intervalMs;
      const kinds = await Promise.all([directory.principals('account'), directory.principals('group')]);
      this.#left = kinds.flat().map(({ id }) => id);
    }
    const found: AccountId[] = [];
    for (const accountId of this.#left.splice(0, accountsPerStep)) {
      if (!isOwn(accountId)) continue;
      await pause();
      if (await this.#hasWork(accountId)) found.push(accountId);
    }
    return found;
  }

  async #hasWork(accountId: AccountId): Promise<boolean> {
    const { mail, search, work } = this.#o;
    try {
      const progress = await search.progress(accountId);
      const { modseq, messages } = await mail.usage(accountId);
      if (progress ? progress.modseq < modseq : messages > 0) return true;
      if (progress && progress.documents > 0) await work.tidy(accountId);
      return false;
    } catch (error) {
      if (!(error instanceof SearchError)) throw error;
      // A turn knows what to do with a damaged index; one of a newer release is left alone.
      return error.code === 'damaged';
    }
  }
}
