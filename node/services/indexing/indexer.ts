/**
 * The indexing service of a node: looks for accounts with new mail in this node's share of the slots, and now and then in the others', and gives each of them
 * turns until its full-text index is up to date. Nothing waits for it: whoever searches looks through the rest himself.
 */
import { counter, gauge, type Logger, type Random } from '../../../ops/telemetry/index.js';
import type { Directory } from '../../../store/directory/contract.js';
import type { KvStore } from '../../../store/kv/contract.js';
import type { AccountId } from '../../../store/mail/contract.js';
import { allShards, type QueueShare, shardsOf } from '../../../store/queue/index.js';
import { clearPending, type PendingAccount, pendingAccounts, pendingSlotOf } from '../../../store/search/pending.js';
import { createBackoff } from '../../mailflow/persist.js';
import { isStoreTrouble } from '../../mailflow/settle.js';
import { AccountWork, type WorkDependencies, type WorkSettings } from './account-work.js';
import type { DocumentSettings } from './documents.js';
import { type Errand, Pace } from './pacing.js';
import { Sweep } from './sweep.js';

const pendingGauge = gauge(
  'starling_search_pending_accounts',
  "Accounts of this node's share with mail to index, as of its last look.",
);
const tailGauge = gauge(
  'starling_search_tail_messages',
  'Messages of the account at work that are not in its index, as of the last look.',
);
/** `outcome`: done, gone, more (to be gone on with), left (an index of a newer release), failed. */
const turnsTotal = counter('starling_search_turns_total', 'Turns of accounts at the full-text index.', ['outcome']);
const secondsTotal = counter('starling_search_indexing_seconds_total', 'Time that turns took, rests included.');

export interface IndexingSettings extends DocumentSettings, WorkSettings {
  isEnabled: boolean;
  /** Mail is collected for so long before it is indexed. */
  delayMs: number;
  /** Share of the time that indexing may take, above 0 and at most 1. */
  share: number;
  /** While the node is at work for others, mail waits for so long besides. */
  patienceMs: number;
  /** More messages than these are not kept waiting: every search looks through them. */
  bearableTail: number;
}

export interface IndexerTimings {
  /** Between two looks at the own slots. */
  lookMs: number;
  /** Between two looks at the others' slots. */
  lookAtOthersMs: number;
  /** An account of another node is only worked when it has been seen waiting for so long. */
  lateMs: number;
  /** One turn of an account. */
  turnMs: number;
  /** Between two rounds over all accounts, which find what nobody has noted. */
  sweepMs: number;
  /** An account that failed, or must be left alone, is not tried again for so long; longer and longer, up to `maxPutOffMs`. */
  putOffMs: number;
  maxPutOffMs: number;
  /** Accounts that one look takes. */
  maxAccounts: number;
}

export const defaultIndexerTimings: IndexerTimings = {
  lookMs: 2_000,
  lookAtOthersMs: 30_000,
  lateMs: 60_000,
  turnMs: 5_000,
  sweepMs: 3_600_000,
  putOffMs: 10_000,
  maxPutOffMs: 600_000,
  maxAccounts: 1_000,
};

export interface IndexerDependencies extends Omit<WorkDependencies, 'pause' | 'settings' | 'workSettings' | 'logger'> {
  kv: KvStore;
  random: Random;
  logger: Logger;
  directory: Pick<Directory, 'principals'>;
  nodeId: string;
  settings: () => IndexingSettings;
  /** The nodes that share the work, this one included. Default: this node alone. */
  shares?: () => readonly QueueShare[];
  /** False while this node may have been declared dead. Two that work on the same account are harmless, only wasteful. */
  mayWork?: () => boolean;
  /** Whether the node has much to do that somebody waits for. */
  isBusy?: () => boolean;
  /** Part of the time since it was last asked that the node was at work, 0 to 1 (`eventLoopLoad`). Default: never. */
  load?: () => number;
  timings?: Partial<IndexerTimings>;
}

export interface Indexer {
  start(): void;
  /**
   * Works everything that is noted anywhere, without waiting, until nothing is (but accounts that fail); for tests and for whoever must be up to date.
   * Throws KvError.
   */
  catchUp(): Promise<void>;
  /** Ends what goes on at its next step: within milliseconds, or a batch's write. */
  stop(): Promise<void>;
}

export function createIndexer(dependencies: IndexerDependencies): Indexer {
  return new IndexingService(dependencies);
}

