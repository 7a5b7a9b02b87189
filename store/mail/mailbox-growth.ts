/**
 * Mailboxes that grow while nobody has them open (an import, a migration): when enough has come in and it is quiet for a moment, their index is brought up to date
 * in the background, so that a snapshot of it stands in the store for whoever opens the mailbox next, on this node or another.
 */
import type { Clock, Logger, Timer } from '../../ops/telemetry/index.js';
import { type AccountId, type InsertedMessage, type MailboxId, MailError } from './contract.js';

/** Without a new message for so long, a mailbox is quiet. */
const quietMs = 1_000;
/** One that is never quiet is looked at all the same. */
const longestWaitMs = 15_000;
/** Mailboxes whose growth is counted; of more than that, those that began to grow first are forgotten. */
const maxCounted = 10_000;

interface Growth {
  accountId: AccountId;
  mailboxId: MailboxId;
  messages: number;
  sinceMs: number;
  lastMs: number;
}

export class MailboxGrowth {
  private readonly growing = new Map<string, Growth>();
  /** Those of which enough has come in. */
  private readonly due = new Set<Growth>();
  private timer: Timer | undefined;
  private running: Promise<void> | undefined;
  private isClosed = false;

  /** `follow` brings the index of a mailbox up to date, once `minMessages` have come in. */
  constructor(
    private readonly context: { clock: Clock; logger: Logger },
    private readonly minMessages: number,
    private readonly follow: (accountId: AccountId, mailboxId: MailboxId) => Promise<void>,
  ) {}

  /** To be called after the commit. */
  note(accountId: AccountId, messages: readonly InsertedMessage[]): void {
    if (this.isClosed) return;
    const nowMs = this.context.clock.monotonicMs();
    for (const { uids } of messages) for (const { mailboxId } of uids) this.count(accountId, mailboxId, nowMs);
    if (this.due.size > 0) this.schedule(quietMs);
  }

  /** Waits for what is being done; what only waits for its time is forgotten. */
  async close(): Promise<void> {
    this.isClosed = true;
    this.timer?.cancel();
    this.timer = undefined;
    this.due.clear();
    this.growing.clear();
    await this.running;
  }

  private count(accountId: AccountId, mailboxId: MailboxId, nowMs: number): void {
    const name = `${accountId}/${mailboxId}`;
    let growth = this.growing.get(name);
    if (!growth) {
      growth = { accountId, mailboxId, messages: 0, sinceMs: nowMs, lastMs: nowMs };
      this.growing.set(name, growth);
      if (this.growing.size > maxCounted) this.forget(this.growing.keys().next().value!);
    }
    growth.messages++;
    growth.lastMs = nowMs;
    if (growth.messages === this.minMessages) {
      growth.sinceMs = nowMs;
      this.due.add(growth);
    }
  }

  private forget(name: string): void {
    const growth = this.growing.get(name);
    if (growth) this.due.delete(growth);
    this.growing.delete(name);
  }

  private schedule(ms: number): void {
    this.timer ??= this.context.clock.setTimer(ms, () => this.look(), { background: true });
  }

  private look(): void {
    this.timer = undefined;
    this.running ??= this.followQuiet().finally(() => {
      this.running = undefined;
      if (this.due.size > 0 && !this.isClosed) this.schedule(quietMs / 2);
    });
  }

  private async followQuiet(): Promise<void> {
    const { clock, logger } = this.context;
    for (const growth of [...this.due]) {
      const nowMs = clock.monotonicMs();
      if (this.isClosed || (nowMs - growth.lastMs < quietMs && nowMs - growth.sinceMs < longestWaitMs)) continue;
      const { accountId, mailboxId } = growth;
      this.forget(`${accountId}/${mailboxId}`);
      try {
        await this.follow(accountId, mailboxId);
      } catch (error) {
        // Whoever opens it reads it then.
        if (!(error instanceof MailError))
          logger.warn({ err: error, accountId, mailboxId }, 'a grown mailbox could not be followed');
      }
    }
  }
}
