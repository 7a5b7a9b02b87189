/** What the rooms of the mail flow hand to one another. */
import type { Clock, Logger } from '../../ops/telemetry/index.js';
import type { Resolver } from '../../protocols/dns/index.js';
import type { SaslBackend } from '../../protocols/sasl/contract.js';
import type { BlobStore, PreparedBlob } from '../../store/blobs/contract.js';
import type { Directory } from '../../store/directory/contract.js';
import type { KvStore } from '../../store/kv/contract.js';
import type { Bans, ConcurrencyLimiter, Greylist, RateLimiter } from '../../store/limits/contract.js';
import type { Lookups } from '../../store/lookups/contract.js';
import type { MailStore } from '../../store/mail/contract.js';
import type { History, HistoryRecord } from '../../store/queue/history-contract.js';
import type { ClaimedDestination, NodeIdentity, Queue, QueueRecipient } from '../../store/queue/index.js';
import type { ExpressionHost } from '../expressions/contract.js';
import type { MailflowSettings } from './settings.js';
import type { AcceptStages } from './stages/contract.js';

export type DeliveryReply = NonNullable<QueueRecipient['lastReply']>;

/** A claimed destination with what is still in memory of its message since it was accepted. */
export interface DeliveryJob {
  claimed: ClaimedDestination;
  /** The blob as the accepting session prepared it, and all of its bytes. */
  fresh?: { blob: PreparedBlob; bytes: Buffer };
  /**
   * Of remote ones, called at most once in an attempt: the conversations are over and the saving of what they brought has begun, so another delivery may take this
   * one's place. Whoever is told bounds how many are being saved: they are what a crash may have delivered twice.
   */
  onAnswered?: () => void;
}

/** Where accepted messages go that this node delivers itself. */
export interface DeliveryDesk {
  readonly node: NodeIdentity;
  /** Whether it takes one more message of this size now; if not, the message becomes due for whoever has room. */
  hasRoom(sizeBytes: number): boolean;
  /** Takes over destinations that are claimed by this node. */
  take(jobs: readonly DeliveryJob[]): void;
}

/**
 * What one attempt told about one recipient.
 * `deferred`: try again later. `relayed`: taken by another server. `expanded`: replaced by a list's members.
 */
export interface RecipientVerdict {
  address: string;
  verdict: 'delivered' | 'relayed' | 'expanded' | 'failed' | 'deferred';
  reply: DeliveryReply;
  /** The peer promised to report success itself (RFC 3461 5.2.2). */
  dsnPassedOn?: boolean;
  /** Address that was spoken to, and how the connection was protected (protocol, cipher, `verified`); undefined without TLS. */
  ip?: string | undefined;
  tls?: string | undefined;
  /** The peer may have taken it although it did not say so. */
  isUnknown?: boolean;
}

/** A message that has arrived whole. */
export interface DirectMessage {
  queueId: string;
  /** The one recipient, whose domain is local. */
  address: string;
  blob: PreparedBlob;
  /** All of the blob's bytes, Return-Path and Received included. */
  bytes: Buffer;
  receivedAtMs: number;
  /** For the message's history, in the transaction of the delivery. */
  accepted?: HistoryRecord;
}

/** Answers whether the message is in its mailbox, durably; false means that nothing was kept and the queue must take it. Throws KvError. */
export type DeliverDirect = (message: DirectMessage) => Promise<boolean>;

/** What accepting mail needs. */
export interface ReceiverDependencies {
  kv: KvStore;
  blobs: BlobStore;
  queue: Queue;
  directory: Pick<Directory, 'resolve' | 'maySendAs' | 'principalById' | 'principal'>;
  mail: Pick<MailStore, 'usage'>;
  clock: Clock;
  logger: Logger;
  /** What holds now; read once for what must fit together. */
  settings: () => MailflowSettings;
  /** What operators have set for the stages; as by default without it. A new object after each change, the same one until then. */
  stages?: () => AcceptStages;
  /** What expressions ask, where the stages don't know it themselves. */
  host?: ExpressionHost;
  /** What checks ask; a check whose room is missing is not made. */
  limits?: { rates: Pick<RateLimiter, 'take'>; concurrency: ConcurrencyLimiter; greylist: Greylist };
  bans?: Pick<Bans, 'add' | 'find'>;
  lookups?: Pick<Lookups, 'get'>;
  resolver?: Pick<Resolver, 'a' | 'txt'>;
  /** Members of the cluster and trusted proxies: never looked up, greylisted, or banned. */
  isOwnAddress?: (address: string) => boolean;
  /** What is told of a message; without it nothing is. */
  history?: Pick<History, 'append'>;
  /** For the history and for expressions. */
  nodeId?: string;
  /** The short way to a local mailbox; without it every message goes through the queue. */
  direct?: DeliverDirect;
  /** Delivers on this node; without it every message becomes due. */
  desk?: DeliveryDesk;
  /** Where logins are checked. */
  authBackend?: SaslBackend;
}

/** A recipient that was accepted at RCPT. */
export interface AcceptedRecipient {
  /** Lower-case ASCII. */
  domain: string;
  isLocal: boolean;
  recipient: Omit<QueueRecipient, 'status'>;
  /** A spam trap, or a script wants it so: taken, and thrown away. */
  isDropped?: true;
  /** Who gets the message besides, because a script says so. */
  also?: readonly AcceptedRecipient[];
}
