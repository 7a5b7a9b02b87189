/**
 * Clears away what nobody needs any more: unlinked blobs, abandoned uploads, receipts of the queue, mailbox removals that were interrupted, old entries
 * of the change logs. Every step is bounded and resumes by itself, so it may end at any moment.
 */
import type { Clock, Logger, Timer } from '../../ops/telemetry/index.js';
import { counter } from '../../ops/telemetry/index.js';
import type { BlobStore } from '../../store/blobs/contract.js';
import type { Directory } from '../../store/directory/contract.js';
import type { OpenMailStore } from '../../store/mail/index.js';
import type { Queue } from '../../store/queue/index.js';
import { isStoreTrouble } from '../mailflow/settle.js';

/** `kind`: blob, byte. */
const purgedTotal = counter('starling_purged_total', 'What the purge has removed.', ['kind']);
const passesTotal = counter('starling_purge_passes_total', 'Purge passes by result: done, failed.', ['result']);

export interface PurgeSettings {
  /** Between two passes over blobs and receipts. */
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
  blobs: Pick<BlobStore, 'purge'>;
  queue: Pick<Queue, 'forgetReceipts'>;
  mail: Pick<OpenMailStore, 'usage' | 'truncateLog' | 'resumeRemovals'>;
  directory: Pick<Directory, 'principals'>;
  clock: Clock;
  logger: Logger;
  settings?: Partial<PurgeSettings>;
  /**
   * Asked before every pass and between its steps: whether the purge is this node's job. It is harmless on several nodes at once, only wasteful.
   * Default: always.
   */
  isOurs?: () => boolean;
}

export interface Purger {
  /** One pass every interval, the first one an interval from now. */
  start(): void;
  /** One pass now: blobs and receipts, and the accounts when their time has come or `accounts` says so. Nothing while it is another node's job. */
  runOnce(options?: { accounts?: boolean }): Promise<void>;
  /** Ends the pass that is running after its current step, at most until `deadlineMs` (monotonic clock). */
  drain(deadlineMs: number): Promise<void>;
  stop(): Promise<void>;
}

export function createPurger(dependencies: PurgerDependencies): Purger {
  const { blobs, queue, mail, directory, clock, logger, isOurs = () => true } = dependencies;
  const settings = { ...defaultPurgeSettings, ...dependencies.settings };
  const stopping = new AbortController();
  /** Up to where each account's log has been truncated by this process. */
  const truncatedTo = new Map<string, number>();
  let accountsAtMs = clock.monotonicMs() + settings.accountIntervalMs;
  let running: Promise<void> | undefined;
  let timer: Timer | undefined;

  const isOver = () => stopping.signal.aborted || !isOurs();

  async function purgeBlobs(): Promise<void> {
    let more = true;
    while (more && !isOver()) {
      const nowSeconds = Math.floor(clock.nowMs() / 1000);
      const result = await blobs.purge({ nowSeconds, maxItems: settings.maxItems, signal: stopping.signal });
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

  async function purgeAccounts(): Promise<void> {
    for (const { id } of await directory.principals('account')) {
      if (isOver()) return;
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

  async function pass(withAccounts: boolean): Promise<void> {
    await purgeBlobs();
    if (isOver()) return;
    await queue.forgetReceipts(Math.floor(clock.nowMs() / 1000));
    if (withAccounts || clock.monotonicMs() >= accountsAtMs) await purgeAccounts();
  }

  /** One pass at a time; a second caller waits for the first and then has its own. */
  function runOnce(options: { accounts?: boolean } = {}): Promise<void> {
    const run = (running ?? Promise.resolve()).catch(() => {}).then(() => pass(options.accounts ?? false));
    const current = run.finally(() => {
      if (running === current) running = undefined;
    });
    running = current;
    return current;
  }

  function schedule(): void {
    timer = clock.setTimer(settings.intervalMs, () => void tick(), { background: true });
  }

  async function tick(): Promise<void> {
    try {
      const isDone = isOurs();
      await runOnce();
      if (isDone) passesTotal.inc({ result: 'done' });
    } catch (error) {
      if (stopping.signal.aborted) return;
      passesTotal.inc({ result: 'failed' });
      logger.warn({ err: error }, 'purge pass failed, the next one goes on');
    }
    if (!stopping.signal.aborted) schedule();
  }

  async function end(): Promise<void> {
    timer?.cancel();
    stopping.abort(new Error('the purge is stopping'));
    await running?.catch(() => {});
  }

  return {
    start: schedule,
    runOnce,
    async drain(deadlineMs) {
      const over = new AbortController();
      const late = clock.sleep(Math.max(0, deadlineMs - clock.monotonicMs()), over.signal).catch(() => {});
      await Promise.race([end(), late]);
      over.abort();
    },
    stop: end,
  };
}
