/** Who may write to a list, and whose a list's bounce addresses are. */
import { type Directory, DirectoryError, type Resolution } from '../../store/directory/contract.js';
import type { QueueMessage } from '../../store/queue/index.js';
import { domainOfAddress } from './addresses.js';
import type { ListSettings } from './outcome-settings.js';

type Local = Extract<Resolution, { kind: 'local' }>;

/** An address in the form in which two are compared. */
function normal(address: string): string {
  return `${address.slice(0, address.lastIndexOf('@'))}@${domainOfAddress(address)}`.toLowerCase();
}

/** Where an address leads. One that leads to more members than the directory expands is nobody in particular: not a sender that a list knows, nor its owner. */
export async function resolvePerson(directory: Pick<Directory, 'resolve'>, address: string): Promise<Resolution> {
  try {
    return await directory.resolve(address);
  } catch (error) {
    if (error instanceof DirectoryError && error.code === 'too-many') return { kind: 'unknown' };
    throw error;
  }
}

/**
 * Whether the message's sender may write to the list. Who has logged in is known by account; else the reverse-path stands for the sender, by any address of its
 * account.
 */
export async function mayPost(
  directory: Pick<Directory, 'resolve'>,
  message: Pick<QueueMessage, 'from' | 'source'>,
  list: ListSettings,
  members: Pick<Local, 'targets' | 'remote'>,
): Promise<boolean> {
  if (list.posting === 'anyone') return true;
  const accounts = new Set<string>();
  if (message.source.accountId !== undefined) accounts.add(message.source.accountId);
  const sender = await resolvePerson(directory, message.from);
  const isOwn = sender.kind === 'local' && sender.listAddress === undefined;
  if (isOwn) for (const { accountId } of sender.targets) accounts.add(accountId);
  const from = normal(message.from);
  for (const owner of [list.owner, ...(list.moderators ?? [])]) {
    if (owner === undefined) continue;
    if (normal(owner) === from) return true;
    const resolved = await resolvePerson(directory, owner);
    if (resolved.kind === 'local' && resolved.targets.some(({ accountId }) => accounts.has(accountId))) return true;
  }
  if (list.posting === 'owners') return false;
  return members.targets.some(({ accountId }) => accounts.has(accountId)) || members.remote.some((one) => normal(one) === from);
}

const bounceTag = '+bounces=';

/** RFC 5321 4.5.3.1.1. */
const maxLocalPartBytes = 64;

/**
 * The reverse-path of one member's copy: what comes back to it tells who is meant. Undefined for addresses that don't fit into it, or not without quotes: their
 * copies have the list's own.
 */
export function memberReversePath(listAddress: string, member: string): string | undefined {
  const at = listAddress.lastIndexOf('@');
  const end = member.lastIndexOf('@');
  const local = `${listAddress.slice(0, at)}${bounceTag}${member.slice(0, end)}=${member.slice(end + 1)}`;
  if (
    local.length > maxLocalPartBytes ||
    !/^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*$/.test(local)
  ) {
    return undefined;
  }
  return `${local}${listAddress.slice(at)}`;
}

/** Whether mail for this address is about a member's copy, and not for the members. */
export function isBounceAddress(address: string, listAddress: string): boolean {
  const local = listAddress.slice(0, listAddress.lastIndexOf('@'));
  return address.toLowerCase().startsWith(`${local}${bounceTag}`.toLowerCase());
}
