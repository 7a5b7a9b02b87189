/** Where the recipients of a local destination lead: to mailboxes, to the members of lists, or to a refusal. */
import type { Logger } from '../../ops/telemetry/index.js';
import { type Directory, DirectoryError, type LocalTarget, type Resolution } from '../../store/directory/contract.js';
import type { KvStore } from '../../store/kv/contract.js';
import type { QueueMessage } from '../../store/queue/index.js';
import {
  type ExpandDependencies,
  type Expansion,
  expand,
  type LocalResolution,
  listSettingsOf,
  needsExpansion,
} from './expand.js';
import { expandedUpTo } from './expand-batches.js';
import { listObstacle } from './list-header.js';
import { isBounceAddress, mayPost } from './list-posting.js';
import type { MailboxFinder } from './mailbox-finder.js';
import { postmasterOf, resolvePostmaster } from './postmaster.js';
import type { DeliveryJob, DeliveryReply, RecipientVerdict } from './types.js';

export interface RouteDependencies extends ExpandDependencies {
  kv: KvStore;
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
  expansions: Expansion[];
  /** Those of the addresses that are lists. */
  lists: Set<string>;
  /** Lists, by their own address, whose members have had this delivery's copies already. */
  served: ReadonlySet<string>;
}

/** Inserts into this many accounts share a transaction; one recipient may add a small group's more. */
const maxAccountsPerTransaction = 20;

const delivered: DeliveryReply = { code: 250, enhanced: '2.1.5', text: 'Delivered to mailbox' };
const expanded: DeliveryReply = { code: 250, enhanced: '2.1.5', text: 'Sent on to the members' };
const noMailbox: DeliveryReply = { code: 550, enhanced: '5.1.1', text: 'No such recipient here' };
const disabledMailbox: DeliveryReply = { code: 550, enhanced: '5.2.1', text: 'This mailbox is disabled' };
const looping: DeliveryReply = { code: 554, enhanced: '5.4.6', text: 'The list has already sent this message' };
const notAllowed: DeliveryReply = { code: 550, enhanced: '5.7.2', text: 'You may not write to this list' };
const tooManyMembers: DeliveryReply = { code: 554, enhanced: '5.3.4', text: 'The list has too many members' };
/** Beside the header's own limit: the trace fields that were put in front. */
const traceBytes = 64 * 1024;

/**
 * Resolves recipients as the directory stands now: an account may have gone since the message was accepted. Ends early when so many accounts
 * are reached that they fill a transaction.
 */
export async function findRoutes(
  d: RouteDependencies,
  finder: MailboxFinder,
  job: DeliveryJob,
  addresses: readonly string[],
  served: ReadonlySet<string>,
): Promise<Routes> {
  const routes: Routes = { addresses: [], verdicts: [], accounts: [], expansions: [], lists: new Set(), served };
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
  if (resolution === 'too-many') {
    routes.verdicts.push({ address, verdict: 'failed', reply: tooManyMembers });
  } else if (
    resolution.kind === 'local' &&
    resolution.listAddress !== undefined &&
    isBounceAddress(address, resolution.listAddress)
  ) {
    await routeToOwner(d, finder, job, address, resolution.listAddress, routes);
  } else if (resolution.kind === 'local' && needsExpansion(resolution)) {
    await routeMembers(d, job, address, resolution, routes);
  } else {
    await routeToMailboxes(d, finder, address, resolution, routes);
  }
}

async function routeToMailboxes(
  d: RouteDependencies,
  finder: MailboxFinder,
  address: string,
  resolution: Resolution,
  routes: Routes,
): Promise<void> {
  if (resolution.kind === 'local' && resolution.targets.length > 0) {
    for (const target of resolution.targets) await addTarget(d, finder, routes.accounts, target);
    routes.verdicts.push({ address, verdict: 'delivered', reply: delivered });
  } else {
    const reply = resolution.kind === 'disabled' ? disabledMailbox : noMailbox;
    routes.verdicts.push({ address, verdict: 'failed', reply });
  }
}