interface Waiting {
  modseq: number;
  /** Monotonic. */
  seenAtMs: number;
}

interface PutOff {
  untilMs: number;
  delayMs: number;
}

class IndexingService implements Indexer {
  readonly #d: IndexerDependencies;
  readonly #timings: IndexerTimings;
  readonly #stopping = new AbortController();
  readonly #pace: Pace;
  readonly #work: AccountWork;
  readonly #sweep: Sweep;
  readonly #waiting = new Map<AccountId, Waiting>();
  readonly #putOff = new Map<AccountId, PutOff>();
  /** Found by the sweep or noted, and not done with the last turn. */
  readonly #begun = new Set<AccountId>();
  #othersAtMs: number;
  #loop: Promise<void> | undefined;

  constructor(dependencies: IndexerDependencies) {
    const { clock, settings, isBusy = () => false, load = () => 0 } = dependencies;
    this.#d = dependencies;
    this.#timings = { ...defaultIndexerTimings, ...dependencies.timings };
    const logger = dependencies.logger.child({ room: 'indexing' });
    const { signal } = this.#stopping;
    const [share, bearableTail] = [() => settings().share, () => settings().bearableTail];
    this.#pace = new Pace({ clock, signal, isBusy, load, share, bearableTail });
    const pause = (chars?: number) => this.#pace.step(chars);
    this.#work = new AccountWork({ ...dependencies, logger, pause, workSettings: settings });
    this.#sweep = new Sweep({ ...dependencies, work: this.#work, intervalMs: this.#timings.sweepMs, pause });
    this.#othersAtMs = clock.monotonicMs() + this.#timings.lookAtOthersMs;
  }

