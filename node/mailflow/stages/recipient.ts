/** Where a recipient's mail goes, or why it is refused: the directory's answer, relaying, full mailboxes. */
import type { Reply } from '../../../protocols/smtp/grammar/index.js';
import type { MailCommand, RecipientCommand } from '../../../protocols/smtp/server/handler.js';
import type { LocalTarget, Resolution } from '../../../store/directory/contract.js';
import { domainOfAddress } from '../addresses.js';
import { isBarePostmaster, resolvePostmaster } from '../postmaster.js';
import { replies } from '../replies.js';
import type { AcceptedRecipient, ReceiverDependencies } from '../types.js';
import type { MaybePromise } from './maybe.js';

export type RoutingDependencies = Pick<ReceiverDependencies, 'directory' | 'settings' | 'mail'>;

/**
 * @param as the address that counts: as given, or as rewritten.
 * @param mayRelay asked only where the domain is not ours.
 */
export async function routeRecipient(
  { directory, settings: read, mail: mailStore }: RoutingDependencies,
  mail: MailCommand,
  command: RecipientCommand,
  as: string,
  mayRelay: () => MaybePromise<boolean>,
): Promise<AcceptedRecipient | Reply> {
  const settings = read();
  let address = as;
  let resolution: Resolution = isBarePostmaster(as) ? { kind: 'unknown' } : await directory.resolve(as);
  // RFC 5321 4.5.1: <Postmaster> is always accepted, and that of each domain of ours.
  if (resolution.kind === 'unknown' && isPostmaster(as)) {
    ({ address, resolution } = await resolvePostmaster(directory, settings.postmasterAddress));
  }
  const domain = domainOfAddress(address);
  if (domain === '') return replies.badDomain;
  switch (resolution.kind) {
    case 'unknown':
      return replies.unknownRecipient;
    case 'disabled':
      return replies.disabledRecipient;
    case 'relay':
      return (await mayRelay()) ? accepted(command, as, address, domain, false) : replies.relayDenied;
    default: {
      const [only, ...others] = resolution.targets;
      const isOneMailbox = only !== undefined && others.length === 0 && resolution.remote.length === 0;
      if (isOneMailbox && (await isFull(directory, mailStore, only, mail.parameters.sizeBytes ?? 0))) {
        return settings.fullMailboxReply === 'permanent' ? replies.fullPermanent : replies.fullTemporary;
      }
      return accepted(command, as, address, domain, true);
    }
  }
}

/** Postmasters must be reachable for those who are kept out (RFC 5321 4.5.1). */
export const isPostmaster = (address: string): boolean => /^postmaster(?:@|$)/i.test(address);

function accepted(command: RecipientCommand, as: string, address: string, domain: string, isLocal: boolean): AcceptedRecipient {
  const { notify, originalRecipient } = command.parameters;
  const recipient: AcceptedRecipient['recipient'] = { address };
  if (notify) recipient.notify = notify;
  if (originalRecipient) recipient.orcpt = `${originalRecipient.type};${originalRecipient.address}`;
  // RFC 3461 4.2: a report names the recipient that the sender wrote, not what we have made of it.
  else if (as !== command.address) recipient.orcpt = `rfc822;${command.address}`;
  return { domain, isLocal, recipient };
}

async function isFull(
  directory: RoutingDependencies['directory'],
  mail: RoutingDependencies['mail'],
  target: LocalTarget,
  sizeBytes: number,
): Promise<boolean> {
  const limitBytes = (await directory.principalById(target.accountId))?.quotaLimitBytes;
  if (limitBytes === undefined) return false;
  const { usedBytes } = await mail.usage(target.accountId);
  return usedBytes + sizeBytes > limitBytes || usedBytes >= limitBytes;
}
