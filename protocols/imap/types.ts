/**
 * What an IMAP session is given: a connection, the stores, who knows the accounts, limits, time.
 */
import type { Duplex } from 'node:stream';
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { BlobStore } from '../../store/blobs/contract.js';
import { type AccountId, type MailStore, mailLimits } from '../../store/mail/contract.js';
import type { SaslBackend } from '../sasl/contract.js';
import type { ScramSettings } from '../sasl/index.js';
import { defaultGrammarLimits, type GrammarLimits } from './grammar/limits.js';

export interface ImapConnection {
  /** The bytes: a TCP or TLS socket that nobody else reads. */
  socket: Duplex;
  remoteAddress: string;
  remotePort: number;
  /** TLS is on. */
  secure: boolean;
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
  /** Messages of one MULTIAPPEND. */
  maxAppendMessages: number;
  /** Bytes of APPENDs that all sessions of this process hold at one time; more wait. One account has a quarter of it, or one message. */
  maxAppendBytesInFlight: number;
  /** Messages whose text one SEARCH reads at one time. */
  searchConcurrency: number;
}

export const defaultImapLimits: ImapLimits = {
  grammar: defaultGrammarLimits,
  preAuthGrammar: {
    ...defaultGrammarLimits,
    maxLineBytes: 16_384,
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
  maxAppendMessages: mailLimits.maxMessagesPerTransaction,
  maxAppendBytesInFlight: 268_435_456,
  searchConcurrency: 4,
};

/** Accounts as far as a session asks. */
export interface ImapAccounts {
  /** The quota as it is now; undefined for none. */
  quotaLimitBytes(accountId: AccountId): Promise<number | undefined>;
}

export interface ImapServices {
  mail: MailStore;
  blobs: BlobStore;
  sasl: SaslBackend;
  accounts: ImapAccounts;
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
