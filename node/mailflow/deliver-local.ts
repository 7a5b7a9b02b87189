/**
 * Delivers claimed local destinations: message and dequeue in one transaction. A single mailbox goes through `mailbox-writer.ts`, where messages
 * for one account are combined; several accounts, lists, refusals and success reports go through `settle.ts`.
 */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import { summarizeWithin } from '../../protocols/message/index.js';
import { BlobMissing, type BlobStore, type PreparedBlob } from '../../store/blobs/contract.js';
import type { Directory } from '../../store/directory/contract.js';
import { KvError, type KvStore, type KvTransaction } from '../../store/kv/contract.js';
import { type AccountGate, MailError, mailLimits, type NewMessage, type OpenMailStore } from '../../store/mail/index.js';
import type { ClaimedDestination, Queue, SaveOutcome } from '../../store/queue/index.js';
import { expandedEvents, writeEarlyBatches, writeLastBatch } from './expand-batches.js';
import { type AccountDelivery, findRoutes, type Routes } from './local-routes.js';
import { createMailboxFinder } from './mailbox-finder.js';
import { createMailboxWriter } from './mailbox-writer.js';
import { attemptsTotal, deliverySeconds, messagesTotal } from './metrics.js';
import { Notices } from './notice.js';
import { attemptNumber, defaultSchedule, nextAttemptAtSeconds, wantsSuccessReport } from './retry-schedule.js';
import type { MailflowSettings } from './settings.js';
import { isPending, type Settle } from './settle.js';
import type { DeliveryJob, DeliveryReply } from './types.js';

export interface LocalDeliveryDependencies {
  kv: KvStore;
  queue: Queue;
  blobs: BlobStore;
  mail: Pick<OpenMailStore, 'openWriter' | 'announce' | 'announcePerhaps' | 'mailboxByPath' | 'ensureAccount' | 'gate'>;
  directory: Pick<Directory, 'resolve' | 'principalById'>;
  settle: Settle;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** What holds now; read once for what must fit together. */
  settings: () => MailflowSettings;
}

/** Delivers one claimed destination to its end. Throws ClaimLost, or KvError when the store can't be used: the claim is then still ours. */
export type DeliverLocal = (job: DeliveryJob) => Promise<void>;

const fullMailbox: DeliveryReply = { code: 452, enhanced: '4.2.2', text: 'The mailbox is full' };
const lostContent: DeliveryReply = { code: 554, enhanced: '5.3.0', text: 'The content of this message is lost' };

/** What mailboxes keep of a message. */
interface Content {
  blob: PreparedBlob;
  summary: Buffer;
  messageIds: string[];
  missingLineEndBytes: number;
}

/** One destination while it is being delivered. */
interface Delivery {
  job: DeliveryJob;
  claimed: ClaimedDestination;
  /** Read and parsed once, when the first mailbox needs it. */
  content(): Promise<Content>;
  /** Lists that it has expanded: another address of one leads to the same members. */
  served: Set<string>;
}

