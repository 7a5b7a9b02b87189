/**
 * Who exists: domains, accounts, groups, lists, aliases, passwords. This is the internal directory, kept in the store; LDAP and SQL give the same
 * contract later. Addresses are compared in lower case, domains in their ASCII (punycode) form.
 */
import type { AccountId } from '../mail/contract.js';

export type PrincipalKind = 'account' | 'group' | 'list';

export interface Domain {
  name: string;
  /** Separators of subaddresses (`user+detail`); '' turns them off. Default '+'. */
  subaddressSeparators: string;
  /** Address that takes what has no owner. */
  catchAll?: string;
  createdAtMs: number;
}

export interface Principal {
  /** 16 characters of [a-z0-9], random. */
  id: AccountId;
  kind: PrincipalKind;
  /** Primary address; also the login name of an account. */
  address: string;
  displayName: string;
  /** Further addresses. */
  aliases: string[];
  isEnabled: boolean;
  isAdmin: boolean;
  quotaLimitBytes?: number;
  /** Of groups and lists: addresses, local or not for lists, of local accounts for groups. */
  members: string[];
  createdAtMs: number;
  /** Of accounts that may log in with CRAM-MD5 and DIGEST-MD5. Absent: no. */
  keepsLegacySecret?: boolean;
}

/** Where mail for an address goes. */
export type Resolution =
  | {
      kind: 'local';
      targets: LocalTarget[] /** Outside members of a list. */;
      remote: string[] /** Set when a list was expanded: reverse-path for its bounces. */;
      listAddress?: string;
    }
  | { kind: 'relay' /** The domain is not ours. */; domain: string }
  | { kind: 'unknown' }
  | { kind: 'disabled' };

export interface LocalTarget {
  accountId: AccountId;
  /** The account's primary address. */
  address: string;
  /** Subaddress detail, when there was one. */
  detail?: string;
}

export type VerifyResult =
  | { ok: true; principal: Principal; appPassword?: string }
  /** `unavailable`: too many passwords are being checked already; try again later. */
  | { ok: false; reason: 'invalid' | 'disabled' | 'unavailable' };

export interface ScramSecret {
  accountId: AccountId;
  salt: Buffer;
  iterations: number;
  storedKey: Buffer;
  serverKey: Buffer;
}

/** What CRAM-MD5 and DIGEST-MD5 need (RFC 2195, RFC 2831). */
export interface LegacySecret {
  accountId: AccountId;
  /** Inner and outer state of HMAC-MD5 under the password, 16 bytes each: for `finishHmacMd5`. */
  hmacMd5State: Buffer;
  /** H(primary address ":" `digestRealm` ":" password), 16 bytes. */
  digestHa1: Buffer;
}

export class DirectoryError extends Error {
  override readonly name = 'DirectoryError';
  constructor(
    readonly code:
      | 'exists'
      | 'not-found'
      | 'bad-address'
      | 'bad-domain'
      | 'weak-password'
      | 'in-use'
      | 'too-many'
      | 'not-supported',
    message: string,
  ) {
    super(message);
  }
}

export interface Directory {
  createDomain(name: string, options?: { subaddressSeparators?: string; catchAll?: string }): Promise<Domain>;
  updateDomain(name: string, change: { subaddressSeparators?: string; catchAll?: string | null }): Promise<Domain>;
  /** Refuses (`in-use`) while addresses remain in it. */
  removeDomain(name: string): Promise<void>;
  domains(): Promise<Domain[]>;
  isLocalDomain(name: string): Promise<boolean>;

  createPrincipal(input: {
    kind: PrincipalKind;
    address: string;
    displayName?: string;
    password?: string;
    aliases?: string[];
    members?: string[];
    quotaLimitBytes?: number;
    isAdmin?: boolean;
    /** See `setPassword`. */
    keepsLegacySecret?: boolean;
  }): Promise<Principal>;
  updatePrincipal(
    address: string,
    change: Partial<Pick<Principal, 'displayName' | 'aliases' | 'members' | 'isEnabled' | 'isAdmin'>> & {
      quotaLimitBytes?: number | null;
    },
  ): Promise<Principal>;
  removePrincipal(address: string): Promise<Principal>;
  principal(address: string): Promise<Principal | undefined>;
  principalById(id: AccountId): Promise<Principal | undefined>;
  principals(kind?: PrincipalKind): Promise<Principal[]>;

  /**
   * `keepsLegacySecret`: also keep what CRAM-MD5 and DIGEST-MD5 need of this password (`not-supported` where the directory has no sealer); default: as it was
   * with the last password.
   */
  setPassword(address: string, password: string, options?: { keepsLegacySecret?: boolean }): Promise<void>;
  /** The account can no longer log in with CRAM-MD5 and DIGEST-MD5. Harmless where it could not. */
  dropLegacySecret(address: string): Promise<void>;
  /** Answers the new secret, shown once: 20 random characters in groups of 5. */
  createAppPassword(address: string, name: string): Promise<string>;
  appPasswords(address: string): Promise<{ name: string; createdAtMs: number }[]>;
  removeAppPassword(address: string, name: string): Promise<void>;
  /** `login` is any address of the account. Takes the same time for unknown logins. */
  verifyPassword(login: string, password: string): Promise<VerifyResult>;
  scramSecret(login: string): Promise<ScramSecret | undefined>;
  /** Of accounts that keep one. */
  legacySecret(login: string): Promise<LegacySecret | undefined>;
  /** Everything that lies sealed here, under the newest cluster key. Harmless to repeat. Answers how much was sealed anew. */
  resealSecrets(): Promise<number>;

  /** Aliases, groups, lists (nested, each member once, loops cut), subaddresses, catch-all. */
  resolve(address: string): Promise<Resolution>;
  /** The enabled groups that the account is a member of, by address. Costs what there are groups and lists, once per change of the directory. */
  groupsOf(accountId: AccountId): Promise<{ id: AccountId; address: string }[]>;
  /** Whether an account may use this address as its sender (FEATURES A5): primary, alias, subaddress of those, member of the group. */
  maySendAs(accountId: AccountId, address: string): Promise<boolean>;
}
