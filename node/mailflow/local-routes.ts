/** Where the recipients of a local destination lead: to mailboxes, to the members of lists, or to a refusal. */
import type { Logger } from '../../ops/telemetry/index.js';
import type { Directory, LocalTarget } from '../../store/directory/contract.js';
import type { NewQueueMessage, QueueMessage } from '../../store/queue/index.js';
import { type ExpandDependencies, expand, type LocalResolution, needsExpansion } from './expand.js';
import type { MailboxFinder } from './mailbox-finder.js';
import type { DeliveryJob, DeliveryReply, RecipientVerdict } from './types.js';

export interface RouteDependencies extends ExpandDependencies {
  directory: Pick<Directory, 'resolve' | 'principalById'>;
  logger: Logger;
}

/** One account's part of a delivery. */
export interface AccountDelivery {
  accountId: string;
  mailboxIds: string[];
  quotaLimitBytes?: number;
}

export interface Routes {
  /** The addresses that these routes are for: the first ones of those asked for. */
  addresses: string[];
  /** What each recipient gets when the transaction succeeds. */
  verdicts: RecipientVerdict[];
  accounts: AccountDelivery[];
  /** New messages that take the place of lists. */
  expansions: { message: NewQueueMessage; abort(): Promise<void> }[];
}

/** Inserts into this many accounts share a transaction; one recipient may add a small group's more. */
const maxAccountsPerTransaction = 20;

const delivered: DeliveryReply = { code: 250, enhanced: '2.1.5', text: 'Delivered to mailbox' };
const expanded: DeliveryReply = { code: 250, enhanced: '2.1.5', text: 'Sent on to the members' };
const noMailbox: DeliveryReply = { code: 550, enhanced: '5.1.1', text: 'No such recipient here' };
const disabledMailbox: DeliveryReply = { code: 550, enhanced: '5.2.1', text: 'This mailbox is disabled' };
const looping: DeliveryReply = { code: 554, enhanced: '5.4.6', text: 'The list has already sent this message' };
const tooManyMembers: DeliveryReply = { code: 554, enhanced: '5.3.4', text: 'The list has too many members for one message' };

/**
 * Resolves recipients as the directory stands now: an account may have gone since the message was accepted. Ends early when so many accounts
 * are reached that they fill a transaction.
 */
export async function findRoutes(
  d: RouteDependencies,
  finder: MailboxFinder,
  job: DeliveryJob,
  addresses: readonly string[],
): Promise<Routes> {
  const routes: Routes = { addresses: [], verdicts: [], accounts: [], expansions: [] };
  try {
    for (const address of addresses) {
      if (routes.accounts.length + routes.expansions.length >= maxAccountsPerTransaction) break;
      routes.addresses.push(address);
      await addRoute(d, finder, job, address, routes);
    }
  } catch (error) {
    for (const { abort } of routes.expansions) await abort().catch(() => {});
    throw error;
  }
  return routes;
}

async function addRoute(
  d: RouteDependencies,
  finder: MailboxFinder,
  job: DeliveryJob,
  address: string,
  routes: Routes,
): Promise<void> {
  const resolution = await resolveLocal(d, address);
  if (resolution.kind === 'local' && needsExpansion(resolution)) {
    await routeList(d, job, address, resolution, routes);
  } else if (resolution.kind === 'local' && resolution.targets.length > 0) {
    for (const target of resolution.targets) await addTarget(d, finder, routes.accounts, target);
    routes.verdicts.push({ address, verdict: 'delivered', reply: delivered });
  } else {
    const reply = resolution.kind === 'disabled' ? disabledMailbox : noMailbox;
    routes.verdicts.push({ address, verdict: 'failed', reply });
  }
}

/** RFC 5321 4.5.1: the postmaster of a local domain always exists. */
async function resolveLocal(d: RouteDependencies, address: string) {
  const resolution = await d.directory.resolve(address);
  if (resolution.kind !== 'unknown' || !/^postmaster@/i.test(address)) return resolution;
  return d.directory.resolve(d.settings().postmasterAddress);
}

/** Aliases that lead to the same mailbox give one copy. */
async function addTarget(
  d: RouteDependencies,
  finder: MailboxFinder,
  accounts: AccountDelivery[],
  target: LocalTarget,
): Promise<void> {
  const { accountId, detail } = target;
  const mailboxId = await finder.find(accountId, detail);
  const known = accounts.find((account) => account.accountId === accountId);
  if (!known) {
    const quotaLimitBytes = (await d.directory.principalById(accountId))?.quotaLimitBytes;
    accounts.push({ accountId, mailboxIds: [mailboxId], quotaLimitBytes });
  } else if (!known.mailboxIds.includes(mailboxId)) {
    known.mailboxIds.push(mailboxId);
  }
}

async function routeList(
  d: RouteDependencies,
  job: DeliveryJob,
  address: string,
  resolution: LocalResolution,
  routes: Routes,
): Promise<void> {
  const { message } = job.claimed;
  if (resolution.targets.length + resolution.remote.length > d.settings().maxRecipientsPerMessage) {
    routes.verdicts.push({ address, verdict: 'failed', reply: tooManyMembers });
    return;
  }
  const expansion = await expand(d, message, resolution, await headerOf(d, job, message));
  if (expansion.kind === 'loop') {
    routes.verdicts.push({ address, verdict: 'failed', reply: looping });
    return;
  }
  if (expansion.kind === 'message') routes.expansions.push(expansion);
  else d.logger.info({ queueId: message.id, list: address, reason: expansion.reason }, 'list message goes to nobody');
  routes.verdicts.push({ address, verdict: 'expanded', reply: expanded });
}

async function headerOf(d: RouteDependencies, job: DeliveryJob, message: QueueMessage): Promise<Buffer> {
  if (job.fresh) return job.fresh.bytes;
  return d.blobs.read(message.blobId, { start: 0, end: Math.min(message.sizeBytes, d.settings().maxHeaderBytes) });
}
