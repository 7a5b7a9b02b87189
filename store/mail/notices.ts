/**
 * Telling sessions that their account changed: at once for changes of this process; for those of others through one store watch per account, which is sure,
 * and through hints from other nodes, which are fast. A notice is a hint; the change log is the truth.
 */
import { counter } from '../../ops/telemetry/index.js';
import type { KvWatch } from '../kv/contract.js';
import type { MailContext } from './context.js';
import type { AccountId, ChangeNotice } from './contract.js';
import { decodeState } from './records.js';
import { StateLooks } from './state-looks.js';

const watchFailures = counter('starling_mail_watch_failures_total', 'Watches on account states that failed and were set again');
/** `use`: `looked` (the store was asked), `known` (this node had told of it already), `unwatched` (nobody listens here). */
const hints = counter('starling_mail_hints_total', 'Changes of accounts that other nodes told of', ['use']);
const firstPauseMs = 250;
const longestPauseMs = 30_000;
/**
 * A watch is not set again sooner: where changes follow closely on one another, one look tells of many. Those of this process are told anyhow, and each of them
 * would cost whoever made it the time of a look.
 */
const betweenWatchesMs = 50;

type Listener = (notice: ChangeNotice) => void;
type NoticeContext = Pick<MailContext, 'kv' | 'clock' | 'random' | 'logger' | 'keysOf'>;

export class ChangeNotices {
  private readonly feeds = new Map<AccountId, AccountFeed>();
  private readonly localListeners = new Set<Listener>();
  private readonly looks: StateLooks;

  constructor(private readonly context: NoticeContext) {
    this.looks = new StateLooks(context, (accountId, state) => this.feeds.get(accountId)?.see(state));
  }

  announce(notice: ChangeNotice | undefined): void {
    if (!notice) return;
    this.feeds.get(notice.accountId)?.tell(notice.modseq);
    for (const listener of this.localListeners) callListener(this.context, listener, notice);
  }

  /** The commit may not have been made: here the store is asked, and so it is by the nodes that hear of it. */
  announcePerhaps(notice: ChangeNotice | undefined): void {
    if (!notice) return;
    const feed = this.feeds.get(notice.accountId);
    if (feed && notice.modseq > feed.toldModseq) this.looks.want([notice.accountId]);
    for (const listener of this.localListeners) callListener(this.context, listener, notice);
  }

  /** Hears of each announced change, of every account. */
  onLocalChange(listener: Listener): () => void {
    const own: Listener = (notice) => listener(notice);
    this.localListeners.add(own);
    return () => void this.localListeners.delete(own);
  }

  /** What a hint says is told as the store has it: a wrong one costs a look, and keeps no true notice back. */
  heard({ accountId, modseq }: ChangeNotice): void {
    const feed = this.feeds.get(accountId);
    const use = !feed ? 'unwatched' : modseq <= feed.toldModseq ? 'known' : 'looked';
    hints.inc({ use });
    if (use === 'looked') this.looks.want([accountId]);
  }

  recheckWatched(): void {
    this.looks.want(this.feeds.keys());
  }

  /** The first notice may come without a change: what happened before the watch stood can't be told from what was seen. */
  onChange(accountId: AccountId, listener: Listener): () => void {
    let feed = this.feeds.get(accountId);
    if (!feed) {
      feed = new AccountFeed(this.context, accountId);
      this.feeds.set(accountId, feed);
      feed.follow();
    }
    // Its own object, so that one function may listen twice.
    const own: Listener = (notice) => listener(notice);
    const joined = feed;
    joined.listeners.add(own);
    return () => {
      joined.listeners.delete(own);
      if (joined.listeners.size > 0 || this.feeds.get(accountId) !== joined) return;
      this.feeds.delete(accountId);
      this.looks.forget(accountId);
      joined.stop();
    };
  }

  /** Forgets all listeners and lets go of all watches. */
  close(): void {
    this.looks.close();
    for (const feed of this.feeds.values()) feed.stop();
    this.feeds.clear();
    this.localListeners.clear();
  }

  get watchedAccounts(): number {
    return this.feeds.size;
  }
}

function callListener({ logger }: NoticeContext, listener: Listener, notice: ChangeNotice): void {
  try {
    listener(notice);
  } catch (error) {
    logger.error({ err: error }, 'a listener for account changes failed');
  }
}

class AccountFeed {
  readonly listeners = new Set<Listener>();
  toldModseq = -1;
  private readonly stopping = new AbortController();
  private watch: KvWatch | undefined;
  /** It was seen without a state, and that was told. */
  private isGone = false;

  constructor(
    private readonly context: NoticeContext,
    private readonly accountId: AccountId,
  ) {}

  tell(modseq: number): void {
    if (modseq <= this.toldModseq) return;
    this.toldModseq = modseq;
    const notice = { accountId: this.accountId, modseq };
    for (const listener of [...this.listeners]) callListener(this.context, listener, notice);
  }

  /** The account's state as the store has it. A removed account has none; its listeners hear of that, once, as of any change. */
  see(state: Buffer | undefined): void {
    if (!state) {
      if (!this.isGone) this.tell(this.toldModseq + 1);
      this.isGone = true;
      return;
    }
    const { modseq } = decodeState(state);
    // Made again: what was told of its end is no measure for it.
    if (this.isGone) this.toldModseq = Math.min(this.toldModseq, modseq - 1);
    this.isGone = false;
    this.tell(modseq);
  }

  stop(): void {
    this.stopping.abort();
    this.watch?.cancel();
  }

  follow(): void {
    void this.run();
  }

  private async run(): Promise<void> {
    const { signal } = this.stopping;
    const { clock, random } = this.context;
    let pauseMs = 0;
    let armedAtMs = Number.NEGATIVE_INFINITY;
    while (!signal.aborted) {
      try {
        const earlyMs = armedAtMs + betweenWatchesMs - clock.monotonicMs();
        if (earlyMs > 0) await clock.sleep(earlyMs, signal);
        armedAtMs = clock.monotonicMs();
        const watch = await this.arm();
        pauseMs = 0;
        if (signal.aborted) watch.cancel();
        await watch.fired;
      } catch (error) {
        if (signal.aborted) return;
        watchFailures.inc();
        pauseMs = Math.min(longestPauseMs, Math.max(firstPauseMs, pauseMs * 2));
        this.context.logger.debug({ err: error, pauseMs }, 'watching an account failed');
        await clock.sleep(pauseMs * (0.5 + random.float() / 2), signal).catch(() => undefined);
      }
    }
  }

  /** Reads the state and watches it in one transaction, so that no change falls between the two. */
  private async arm(): Promise<KvWatch> {
    const stateKey = this.context.keysOf(this.accountId).state;
    let latest: KvWatch | undefined;
    const value = await this.context.kv.transact(
      async (tx) => {
        const state = await tx.get(stateKey);
        latest?.cancel();
        latest = tx.watch(stateKey);
        // It may fail before anybody waits for it.
        latest.fired.catch(() => undefined);
        return state;
      },
      { label: 'mail-watch', signal: this.stopping.signal },
    );
    this.watch = latest;
    this.see(value);
    return latest!;
  }
}
