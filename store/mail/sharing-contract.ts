/**
 * What the mail store offers for mailboxes that several people use: access control lists, subscriptions to other people's mailboxes, copies between accounts,
 * annotations. Part of `contract.ts`.
 */

/** Ids of accounts and mailboxes are as `contract.ts` has them. */
type AccountId = string;
type MailboxId = string;

/** The rights of RFC 4314 section 2.1. `n` is not ours: annotations follow the other rights. */
export type Right = 'l' | 'r' | 's' | 'w' | 'i' | 'p' | 'k' | 'x' | 't' | 'e' | 'a';

/** In the order in which they are told. */
export const allRights: readonly Right[] = ['l', 'r', 's', 'w', 'i', 'p', 'k', 'x', 't', 'e', 'a'];

/** Everybody who can log in. `authenticated` and `anyone` are the same people here, as there is no anonymous login; both are kept as they were given. */
export const everyone = ['anyone', 'authenticated'] as const;

/** As a grantee: all accounts. Shorter than any account's id. */
export const granteeEveryone = 'anyone';

export const aclLimits = {
  /** Identifiers in the list of one mailbox: the value stays under the store's limit. */
  maxEntries: 1_000,
} as const;

/**
 * Who is meant: `user:` or `group:` with an id, or one of `everyone`; with a `-` in front, rights that are taken away whatever else gives them
 * (RFC 4314 section 2).
 */
export type AclIdentifier = string;

export interface AclEntry {
  identifier: AclIdentifier;
  /** Each once, in the order of `allRights`. */
  rights: readonly Right[];
}

/** `add` and `remove` change the rights that are there, `replace` sets them (RFC 4314 3.1). No rights left: the identifier goes. */
export interface AclChange {
  mode: 'add' | 'remove' | 'replace';
  rights: readonly Right[];
}

/** A mailbox, and whose it is. */
export interface MailboxOf {
  accountId: AccountId;
  mailboxId: MailboxId;
}

/** A subscription to a mailbox of somebody else, or to one's own that is gone (RFC 9051 6.3.7: it stays until it is taken back). */
export interface OtherSubscription extends MailboxOf {
  /** The name by which it was known when it was subscribed, or went. */
  path: string[];
}

export interface MailSharing {
  /** The lists of these mailboxes; empty where there is none. */
  acls(accountId: AccountId, mailboxIds: readonly MailboxId[]): Promise<AclEntry[][]>;
  /** Whom the list names is up to the caller. Throws `no-mailbox`, `too-many`. */
  changeAcl(accountId: AccountId, mailboxId: MailboxId, identifier: AclIdentifier, change: AclChange): Promise<void>;
  /** What was granted to any of these (ids of accounts and groups, `granteeEveryone`): each mailbox once, perhaps some that are gone. */
  grants(grantees: readonly string[]): Promise<MailboxOf[]>;
  /** Clears the notes of a grant if its mailbox is gone. Harmless otherwise. */
  forgetIfGone(grantees: readonly string[], grant: MailboxOf): Promise<void>;
  otherSubscriptions(accountId: AccountId): Promise<OtherSubscription[]>;
  /** Harmless to repeat. Throws `too-many`. */
  subscribeOther(accountId: AccountId, subscription: OtherSubscription): Promise<void>;
  /** Harmless where there is none. */
  unsubscribeOther(accountId: AccountId, mailbox: MailboxOf): Promise<void>;
}

/** Which flags somebody may change, or carry into a mailbox (RFC 4314 section 4: rights `s`, `t`, `w`). */
export interface FlagRights {
  /** `\Seen`. */
  seen: boolean;
  /** `\Deleted`. */
  deleted: boolean;
  others: boolean;
}

export interface CopyBetweenOptions {
  /** Of the target's account. */
  quotaLimitBytes?: number;
  carries: FlagRights;
  /** Message-ID, In-Reply-To and References, own first, of a summary: for threading. */
  messageIdsOf(summary: Buffer): readonly string[];
  /** Removes the messages from where they were, in the same transaction. */
  leavesSource?: boolean;
}

export const annotationLimits = {
  maxValueBytes: 32_768,
  /** Of one mailbox (or the server), for all or for one user. */
  maxEntries: 100,
  maxNameBytes: 512,
} as const;

export type AnnotationScope = 'shared' | 'private';

export interface AnnotationPlace {
  /** For `shared` the mailbox's owner, for `private` the user. */
  accountId: AccountId;
  /** '' for the server. */
  mailboxId: MailboxId | '';
  scope: AnnotationScope;
}

/** `value` undefined: to be removed. */
export interface AnnotationChange {
  scope: AnnotationScope;
  name: string;
  value: Buffer | undefined;
}

export interface MailAnnotations {
  /** Values of these entries (lower case, without `/private` or `/shared`, beginning with `/`), in the order asked. */
  values(place: AnnotationPlace, names: readonly string[]): Promise<(Buffer | undefined)[]>;
  /** All entries beneath `name` ('' for all), ascending by name. */
  beneath(place: AnnotationPlace, name: string): Promise<{ name: string; value: Buffer }[]>;
  /**
   * Sets and removes entries that one account keeps of one mailbox (or of the server, ''); all or none. A change of a mailbox of the account itself is told in its log (`mailbox-updated`). Throws `no-mailbox`,
   * `too-many`, and RangeError for a value or name over its limit.
   */
  write(mailbox: Omit<AnnotationPlace, 'scope'>, changes: readonly AnnotationChange[]): Promise<void>;
}