export function createLocalDelivery(d: LocalDeliveryDependencies): DeliverLocal {
  const writeToMailbox = createMailboxWriter({ ...d, gate: d.mail.gate });
  const finder = createMailboxFinder(d.mail);

  /** One transaction for what `routes` holds; when a mailbox refuses or it is too much for one, each recipient alone. `keepClaim`: others follow. */
  async function deliverRoutes(delivery: Delivery, routes: Routes, keepClaim: boolean, isSecondTry = false): Promise<void> {
    const { claimed, job } = delivery;
    const { addresses } = routes;
    try {
      const only = keepClaim ? undefined : onlyAccount(claimed, routes);
      if (only) await toOneAccount(delivery, routes, only);
      else await settleRoutes(d, delivery, routes, keepClaim);
      for (const { listAddress } of routes.expansions) if (listAddress !== undefined) delivery.served.add(listAddress);
    } catch (error) {
      for (const { abort } of routes.expansions) await abort().catch(() => {});
      const isTooLarge = error instanceof KvError && error.code === 'too-large' && addresses.length > 1;
      if (!(error instanceof MailError) && !isTooLarge) throw error;
      for (const { accountId } of routes.accounts) finder.forget(accountId);
      if (error instanceof MailError && addresses.length === 1) {
        // The mailbox was removed since it was found: look again, INBOX is always there.
        const mayTryAgain = error.code === 'no-mailbox' && !isSecondTry;
        if (!mayTryAgain) return refused(d, delivery, addresses[0]!, keepClaim, error);
        return deliverRoutes(delivery, await findRoutes(d, finder, job, addresses, delivery.served), keepClaim, true);
      }
      for (const [i, address] of addresses.entries()) {
        await deliverRoutes(
          delivery,
          await findRoutes(d, finder, job, [address], delivery.served),
          keepClaim || i < addresses.length - 1,
        );
      }
    }
  }

  async function toOneAccount(delivery: Delivery, { verdicts }: Routes, account: AccountDelivery): Promise<void> {
    const { claimed } = delivery;
    const message = newMessage(claimed, await delivery.content(), account);
    const { accountId, quotaLimitBytes } = account;
    const nowMs = d.clock.nowMs();
    const attempts = attemptNumber(claimed.destination);
    const nextDueAtSeconds = nextAttemptAtSeconds(claimed.message, defaultSchedule(d.settings()), attempts, nowMs, d.random);
    const insert = { claimed, message, quotaLimitBytes, verdicts, nowMs, nextDueAtSeconds };
    const outcome = await writeToMailbox(accountId, insert);
    attemptsTotal.inc({ kind: 'local', result: 'delivered' }, verdicts.length);
    if (outcome.isMessageDone) messagesTotal.inc({ event: 'completed' });
    logDelivered(d, claimed, verdicts.length, [account]);
  }

  return async (job) => {
    const { claimed } = job;
    const delivery: Delivery = { job, claimed, content: contentOf(d, job), served: new Set() };
    const addresses = claimed.destination.recipients.filter(isPending).map(({ address }) => address);
    try {
      for (let rest = addresses; rest.length > 0; ) {
        const routes = await findRoutes(d, finder, job, rest, delivery.served);
        rest = rest.slice(routes.addresses.length);
        await deliverRoutes(delivery, routes, rest.length > 0);
      }
    } catch (error) {
      if (!(error instanceof BlobMissing)) throw error;
      d.logger.error({ queueId: claimed.message.id, blobId: claimed.message.blobId }, 'content of a queued message is missing');
      const pending = claimed.destination.recipients.filter(isPending);
      const verdicts = pending.map(({ address }) => ({ address, verdict: 'failed' as const, reply: lostContent }));
      await d.settle({ claimed, verdicts, kind: 'local' });
    }
  };
}

/** The account that all routes lead to, when nothing but its insert is needed: the fast way. */
function onlyAccount({ destination }: ClaimedDestination, { accounts, verdicts }: Routes): AccountDelivery | undefined {
  if (accounts.length !== 1 || verdicts.some(({ verdict }) => verdict !== 'delivered')) return undefined;
  return destination.recipients.some(wantsSuccessReport) ? undefined : accounts[0];
}

