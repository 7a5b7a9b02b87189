/** What the rooms of the mail flow hand to one another. */
import type { Clock, Logger } from '../../ops/telemetry/index.js';
import type { SaslBackend } from '../../protocols/sasl/contract.js';
import type { BlobStore, PreparedBlob } from '../../store/blobs/contract.js';
import type { Directory } from '../../store/directory/contract.js';
import type { KvStore } from '../../store/kv/contract.js';
import type { MailStore } from '../../store/mail/contract.js';
import type { ClaimedDestination, NodeIdentity, Queue, QueueRecipient } from '../../store/queue/index.js';
import type { MailflowSettings } from './settings.js';

export type DeliveryReply = NonNullable<QueueRecipient['lastReply']>;

/** A claimed destination with what is still in memory of its message since it was accepted. */
export interface DeliveryJob {
  claimed: ClaimedDestination;
  /** The blob as the accepting session prepared it, and all of its bytes. */
  fresh?: { blob: PreparedBlob; bytes: Buffer };
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
}

/** Answers whether the message is in its mailbox, durably; false means that nothing was kept and the queue must take it. Throws KvError. */
export type DeliverDirect = (message: DirectMessage) => Promise<boolean>;

/** What accepting mail needs. */
export interface ReceiverDependencies {
  kv: KvStore;
  blobs: BlobStore;
  queue: Queue;
  directory: Pick<Directory, 'resolve' | 'maySendAs' | 'principalById'>;
  mail: Pick<MailStore, 'usage'>;
  clock: Clock;
  logger: Logger;
  /** What holds now; read once for what must fit together. */
  settings: () => MailflowSettings;
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
}
