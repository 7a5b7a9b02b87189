/**
 * \Recent (RFC 3501 2.3.2): one row per mailbox says from which UID on no read-write session was told of a message. SELECT raises it in a transaction; messages
 * that arrive while a session has the mailbox selected are claimed in this process, and the row follows later, so that a delivery to an idle client costs
 * no second commit. Until then another node may give them to a session of its own, too, which the RFC leaves room for.
 */
import { counter, type Timer } from '../../ops/telemetry/index.js';
import { KvError } from '../kv/contract.js';
import type { MailContext } from './context.js';
import type { AccountId, AsOf, MailboxId, MailRecent, RecentHold } from './contract.js';
import type { AccountKeys } from './keys.js';

const marks = counter(
  'starling_mail_recent_marks_total',
  'Marks of what is \\Recent that were written: at SELECT, or later for a mailbox in use',
  ['when'],
);

/** Between a claim in this process and the write of it. */
const writeDelayMs = 15_000;
const markBytes = 4;

/** A mailbox that read-write sessions of this node have selected, or had and left something to be written. */
interface Use {
  name: string;
  accountId: AccountId;
  mailboxId: MailboxId;
  holders: number;
  /** All below have been claimed here. */
  claimed: number;
  /** All below are claimed in the store, as far as is known. */
  stored: number;
  timer: Timer | undefined;
}

/** The value of a mailbox's row. */
export function encodeRecent(fromUid: number): Buffer {
  const value = Buffer.allocUnsafe(markBytes);
  // One above the last UID does not fit; no message is ever there.
  value.writeUInt32BE(Math.min(fromUid, 0xffff_ffff));
  return value;
}

export function decodeRecent(value: Buffer): number {
  return value.readUInt32BE(0);
}

/** In a new mailbox everything is recent. */
export function beginRecent(tx: { set(key: Uint8Array, value: Uint8Array): void }, keys: AccountKeys, id: MailboxId): void {
  tx.set(keys.recent(id), encodeRecent(1));
}

export class RecentMarks implements MailRecent {
  private readonly uses = new Map<string, Use>();
  private readonly writing = new Set<Promise<void>>();
  private isClosed = false;

  constructor(private readonly context: Pick<MailContext, 'kv' | 'keysOf' | 'clock' | 'logger'>) {}

  async from(accountId: AccountId, mailboxId: MailboxId): Promise<number | undefined> {
    const stored = await this.read(accountId, mailboxId);
    const claimed = this.uses.get(nameOf(accountId, mailboxId))?.claimed ?? 0;
    return stored === undefined ? undefined : Math.max(stored, claimed);
  }

  async hold(
    accountId: AccountId,
    mailboxId: MailboxId,
    uidNext: number,
    asOf?: AsOf,
  ): Promise<{ from: number; hold: RecentHold }> {
    const use = this.enter(accountId, mailboxId);
    try {
      const stored = asOf ? asOf.recentFrom : await this.read(accountId, mailboxId);
      const from = Math.max(stored ?? uidNext, use.claimed);
      use.stored = Math.max(use.stored, stored ?? 0);
      // Before the transaction: of two sessions here only one has them.
      if (uidNext > use.claimed) use.claimed = uidNext;
      const isNew = from < uidNext || stored === undefined;
      const others = isNew ? await this.raiseOrLater(use, uidNext) : 0;
      return { from: Math.min(Math.max(from, others), uidNext), hold: this.holdOf(use) };
    } catch (error) {
      this.leave(use);
      throw error;
    }
  }

  /** Writes what is not written yet, and waits for it. */
  async close(): Promise<void> {
    this.isClosed = true;
    for (const use of this.uses.values()) this.write(use);
    await this.idle();
  }

  /** Waits for the writes that are under way. */
  async idle(): Promise<void> {
    while (this.writing.size > 0) await Promise.all(this.writing);
  }

  private async read(accountId: AccountId, mailboxId: MailboxId): Promise<number | undefined> {
    const { kv, keysOf } = this.context;
    const value = await kv.read((reads) => reads.get(keysOf(accountId).recent(mailboxId)));
    return value && decodeRecent(value);
  }

  /** The mailbox can be read also while nothing can be written: then the mark follows later. */
  private async raiseOrLater(use: Use, upTo: number): Promise<number> {
    try {
      const before = await this.raise(use, upTo);
      marks.inc({ when: 'select' });
      return before;
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      this.context.logger.warn({ err: error, accountId: use.accountId }, 'what is recent can not be written yet');
      this.writeLater(use);
      return 0;
    }
  }

  /** Answers what the mark was before. */
  private async raise(use: Use, upTo: number): Promise<number> {
    const keys = this.context.keysOf(use.accountId);
    let attempted: number | undefined;
    const before = await this.context.kv.transact(
      async (tx) => {
        const [value, mailbox] = await tx.getMany([keys.recent(use.mailboxId), keys.mailbox(use.mailboxId)]);
        if (!mailbox) return upTo;
        const now = value ? decodeRecent(value) : 0;
        // An attempt whose fate was unknown has come through.
        if (tx.mayHaveCommitted && attempted !== undefined && now === upTo) return attempted;
        if (now >= upTo) return now;
        tx.set(keys.recent(use.mailboxId), encodeRecent(upTo));
        attempted = now;
        return now;
      },
      { label: 'mail-recent' },
    );
    use.stored = Math.max(use.stored, upTo, before);
    return before;
  }

  private enter(accountId: AccountId, mailboxId: MailboxId): Use {
    const name = nameOf(accountId, mailboxId);
    let use = this.uses.get(name);
    if (!use) {
      use = { name, accountId, mailboxId, holders: 0, claimed: 0, stored: 0, timer: undefined };
      this.uses.set(name, use);
    }
    use.holders++;
    return use;
  }

  private leave(use: Use): void {
    if (--use.holders > 0) return;
    if (use.claimed > use.stored) this.write(use);
    else this.forget(use);
  }

  private forget(use: Use): void {
    use.timer?.cancel();
    use.timer = undefined;
    if (use.holders === 0) this.uses.delete(use.name);
  }

  private holdOf(use: Use): RecentHold {
    let isReleased = false;
    return {
      claim: (upTo) => {
        const from = Math.min(use.claimed, upTo);
        if (upTo > use.claimed) {
          use.claimed = upTo;
          this.writeLater(use);
        }
        return from;
      },
      release: () => {
        if (isReleased) return;
        isReleased = true;
        this.leave(use);
      },
    };
  }

  private writeLater(use: Use): void {
    if (this.isClosed) return;
    use.timer ??= this.context.clock.setTimer(writeDelayMs, () => this.write(use), { background: true });
  }

  /** In the background; what can't be written while the mailbox is in use is tried again, and left alone afterwards: it is then recent once more. */
  private write(use: Use): void {
    use.timer?.cancel();
    use.timer = undefined;
    const upTo = use.claimed;
    if (upTo <= use.stored) return;
    const run: Promise<void> = this.raise(use, upTo)
      .then(() => {
        marks.inc({ when: 'later' });
      })
      .catch((error: unknown) => {
        this.context.logger.warn({ err: error, accountId: use.accountId }, 'what is recent can not be written');
        if (use.holders > 0) this.writeLater(use);
      })
      .finally(() => {
        this.writing.delete(run);
        if (use.holders === 0 && !use.timer) this.forget(use);
      });
    this.writing.add(run);
  }
}

function nameOf(accountId: AccountId, mailboxId: MailboxId): string {
  return `${accountId}/${mailboxId}`;
}
