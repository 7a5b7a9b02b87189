/**
 * Clears away what nobody needs any more: unlinked blobs, abandoned uploads, receipts of the queue, mailbox removals that were interrupted, old entries
 * of the change logs. Every step is bounded and resumes by itself, so it may end at any moment.
 */
import type { LeaderLease } from '../../cluster/leases/index.js';
import type { Clock, Logger } from '../../ops/telemetry/index.js';
import { counter } from '../../ops/telemetry/index.js';
import type { BlobStore } from '../../store/blobs/contract.js';
import type { Directory } from '../../store/directory/contract.js';
import type { KvStore } from '../../store/kv/contract.js';
import type { OpenMailStore } from '../../store/mail/index.js';
import type { Queue } from '../../store/queue/index.js';
import { isStoreTrouble } from '../mailflow/settle.js';

/** `kind`: blob, byte. */
const purgedTotal = counter('starling_purged_total', 'What the purge has removed.', ['kind']);
const passesTotal = counter('starling_purge_passes_total', 'Purge passes by result: done, failed.', ['result']);

export interface PurgeSettings {
  /** Between two passes over blobs and receipts; the first one is made when the node gets the job. */
  intervalMs: number;
  /** Between two rounds over all accounts. */
  accountIntervalMs: number;
  /** Changes per account that clients can still catch up from. */
  keptModseqs: number;
  /** Blobs examined in one step. */
  maxItems: number;
}

export const defaultPurgeSettings: PurgeSettings = {
  intervalMs: 60_000,
  accountIntervalMs: 3_600_000,
  keptModseqs: 10_000,
  maxItems: 500,
};

export interface PurgerDependencies {
  kv: Pick<KvStore, 'read'>;
  blobs: Pick<BlobStore, 'purge'>;
  queue: Pick<Queue, 'forgetReceipts'>;
  mail: Pick<OpenMailStore, 'usage' | 'truncateLog' | 'resumeRemovals'>;
  directory: Pick<Directory, 'principals'>;
  clock: Clock;
  logger: Logger;
  settings?: Partial<PurgeSettings>;
}

export interface PassOptions {
  /** The accounts, too, although their time has not come. */
  accounts?: boolean;
  /** Ends the pass after its current step. */
  signal?: AbortSignal;
  /**
   * Asserted before every step: another node may have the job by now. (Two that purge at once are harmless and wasteful: each step asks in its own
   * transaction what may go.)
   */
  lease?: Pick<LeaderLease, 'assert'>;
}

export interface Purger {
  /** Between two runs of `work`. */
  readonly intervalMs: number;
  /** The job `purge` of the cluster: one pass, as `runOnce`. */
  work(epoch: number, signal: AbortSignal, lease: LeaderLease): Promise<void>;
  /** One pass now: blobs and receipts, and the accounts when their time has come. Throws LeaseLost, KvError. */
  runOnce(options?: PassOptions): Promise<void>;
}

export function createPurger(dependencies: PurgerDependencies): Purger {
  const { kv, blobs, queue, mail, directory, clock, logger } = dependencies;
  const settings = { ...defaultPurgeSettings, ...dependencies.settings };
  /** Up to where each account's log has been truncated by this process. */
  const truncatedTo = new Map<string, number>();
  let accountsAtMs = clock.monotonicMs() + settings.accountIntervalMs;

  /** Answers whether there is to be another step. Throws LeaseLost. */
  async function mayGoOn({ signal, lease }: PassOptions): Promise<boolean> {
    if (signal?.aborted) return false;
    if (lease) await kv.read((reads) => lease.assert(reads), { label: 'purge-lease' });
    return true;
  }

  async function purgeBlobs(options: PassOptions): Promise<void> {
    let more = true;
    while (more && (await mayGoOn(options))) {
      const nowSeconds = Math.floor(clock.nowMs() / 1000);
      const { signal } = options;
      const result = await blobs.purge({ nowSeconds, maxItems: settings.maxItems, ...(signal && { signal }) });
      purgedTotal.inc({ kind: 'blob' }, result.removed);
      purgedTotal.inc({ kind: 'byte' }, result.removedBytes);
      if (result.removed > 0) logger.debug(result, 'blobs purged');
      more = result.more;
    }
  }

  async function purgeAccount(id: string): Promise<void> {
    await mail.resumeRemovals(id);
    const { modseq } = await mail.usage(id);
    const upTo = modseq - settings.keptModseqs;
    // A tenth at a time, so that an idle account costs one read.
    if (upTo <= 0 || upTo - (truncatedTo.get(id) ?? 0) < settings.keptModseqs / 10) return;
    await mail.truncateLog(id, upTo);
    truncatedTo.set(id, upTo);
  }

  async function purgeAccounts(options: PassOptions): Promise<void> {
    for (const { id } of await directory.principals('account')) {
      if (!(await mayGoOn(options))) return;
      try {
        await purgeAccount(id);
      } catch (error) {
        // The store's own trouble ends the round; what is wrong with one account must not keep the others from their turn.
        if (isStoreTrouble(error)) throw error;
        logger.error({ err: error, accountId: id }, 'the purge can not tidy this account');
      }
    }
    accountsAtMs = clock.monotonicMs() + settings.accountIntervalMs;
  }

  async function runOnce(options: PassOptions = {}): Promise<void> {
    await purgeBlobs(options);
    if (!(await mayGoOn(options))) return;
    const { lease } = options;
    await queue.forgetReceipts(Math.floor(clock.nowMs() / 1000), lease && ((tx) => lease.assert(tx)));
    if (options.accounts || clock.monotonicMs() >= accountsAtMs) await purgeAccounts(options);
  }

  return {
    runOnce,
    intervalMs: settings.intervalMs,
    async work(_epoch, signal, lease) {
      try {
        await runOnce({ signal, lease });
        if (!signal.aborted) passesTotal.inc({ result: 'done' });
      } catch (error) {
        if (!signal.aborted) passesTotal.inc({ result: 'failed' });
        throw error;
      }
    },
  };
}
