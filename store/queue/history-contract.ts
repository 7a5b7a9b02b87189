/**
 * The history of a message through the cluster (FEATURES M5): what happened to it, on which node, when. Written in the transaction of what it tells, so it
 * is never ahead of the truth nor behind it; kept for days after the message has left the queue.
 */
import type { KvReads, KvTransaction } from '../kv/contract.js';
import type { QueueId } from './contract.js';

export type HistoryEvent =
  | {
      kind: 'accepted';
      from: string;
      /** The first hundred. */
      recipients: string[];
      recipientCount: number;
      sizeBytes: number;
      protocol: string;
      remoteAddress?: string;
      helo?: string;
      login?: string;
      tls?: string;
      /** Message-ID field, if any. */
      messageId?: string;
      /** Of the checks on the way in: name → result, such as `greylist: passed`, `dnsbl: none`. */
      checks: Record<string, string>;
    }
  /** One attempt for one destination with what was said. */
  | {
      kind: 'attempt';
      domain: string;
      isLocal: boolean;
      attempt: number;
      epoch: number;
      results: { address: string; verdict: string; code: number; enhanced: string; text: string; host?: string }[];
      /** How many results are left out above a hundred. */
      omitted: number;
      /** How the connection was protected, where there was one. */
      tls?: string;
      nextAttemptAtMs?: number;
    }
  | { kind: 'expanded'; domain: string; into: QueueId; members: number }
  | { kind: 'report'; report: 'failed' | 'delayed' | 'success'; id: QueueId; recipients: number }
  /** The claims of a node that died, or that gave them back, came free. */
  | { kind: 'freed'; domain: string; fromNode: string; reason: 'dead' | 'handed-back' }
  | { kind: 'operator'; action: 'retry' | 'hold' | 'unhold' | 'cancel' | 'reroute'; by: string; note?: string }
  | { kind: 'done' };

export interface HistoryRecord {
  atMs: number;
  nodeId: string;
  event: HistoryEvent;
}

export interface History {
  /**
   * In the caller's transaction; one small write, nothing is read. Running the same body again writes the same key, so `atMs` is chosen before the transaction.
   * `more`: further events of the same transaction, which share the row and come back as records of their own, in this order. Long lists and texts are cut.
   */
  append(tx: KvTransaction, id: QueueId, record: HistoryRecord, ...more: HistoryEvent[]): void;
  /**
   * In the order in which it happened, by the wall clocks of those who wrote; where they differ, the acceptance still comes first and the end last. Ids of messages by recipient, sender or Message-ID are not indexed: `list` of the
   * queue and the log tell them.
   */
  read(reads: KvReads, id: QueueId): Promise<HistoryRecord[]>;
  /**
   * Clears what was last written before `beforeMs`, in batches; never of a message that is still in the queue. Answers of how many messages. `assert` is called in
   * every transaction, and may throw.
   */
  forget(beforeMs: number, assert?: (tx: KvTransaction) => Promise<void>): Promise<number>;
}
