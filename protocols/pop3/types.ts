/** What a POP3 session is given: a connection, the stores, the locks of maildrops, limits, time. */
import type { Duplex } from 'node:stream';
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { BlobStore } from '../../store/blobs/contract.js';
import type { MaildropLocks, MailStore } from '../../store/mail/index.js';
import type { ChannelBindingSource, SaslBackend } from '../sasl/contract.js';
import type { ScramSettings } from '../sasl/index.js';

export interface Pop3Connection {
  /** The bytes: a TCP or TLS socket that nobody else reads. */
  socket: Duplex;
  remoteAddress: string;
  remotePort: number;
  /** TLS is on. */
  secure: boolean;
  /** What ties a login to the TLS connection as it is at the time of the call, also after `startTls`; without it, no SCRAM-SHA-256-PLUS. */
  channelBinding?: ChannelBindingSource | undefined;
  /** Begins TLS on the same connection and answers the encrypted stream; absent where STLS is not offered. Called with the plain socket paused. */
  startTls?: (() => Promise<Duplex>) | undefined;
}

export interface Pop3Limits {
  /** One line. RFC 2449 asks for 255; initial responses of SASL are longer. */
  maxLineBytes: number;
  /** From connect to login. */
  loginTimeoutMs: number;
  /** Silence after login. RFC 1939 section 3: at least 10 minutes. */
  idleTimeoutMs: number;
  /** The client takes no bytes for so long. */
  writeTimeoutMs: number;
  /** Input that is buffered while a command runs; then the socket is not read any more. */
  maxBufferedInputBytes: number;
  /** Output that waits in the socket; then the command waits. */
  maxBufferedOutputBytes: number;
  /** Commands that are none, or wrong, before the connection ends; after login a good one in between makes the count begin again. */
  maxBadCommands: number;
  maxAuthFailures: number;
  /** Added to the answer of a failed login. */
  authFailureDelayMs: number;
  /** What RETR has given becomes \Seen at QUIT. */
  marksSeen: boolean;
}

export const defaultPop3Limits: Pop3Limits = {
  maxLineBytes: 24_576,
  loginTimeoutMs: 60_000,
  idleTimeoutMs: 10 * 60_000,
  writeTimeoutMs: 300_000,
  maxBufferedInputBytes: 65_536,
  maxBufferedOutputBytes: 262_144,
  maxBadCommands: 20,
  maxAuthFailures: 4,
  authFailureDelayMs: 1_000,
  marksSeen: true,
};

export interface Pop3Services {
  mail: MailStore;
  blobs: BlobStore;
  locks: MaildropLocks;
  sasl: SaslBackend;
  /** Without it SCRAM is not offered. */
  scram?: ScramSettings;
  clock: Clock;
  random: Random;
  logger: Logger;
  serverName: string;
  limits: Pop3Limits;
  /** USER, PASS and AUTH also without TLS; for tests and trusted networks. */
  allowPlainAuth?: boolean;
}