/** Several accounts, lists, refusals, success reports: one transaction for all of them. */
async function settleRoutes(
  d: LocalDeliveryDependencies,
  delivery: Delivery,
  routes: Routes,
  keepClaim: boolean,
): Promise<SaveOutcome> {
  const { claimed } = delivery;
  const content = routes.accounts.length > 0 ? await delivery.content() : undefined;
  for (const expansion of routes.expansions) await writeEarlyBatches(d, claimed, expansion);
  const nowMs = d.clock.nowMs();
  const notices = new Notices(d.mail);
  const alongside = async (tx: KvTransaction) => {
    notices.begin();
    // Side by side: what all of them read shares two round trips.
    await Promise.all(
      routes.accounts.map(async (account) => {
        const message = newMessage(claimed, content!, account);
        const writer = await d.mail.openWriter(tx, account.accountId, [message]);
        await writer.insertMessage(message, { quotaLimitBytes: account.quotaLimitBytes });
        notices.finish(tx, writer);
      }),
    );
    for (const expansion of routes.expansions) await writeLastBatch(d, tx, claimed, expansion, nowMs);
  };
  const events = routes.expansions.flatMap(({ batches }) => batches.flatMap((batch) => expandedEvents(claimed, batch)));
  const { verdicts, lists } = routes;
  const settle = () => d.settle({ claimed, verdicts, kind: 'local', keepClaim, events, lists, alongside });
  const outcome = await notices.around(() => behindGates(d.mail.gate, routes, settle));
  if (routes.expansions.length > 0) {
    messagesTotal.inc({ event: 'expanded' }, routes.expansions.length);
    d.queue.announceDue();
    for (const { address, batches } of routes.expansions) {
      const expandedAs = batches.flatMap(({ messages }) => messages.map(({ id }) => id)).slice(0, 20);
      d.logger.info({ queueId: claimed.message.id, list: address, expandedAs }, 'list expanded');
    }
  }
  if (routes.accounts.length > 0) logDelivered(d, claimed, routes.verdicts.length, routes.accounts);
  return outcome;
}

/** One after another with this process' other changes to the accounts: they would only conflict. Gates are entered in one order, so that nobody waits in a circle. */
function behindGates<T>(gate: AccountGate, { accounts }: Routes, work: () => Promise<T>): Promise<T> {
  const ids = [...new Set(accounts.map(({ accountId }) => accountId))].sort();
  return ids.reduceRight((inner, accountId) => () => gate.runExclusive(accountId, inner), work)();
}

/** A mailbox that can't take the message now: tried again until the message's time is over, then bounced. */
async function refused(
  d: LocalDeliveryDependencies,
  { claimed }: Delivery,
  address: string,
  keepClaim: boolean,
  error: MailError,
) {
  const reply = error.code === 'over-quota' ? fullMailbox : { code: 451, enhanced: '4.2.0', text: error.message };
  d.logger.info({ queueId: claimed.message.id, recipient: address, code: error.code }, 'mailbox refused');
  await d.settle({ claimed, verdicts: [{ address, verdict: 'deferred', reply }], kind: 'local', keepClaim });
}

function newMessage({ message }: ClaimedDestination, content: Content, { mailboxIds }: AccountDelivery): NewMessage {
  return { ...content, mailboxIds, receivedAtMs: message.receivedAtMs };
}

function contentOf(d: LocalDeliveryDependencies, { claimed, fresh }: DeliveryJob): () => Promise<Content> {
  let loading: Promise<Content> | undefined;
  const load = async (): Promise<Content> => {
    const { blobId, sizeBytes } = claimed.message;
    const bytes = fresh?.bytes ?? (await d.blobs.read(blobId));
    const { encoded, messageIds, missingLineEndBytes } = summarizeWithin(bytes, mailLimits.maxSummaryBytes);
    const blob = fresh?.blob ?? d.blobs.stored({ id: blobId, sizeBytes });
    return { blob, summary: encoded, messageIds, missingLineEndBytes };
  };
  return () => (loading ??= load());
}

function logDelivered(
  d: LocalDeliveryDependencies,
  { message }: ClaimedDestination,
  recipients: number,
  accounts: readonly AccountDelivery[],
): void {
  const seconds = Math.max(0, d.clock.nowMs() - message.receivedAtMs) / 1000;
  deliverySeconds.observe(seconds);
  d.logger.info(
    { queueId: message.id, recipients, accountId: accounts[0]?.accountId, accounts: accounts.length, seconds },
    'delivered',
  );
}
