/**
 * What an IMAP session is given: a connection, the stores, who knows the accounts, limits, time.
 */
import type { Duplex } from 'node:stream';
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { BlobStore } from '../../store/blobs/contract.js';
import { type AccountId, type MailStore, mailLimits } from '../../store/mail/contract.js';
import type { SearchStore } from '../../store/search/contract.js';
import type { ChannelBindingSource, SaslBackend } from '../sasl/contract.js';
import type { ScramSettings } from '../sasl/index.js';
import { defaultGrammarLimits, type GrammarLimits } from './grammar/limits.js';

export interface ImapConnection {
  /** The bytes: a TCP or TLS socket that nobody else reads. */
  socket: Duplex;
  remoteAddress: string;
  remotePort: number;
  /** TLS is on. */
  secure: boolean;
  /** What ties a login to the TLS connection as it is at the time of the call, also after `startTls`; without it, no SCRAM-SHA-256-PLUS. */
  channelBinding?: ChannelBindingSource | undefined;
  /**
   * Begins TLS on the same connection and answers the encrypted stream; absent where STARTTLS is not offered. Called with the plain
   * socket paused and without listeners.
   */
  startTls?: () => Promise<Duplex>;
}

export interface ImapLimits {
  grammar: GrammarLimits;
  /** The same before login, when anybody may be at the other end. */
  preAuthGrammar: GrammarLimits;
  /** From connect to login. */
  loginTimeoutMs: number;
  /** Silence after login. RFC 9051 5.4: at least 30 minutes. */
  idleTimeoutMs: number;
  /** Silence in the middle of a literal. */
  literalTimeoutMs: number;
  /** The client takes no bytes for so long. */
  writeTimeoutMs: number;
  /** Between two `* OK Still here` of IDLE (TRAPS 31). */
  keepAliveMs: number;
  /** Input that is buffered while a command runs; then the socket is not read any more. */
  maxBufferedInputBytes: number;
  /** Output that waits in the socket; then the command waits. */
  maxBufferedOutputBytes: number;
  /** BADs before the connection ends; after login an OK in between makes the count begin again. */
  maxBadCommands: number;
  maxAuthFailures: number;
  /** Added to the answer of a failed login. */
  authFailureDelayMs: number;
  /** Messages that one command works on (RFC 9738); 0 for any number, and then no limit is announced. */
  maxMessagesPerCommand: number;
  /** Messages of one MULTIAPPEND. */
  maxAppendMessages: number;
  /** Bytes of APPENDs that all sessions of this process hold at one time; more wait. One account has a quarter of it, or one message. */
  maxAppendBytesInFlight: number;
  /** Messages whose text one SEARCH reads at one time. */
  searchConcurrency: number;
  /** Memory of this process for what SORT and THREAD know of messages. */
  sortFactsBytes: number;
}

export const defaultImapLimits: ImapLimits = {
  grammar: defaultGrammarLimits,
  preAuthGrammar: {
    ...defaultGrammarLimits,
    // RFC 2971 3.3: ID with 30 fields of 1,024 octets each, most often asked before login.
    maxLineBytes: 40_960,
    maxLiteralBytes: 8_192,
    maxSkippedBytes: 1_048_576,
    maxArguments: 64,
  },
  loginTimeoutMs: 60_000,
  idleTimeoutMs: 30 * 60_000,
  literalTimeoutMs: 120_000,
  writeTimeoutMs: 300_000,
  keepAliveMs: 120_000,
  maxBufferedInputBytes: 131_072,
  maxBufferedOutputBytes: 262_144,
  maxBadCommands: 20,
  maxAuthFailures: 4,
  authFailureDelayMs: 1_000,
  maxMessagesPerCommand: 4_000_000,
  maxAppendMessages: mailLimits.maxMessagesPerTransaction,
  maxAppendBytesInFlight: 268_435_456,
  searchConcurrency: 4,
  sortFactsBytes: 134_217_728,
};

/** Accounts as far as a session asks. */
export interface ImapAccounts {
  /** The quota as it is now; undefined for none. */
  quotaLimitBytes(accountId: AccountId): Promise<number | undefined>;
}

/** An account, or a group of them, as others name it. */
export interface ImapPrincipal {
  id: AccountId;
  kind: 'account' | 'group';
  /** Primary address, in lower case. */
  address: string;
}

/** Who there is, as far as sharing needs it. */
export interface ImapDirectory {
  /** By any of its addresses. Neither lists nor what is unknown. */
  byAddress(address: string): Promise<ImapPrincipal | undefined>;
  byId(id: AccountId): Promise<ImapPrincipal | undefined>;
  /** Groups that an account is a member of. */
  groupsOf(accountId: AccountId): Promise<readonly { id: AccountId; address: string }[]>;
}

/** Mailboxes of others (RFC 4314, RFC 9051 6.3.10). */
export interface ImapSharing {
  directory: ImapDirectory;
  /** Top name of people's mailboxes that they share. */
  otherUsers: string;
  /** Top name of the mailboxes of groups. */
  groups: string;
  /** Whether a mailbox may be shared with everybody at once (`anyone`, `authenticated`). */
  withEveryone: boolean;
}

/** Of the server as a whole (RFC 5464 6.2.1). */
export interface ServerAnnotations {
  /** `/shared/comment` */
  comment?: string;
  /** `/shared/admin`: a URI by which the administrator is reached. */
  admin?: string;
}

export interface ImapServices {
  mail: MailStore;
  blobs: BlobStore;
  /** The full-text index; without it, and where it has not got to yet, texts are looked for in the messages. */
  search?: SearchStore | undefined;
  sasl: SaslBackend;
  accounts: ImapAccounts;
  /** Without it there are no mailboxes but one's own, and no ACL. */
  sharing?: ImapSharing;
  serverAnnotations?: ServerAnnotations;
  /**
   * Asked for each login: takes one of the places that this user's connections may have, on all nodes; undefined when there are none left. The answer gives
   * it back. Without it there may be any number. Throws KvError.
   */
  admitConnection?(accountId: AccountId): Promise<(() => void) | undefined>;
  /** Without it SCRAM is not offered. */
  scram?: ScramSettings;
  clock: Clock;
  random: Random;
  logger: Logger;
  serverName: string;
  limits: ImapLimits;
  /** LOGIN and AUTHENTICATE also without TLS; for tests and trusted networks. */
  allowPlainAuth?: boolean;
}
