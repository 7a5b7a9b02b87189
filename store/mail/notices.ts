/**
 * Telling sessions that their account changed: at once for changes of this process, and through one store watch per account for those of
 * others. A notice is a hint; the change log is the truth.
 */
import { counter } from '../../ops/telemetry/index.js';
import type { KvWatch } from '../kv/contract.js';
import type { MailContext } from './context.js';
import type { AccountId, ChangeNotice } from './contract.js';
import { decodeState } from './records.js';

const watchFailures = counter('starling_mail_watch_failures_total', 'Watches on account states that failed and were set again');
const firstPauseMs = 250;
const longestPauseMs = 30_000;

type Listener = (notice: ChangeNotice) => void;
type NoticeContext = Pick<MailContext, 'kv' | 'clock' | 'random' | 'logger' | 'keysOf'>;

export class ChangeNotices {
  private readonly feeds = new Map<AccountId, AccountFeed>();

  constructor(private readonly context: NoticeContext) {}

  announce(notice: ChangeNotice | undefined): void {
    if (notice) this.feeds.get(notice.accountId)?.tell(notice.modseq);
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
      joined.stop();
    };
  }

  /** Forgets all listeners and lets go of all watches. */
  close(): void {
    for (const feed of this.feeds.values()) feed.stop();
    this.feeds.clear();
  }

  get watchedAccounts(): number {
    return this.feeds.size;
  }
}

class AccountFeed {
  readonly listeners = new Set<Listener>();
  private readonly stopping = new AbortController();
  private watch: KvWatch | undefined;
  private toldModseq = -1;

  constructor(
    private readonly context: NoticeContext,
    private readonly accountId: AccountId,
  ) {}

  tell(modseq: number): void {
    if (modseq <= this.toldModseq) return;
    this.toldModseq = modseq;
    for (const listener of [...this.listeners]) {
      try {
        listener({ accountId: this.accountId, modseq });
      } catch (error) {
        this.context.logger.error({ err: error }, 'a listener for account changes failed');
      }
    }
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
    let pauseMs = 0;
    while (!signal.aborted) {
      try {
        const watch = await this.arm();
        pauseMs = 0;
        if (signal.aborted) watch.cancel();
        await watch.fired;
      } catch (error) {
        if (signal.aborted) return;
        watchFailures.inc();
        pauseMs = Math.min(longestPauseMs, Math.max(firstPauseMs, pauseMs * 2));
        this.context.logger.debug({ err: error, pauseMs }, 'watching an account failed');
        await this.context.clock.sleep(pauseMs * (0.5 + this.context.random.float() / 2), signal).catch(() => undefined);
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
    // A removed account has no state; its listeners hear of it as of any change.
    if (value) this.tell(decodeState(value).modseq);
    else this.tell(this.toldModseq + 1);
    return latest!;
  }
}
