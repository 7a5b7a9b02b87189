/** Finds the mailbox that a delivery goes to: the one that a subaddress names, where there is one, else INBOX. Remembers INBOX ids. */
import { type AccountId, type MailboxId, MailError, type MailStore } from '../../store/mail/contract.js';

export interface MailboxFinder {
  /** `detail`: what follows the separator in `user+detail`. */
  find(accountId: AccountId, detail?: string): Promise<MailboxId>;
  /** Forgets what is remembered: a delivery found it wrong. */
  forget(accountId: AccountId): void;
}

const maxRemembered = 50_000;

export function createMailboxFinder(mail: Pick<MailStore, 'mailboxByPath' | 'ensureAccount'>): MailboxFinder {
  const inboxes = new Map<AccountId, MailboxId>();

  async function inbox(accountId: AccountId): Promise<MailboxId> {
    const known = inboxes.get(accountId);
    if (known !== undefined) return known;
    let found = await mail.mailboxByPath(accountId, ['INBOX']);
    if (!found) {
      // The account's first message may come before its owner.
      await mail.ensureAccount(accountId);
      found = await mail.mailboxByPath(accountId, ['INBOX']);
    }
    if (!found) throw new MailError('no-mailbox', `account ${accountId} has no INBOX`);
    if (inboxes.size >= maxRemembered) inboxes.clear();
    inboxes.set(accountId, found.mailbox.id);
    return found.mailbox.id;
  }

  return {
    async find(accountId, detail) {
      if (detail !== undefined && detail !== '') {
        const named = await mail.mailboxByPath(accountId, detail.split('/'));
        if (named) return named.mailbox.id;
      }
      return inbox(accountId);
    },
    forget: (accountId) => void inboxes.delete(accountId),
  };
}
