/**
 * Where a mailbox is and what may be done with it. Every command that names a mailbox finds it through `context.find`, and uses the place's account, never
 * the session's: a shared mailbox belongs to somebody else.
 */
import {
  type AccountId,
  type AsOf,
  allRights,
  type FlagRights,
  type Mailbox,
  type MailboxCounts,
  type Right,
} from '../../store/mail/contract.js';
import { no, Refusal } from './replies.js';

export { allRights, type Right };

export interface MailboxPlace {
  /** Who holds it; the session's own account, or the one that shares it. */
  accountId: AccountId;
  mailbox: Mailbox;
  counts: MailboxCounts;
  /** The name that this user knows it by: `mailbox.path` for an own one. */
  path: readonly string[];
  /** What was read when it was found. */
  asOf?: AsOf;
  /** As they were when it was found; those of the selected mailbox are brought up to date by `context.refresh`. */
  rights: ReadonlySet<Right>;
}

/** Of whoever a mailbox belongs to: nothing is forbidden. */
export const ownersRights: ReadonlySet<Right> = new Set(allRights);

/** A mailbox of the user's own account: nothing is forbidden there. */
export function ownPlace(accountId: AccountId, found: { mailbox: Mailbox; counts: MailboxCounts; asOf?: AsOf }): MailboxPlace {
  const { mailbox, counts, asOf } = found;
  return { accountId, mailbox, counts, path: mailbox.path, rights: ownersRights, ...(asOf ? { asOf } : {}) };
}

export type MissingCode = 'NONEXISTENT' | 'TRYCREATE';

const missing = (code: MissingCode) => new Refusal(no('No such mailbox', code));

/** Throws NO [NOPERM] where a right is missing (RFC 5530); who may not even look the mailbox up hears what is said of one that does not exist. */
export function requireRights(rights: ReadonlySet<Right>, ...needed: Right[]): void {
  requireAll(rights, needed, 'NONEXISTENT');
}

function requireAll(rights: ReadonlySet<Right>, needed: readonly Right[], code: MissingCode): void {
  if (needed.every((right) => rights.has(right))) return;
  throw rights.has('l') ? new Refusal(no('Permission denied', 'NOPERM')) : missing(code);
}

/** The place, if it is there and may be used so; else the refusal is thrown, the same for a mailbox that is hidden and one that is not there. */
export function requirePlace(place: MailboxPlace | undefined, code: MissingCode, ...needed: Right[]): MailboxPlace {
  if (!place) throw missing(code);
  requireAll(place.rights, needed, code);
  return place;
}

/** RFC 4314 section 4: flags that may be changed with these rights. */
export function flagRights(rights: ReadonlySet<Right>): FlagRights {
  return { seen: rights.has('s'), deleted: rights.has('t'), others: rights.has('w') };
}

/** What of these flags may be set. */
export function permittedFlags<Flags extends { keywords: readonly string[]; deleted: boolean }>(
  rights: ReadonlySet<Right>,
  flags: Flags,
): { keywords: string[]; deleted: boolean } {
  const allowed = flagRights(rights);
  return {
    keywords: flags.keywords.filter((keyword) => (keyword === '$seen' ? allowed.seen : allowed.others)),
    deleted: flags.deleted && allowed.deleted,
  };
}

/** RFC 4314 5.2: READ-WRITE for whoever may change anything in it. */
export function mayChange(rights: ReadonlySet<Right>): boolean {
  return (['i', 'e', 's', 't', 'w'] as const).some((right) => rights.has(right));
}
