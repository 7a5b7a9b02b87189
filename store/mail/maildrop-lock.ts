/**
 * The exclusive lock of POP3 on a maildrop (RFC 1939 section 4): one row per account that names the node whose session has it. It counts as long as that
 * node's fence stands, so what a dead node, or the process before this one, has left behind is free for the taking.
 */
import { Packr } from 'msgpackr';
import type { Clock, Logger, Random, Timer } from '../../ops/telemetry/index.js';
import { key, nodeKeys, subspace } from '../keyspace.js';
import { KvError, type KvStore, type KvTransaction } from '../kv/contract.js';
import type { AccountId } from './contract.js';

const formatVersion = 1;
const tokenBytes = 12;
/** A lock that could not be given back is tried again after so long, as long as this process runs. */
const releaseAgainMs = 2_000;
const packr = new Packr({ useRecords: false });

/** The maildrop is not this session's any more: its node was declared dead, or the account has gone. */
export class MaildropLockLost extends Error {
  override readonly name = 'MaildropLockLost';
}

export interface MaildropLock {
  /**
   * To be called in each transaction that relies on the lock: whoever takes it over meanwhile makes that transaction run again, and then it throws
   * `MaildropLockLost`.
   */
  assert(tx: KvTransaction): Promise<void>;
  /** Gives it back, at the latest when the store can be written again. Never rejects; harmless to call again. */
  release(): Promise<void>;
}

export interface MaildropLocks {
  /** Undefined while another session has it, on whichever node. Throws KvError, and `MaildropLockLost` on a node without a fence of its own. */
  acquire(accountId: AccountId): Promise<MaildropLock | undefined>;
  /** Ends attempts to give back; what is left goes with the node's fence. */
  stop(): void;
}

export interface MaildropLockDependencies {
  kv: KvStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Asked at each use, as a node learns it late. */
  nodeId: () => string;
}

interface LockRow {
  nodeId: string;
  token: string;
}

export const maildropLockKey = (accountId: AccountId): Buffer => key(subspace.mail, accountId, 'maildrop-lock');

export function createMaildropLocks(deps: MaildropLockDependencies): MaildropLocks {
  return new NodeLocks(deps);
}

/** Whatever a newer format adds behind, these stay where they are. */
function decodeRow(value: Buffer): LockRow {
  const [, nodeId, token] = packr.unpack(value) as [number, string, string];
  return { nodeId, token };
}

class NodeLocks implements MaildropLocks {
  /** Token of each lock that a session of this process has, or is about to get. */
  readonly #held = new Map<AccountId, string>();
  readonly #timers = new Set<Timer>();
  #isStopped = false;

  constructor(readonly deps: MaildropLockDependencies) {}

  async acquire(accountId: AccountId): Promise<MaildropLock | undefined> {
    if (this.#held.has(accountId)) return undefined;
    const { kv, clock, random } = this.deps;
    const token = random.bytes(tokenBytes).toString('hex');
    // Before the first wait: of two sessions here only one asks the store.
    this.#held.set(accountId, token);
    const nodeId = this.deps.nodeId();
    const row = packr.pack([formatVersion, nodeId, token, Math.floor(clock.nowMs())]);
    try {
      const isOurs = await kv.transact((tx) => this.#take(tx, accountId, { nodeId, token }, row), { label: 'maildrop-lock' });
      if (isOurs) return new Lock(this, accountId, { nodeId, token });
      this.#held.delete(accountId);
      return undefined;
    } catch (error) {
      // The last commit may have come through after all.
      void this.release(accountId, token);
      throw error;
    }
  }

  async #take(tx: KvTransaction, accountId: AccountId, self: LockRow, row: Buffer): Promise<boolean> {
    const [fence, value] = await tx.getMany([nodeKeys.fence(self.nodeId), maildropLockKey(accountId)]);
    // What a node without a fence takes, others may take as well.
    if (!fence) throw new MaildropLockLost('this node has no fence: it can hold no lock');
    if (value) {
      const found = decodeRow(value);
      // A run of this body before has come through.
      if (found.token === self.token) return true;
      // A row of this node's that no session here holds is left from one that could not give it back.
      if (found.nodeId !== self.nodeId && (await tx.get(nodeKeys.fence(found.nodeId)))) return false;
    }
    tx.set(maildropLockKey(accountId), row);
    return true;
  }

  async release(accountId: AccountId, token: string): Promise<void> {
    if (this.#held.get(accountId) === token) this.#held.delete(accountId);
    try {
      await this.deps.kv.transact(
        async (tx) => {
          const value = await tx.get(maildropLockKey(accountId));
          if (value && decodeRow(value).token === token) tx.clear(maildropLockKey(accountId));
        },
        { label: 'maildrop-unlock', maxAttempts: 5 },
      );
    } catch (error) {
      this.deps.logger.warn({ err: error, accountId }, 'a maildrop lock can not be given back yet');
      this.#releaseLater(accountId, token, error);
    }
  }

  #releaseLater(accountId: AccountId, token: string, error: unknown): void {
    if (this.#isStopped || (error instanceof KvError && error.reason === 'closed')) return;
    const timer = this.deps.clock.setTimer(
      releaseAgainMs,
      () => {
        this.#timers.delete(timer);
        void this.release(accountId, token);
      },
      { background: true },
    );
    this.#timers.add(timer);
  }

  stop(): void {
    this.#isStopped = true;
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
  }
}

class Lock implements MaildropLock {
  #released: Promise<void> | undefined;

  constructor(
    readonly locks: NodeLocks,
    readonly accountId: AccountId,
    readonly row: LockRow,
  ) {}

  async assert(tx: KvTransaction): Promise<void> {
    const value = await tx.get(maildropLockKey(this.accountId));
    if (!value || decodeRow(value).token !== this.row.token)
      throw new MaildropLockLost('the lock of the maildrop has been taken over');
  }

  release(): Promise<void> {
    this.#released ??= this.locks.release(this.accountId, this.row.token);
    return this.#released;
  }
}