  start(): void {
    if (this.#loop) throw new Error('an indexer is started once');
    this.#loop = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the indexing service is stopping'));
    await this.#loop;
  }

  async catchUp(): Promise<void> {
    const { kv } = this.#d;
    for (;;) {
      const rows = await pendingAccounts(kv, allShards, this.#timings.maxAccounts);
      let isMoving = false;
      for (const row of rows) isMoving = (await this.#turn(row.accountId, 0)) !== 'stuck' || isMoving;
      if (!isMoving) return;
    }
  }

  get #isStopped(): boolean {
    return this.#stopping.signal.aborted;
  }

  async #run(): Promise<void> {
    const { clock, random, logger } = this.#d;
    const { lookMs } = this.#timings;
    const backoff = createBackoff(random);
    while (!this.#isStopped) {
      let pauseMs = lookMs;
      try {
        if (await this.#look()) pauseMs = 0;
        backoff.reset();
      } catch (error) {
        if (this.#isStopped) return;
        pauseMs = Math.max(lookMs, backoff.next());
        logger.warn({ err: error, pauseMs }, 'indexing pauses');
      }
      if (pauseMs > 0) await clock.sleep(pauseMs, this.#stopping.signal).catch(() => undefined);
    }
  }

  /** One round over what is noted. True when there is more to do at once. */
  async #look(): Promise<boolean> {
    const { settings, mayWork } = this.#d;
    if (!settings().isEnabled || mayWork?.() === false) return false;
    const nowMs = this.#d.clock.monotonicMs();
    const own = this.#ownSlots();
    const isOwn = (accountId: AccountId) => own.length === allShards.length || own.includes(pendingSlotOf(accountId));
    await this.#note(own, nowMs);
    const due = [...this.#waiting].filter(([accountId, { seenAtMs }]) => {
      return nowMs - seenAtMs >= (isOwn(accountId) ? settings().delayMs : this.#timings.lateMs);
    });
    due.sort(([, a], [, b]) => a.seenAtMs - b.seenAtMs);
    // The sweep finds what nobody has noted: mail of before this release, or that a node of an earlier one has taken.
    const found = await this.#sweep.some(isOwn);
    let hasMore = false;
    for (const accountId of new Set([...due.map(([accountId]) => accountId), ...this.#begun, ...found])) {
      if ((this.#putOff.get(accountId)?.untilMs ?? 0) > nowMs) continue;
      hasMore = (await this.#turn(accountId, settings().patienceMs)) === 'again' || hasMore;
    }
    return hasMore;
  }

  /** Alone, also while this node drains and has no share, it works all. */
  #ownSlots(): readonly number[] {
    const among = this.#d.shares?.() ?? [];
    return among.length > 1 ? shardsOf(this.#d.nodeId, among) : allShards;
  }

  /** Reads which accounts have work, and since when this node has seen it. */
  async #note(own: readonly number[], nowMs: number): Promise<void> {
    const { kv } = this.#d;
    const { maxAccounts, lookAtOthersMs } = this.#timings;
    const rows = await pendingAccounts(kv, own, maxAccounts);
    pendingGauge.set(rows.length);
    const isLookingAtAll = nowMs >= this.#othersAtMs;
    if (isLookingAtAll) {
      this.#othersAtMs = nowMs + lookAtOthersMs;
      const others = allShards.filter((slot) => !own.includes(slot));
      if (others.length > 0) rows.push(...(await pendingAccounts(kv, others, maxAccounts)));
    }
    this.#merge(rows, nowMs, isLookingAtAll ? allShards : own);
  }

  /** What is no longer noted in the slots that were read is done. */
  #merge(rows: readonly PendingAccount[], nowMs: number, slots: readonly number[]): void {
    const noted = new Set(rows.map(({ accountId }) => accountId));
    for (const accountId of this.#waiting.keys()) {
      if (!noted.has(accountId) && slots.includes(pendingSlotOf(accountId))) this.#waiting.delete(accountId);
    }
    for (const { accountId, modseq } of rows) {
      const known = this.#waiting.get(accountId);
      if (known) known.modseq = modseq;
      else this.#waiting.set(accountId, { modseq, seenAtMs: nowMs });
    }
  }

  /** One turn of an account. `again`: it has more to do at once; `stuck`: trying again soon is no use. Throws what concerns the store, or the end of the service. */
  async #turn(accountId: AccountId, patienceMs: number): Promise<'again' | 'done' | 'stuck'> {
    const { clock, kv, logger } = this.#d;
    let beganMs = clock.monotonicMs();
    try {
      await this.#pace.begin(this.#errandOf(accountId, patienceMs));
      beganMs = clock.monotonicMs();
      const result = await this.#work.turn(accountId, beganMs + this.#timings.turnMs);
      turnsTotal.inc({ outcome: result.outcome });
      if (result.outcome === 'left') this.#delay(accountId);
      else this.#putOff.delete(accountId);
      if (result.outcome === 'more') this.#begun.add(accountId);
      else this.#begun.delete(accountId);
      if (!('modseq' in result)) return result.outcome === 'more' ? 'again' : 'stuck';
      // New mail since then keeps its note, and is collected for a while.
      await clearPending(kv, accountId, result.modseq);
      this.#waiting.delete(accountId);
      return 'done';
    } catch (error) {
      if (this.#isStopped) throw error;
      if (isStoreTrouble(error)) {
        // Perhaps it is only this account's: the others get their turns first after the pause.
        this.#delay(accountId);
        throw error;
      }
      turnsTotal.inc({ outcome: 'failed' });
      const delayMs = this.#delay(accountId);
      logger.error({ err: error, accountId, delayMs }, 'the mail of an account can not be indexed');
      return 'stuck';
    } finally {
      this.#pace.end();
      secondsTotal.inc((clock.monotonicMs() - beganMs) / 1000);
      // Between two turns others get theirs.
      await this.#rest();
    }
  }

  /** Patience is counted from when the mail was to be indexed, so that an account is not put off anew with each of its turns. */
  #errandOf(accountId: AccountId, patienceMs: number): Errand {
    const nowMs = this.#d.clock.monotonicMs();
    const dueAtMs = (this.#waiting.get(accountId)?.seenAtMs ?? nowMs) + this.#d.settings().delayMs;
    return {
      overdueAtMs: Math.min(nowMs, dueAtMs) + patienceMs,
      tail: async () => {
        const tail = await this.#work.tail(accountId);
        tailGauge.set(tail);
        return tail;
      },
    };
  }

  async #rest(): Promise<void> {
    if (!this.#isStopped) await this.#pace.step().catch(() => undefined);
  }

  #delay(accountId: AccountId): number {
    const { putOffMs, maxPutOffMs } = this.#timings;
    const delayMs = Math.min(maxPutOffMs, (this.#putOff.get(accountId)?.delayMs ?? putOffMs / 2) * 2);
    this.#putOff.set(accountId, { delayMs, untilMs: this.#d.clock.monotonicMs() + delayMs });
    return delayMs;
  }
}