/** RFC 5321 4.5.1: the postmaster of a local domain always exists. */
async function resolveLocal(d: RouteDependencies, address: string): Promise<Resolution | 'too-many'> {
  try {
    const resolution = await d.directory.resolve(address);
    if (resolution.kind !== 'unknown' || !/^postmaster@/i.test(address)) return resolution;
    return (await resolvePostmaster(d.directory, d.settings().postmasterAddress)).resolution;
  } catch (error) {
    if (error instanceof DirectoryError && error.code === 'too-many') return 'too-many';
    throw error;
  }
}

/** What comes back from one member of a list goes to its owner, and never to the members. */
async function routeToOwner(
  d: RouteDependencies,
  finder: MailboxFinder,
  job: DeliveryJob,
  address: string,
  listAddress: string,
  routes: Routes,
): Promise<void> {
  const owner = listSettingsOf(d.settings(), listAddress).owner ?? postmasterOf(listAddress);
  const found = await resolveLocal(d, owner);
  // An owner that is a list of too many is nobody in particular.
  const resolution: Resolution = found === 'too-many' ? { kind: 'unknown' } : found;
  if (resolution.kind === 'relay') {
    await addExpansion(d, job, address, { kind: 'local', targets: [], remote: [owner] }, routes);
  } else if (resolution.kind === 'local' && needsExpansion(resolution)) {
    // A list that owns a list gets no bounces: they would go round.
    routes.verdicts.push({ address, verdict: 'failed', reply: noMailbox });
  } else {
    await routeToMailboxes(d, finder, address, resolution, routes);
  }
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

async function routeMembers(
  d: RouteDependencies,
  job: DeliveryJob,
  address: string,
  resolution: LocalResolution,
  routes: Routes,
): Promise<void> {
  const { listAddress } = resolution;
  if (listAddress === undefined) return addExpansion(d, job, address, resolution, routes);
  const { message } = job.claimed;
  const refusal = await listRefusal(d, job, resolution, listAddress);
  if (refusal && 'reply' in refusal) {
    routes.verdicts.push({ address, verdict: 'failed', reply: refusal.reply });
    return;
  }
  routes.lists.add(address);
  // Two addresses of one list: its members get one copy.
  const isKnown = routes.served.has(listAddress) || routes.expansions.some((one) => one.listAddress === listAddress);
  if (!refusal && !isKnown) return addExpansion(d, job, address, resolution, routes);
  if (refusal) d.logger.info({ queueId: message.id, list: address, reason: refusal.reason }, 'list message goes to nobody');
  routes.verdicts.push({ address, verdict: 'expanded', reply: expanded });
}

/** Why a list does not send the message on: told to its sender, or dropped in silence. */
async function listRefusal(
  d: RouteDependencies,
  job: DeliveryJob,
  resolution: LocalResolution,
  listAddress: string,
): Promise<{ reply: DeliveryReply } | { reason: string } | undefined> {
  const { message } = job.claimed;
  // A report must not go to all members, and a list's own mail must not come back to it.
  if (message.from === '') return { reason: 'reports are not sent to lists' };
  const obstacle = listObstacle(await headerOf(d, job, message), listAddress);
  if (obstacle === 'loop') return { reply: looping };
  if (obstacle === 'auto-reply') return { reason: 'automatic answers are not sent to lists' };
  const isAllowed = await mayPost(d.directory, message, listSettingsOf(d.settings(), listAddress), resolution);
  return isAllowed ? undefined : { reply: notAllowed };
}

async function addExpansion(
  d: RouteDependencies,
  job: DeliveryJob,
  address: string,
  resolution: LocalResolution,
  routes: Routes,
): Promise<void> {
  const { message, destination } = job.claimed;
  const header = await headerOf(d, job, message);
  const recipient = destination.recipients.find((one) => one.address === address) ?? { address };
  const after = await expandedUpTo(d.kv, job.claimed, address);
  routes.expansions.push(await expand(d, { message, recipient, resolution, header, after }));
  routes.verdicts.push({ address, verdict: 'expanded', reply: expanded });
}

async function headerOf(d: RouteDependencies, job: DeliveryJob, message: QueueMessage): Promise<Buffer> {
  const end = Math.min(message.sizeBytes, d.settings().maxHeaderBytes + traceBytes);
  const bytes = job.fresh ? job.fresh.bytes : await d.blobs.read(message.blobId, { start: 0, end });
  const at = bytes.indexOf('\r\n\r\n');
  return at < 0 ? bytes.subarray(0, end) : bytes.subarray(0, at + 4);
}
