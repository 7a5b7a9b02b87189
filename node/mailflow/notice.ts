/** Telling of what a delivery has changed in accounts, also where the fate of its commit was unknown. */
import { KvError, type KvTransaction } from '../../store/kv/contract.js';
import type { AccountWriter, ChangeNotice, MailStore } from '../../store/mail/index.js';
import { ClaimLost } from '../../store/queue/index.js';

/** A claim that is lost may have ended with an earlier run's own commit. */
const isUndecided = (error: unknown) =>
  error instanceof ClaimLost || (error instanceof KvError && error.code === 'commit-unknown');

/** The notices of one transaction, however often it runs. */
export class Notices {
  #ofLastRun: ChangeNotice[] = [];

  constructor(private readonly mail: Pick<MailStore, 'announce' | 'announcePerhaps'>) {}

  /** To be called in the transaction's body, when it begins. */
  begin(): void {
    this.#ofLastRun = [];
  }

  /**
   * Ends a writer's work, once, last. Where it had nothing to do because an earlier run was committed after all, whoever listens has not heard of that run
   * yet: the state that this one has read holds it.
   */
  finish(tx: Pick<KvTransaction, 'mayHaveCommitted'>, writer: AccountWriter): void {
    const written = writer.finish();
    const notice = written ?? (tx.mayHaveCommitted ? { accountId: writer.accountId, modseq: writer.modseq - 1 } : undefined);
    if (notice) this.#ofLastRun.push(notice);
  }

  /** Runs the transaction, and tells. One that fails may have been committed all the same: its outcome is unknown, or its own traces made it fail. */
  async around<T>(transaction: () => Promise<T>): Promise<T> {
    try {
      const value = await transaction();
      for (const notice of this.#ofLastRun) this.mail.announce(notice);
      return value;
    } catch (error) {
      if (isUndecided(error)) for (const notice of this.#ofLastRun) this.mail.announcePerhaps(notice);
      throw error;
    }
  }
}
