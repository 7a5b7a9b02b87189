/**
 * Expands lists and large groups: a new queued message for the members takes the place of the recipient, in one transaction. Lists get a new
 * reverse-path and List-Id; groups keep message and sender as they are.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import { findHeaders } from '../../protocols/message/index.js';
import type { BlobStore, PreparedBlob } from '../../store/blobs/contract.js';
import type { Resolution } from '../../store/directory/contract.js';
import type { NewQueueMessage, Queue, QueueMessage } from '../../store/queue/index.js';
import { domainOfAddress, headerSafe } from './addresses.js';
import type { MailflowSettings } from './settings.js';
import { returnPathField } from './trace-fields.js';

export type LocalResolution = Extract<Resolution, { kind: 'local' }>;

export interface ExpandDependencies {
  blobs: BlobStore;
  queue: Queue;
  clock: Clock;
  /** What holds now; read once for what must fit together. */
  settings: () => MailflowSettings;
}

export type Expansion =
  | { kind: 'message'; message: NewQueueMessage; abort(): Promise<void> }
  /** A list message that came back, a report to a list, or an empty list: nobody gets it. */
  | { kind: 'none'; reason: string }
  | { kind: 'loop' };

/** More mailboxes than this are not written in one transaction: the message is queued for each. */
export const maxTargetsPerTransaction = 16;

export function needsExpansion({ targets, remote, listAddress }: LocalResolution): boolean {
  return listAddress !== undefined || remote.length > 0 || targets.length > maxTargetsPerTransaction;
}

/** RFC 2919: `list@domain` as `<list.domain>`. */
function listId(address: string): string {
  return `<${headerSafe(address).replace('@', '.')}>`;
}

/** Prepares the members' message. `header` is the start of the message, its header included. */
export async function expand(
  d: ExpandDependencies,
  message: QueueMessage,
  resolution: LocalResolution,
  header: Buffer,
): Promise<Expansion> {
  const { listAddress } = resolution;
  const destinations = memberDestinations(resolution);
  if (destinations.length === 0) return { kind: 'none', reason: 'it has no members' };
  if (listAddress !== undefined) {
    // A report must not go to all members, and a list's own mail must not come back to it.
    if (message.from === '') return { kind: 'none', reason: 'reports are not sent to lists' };
    const range = { headerStart: 0, headerEnd: headerEnd(header) };
    if (findHeaders(header, range, 'List-Id').some((value) => value.includes(listId(listAddress)))) return { kind: 'loop' };
  }
  const from = listAddress === undefined ? message.from : d.settings().postmasterAddress;
  const returnPath = returnPathField(from);
  const added =
    listAddress === undefined
      ? ''
      : `List-Id: ${listId(listAddress)}\r\nSender: <${headerSafe(listAddress)}>\r\nPrecedence: list\r\n`;
  const writer = d.blobs.writer();
  let blob: PreparedBlob;
  try {
    await writer.write(Buffer.from(returnPath + added));
    for await (const chunk of d.blobs.stream(message.blobId, { start: message.relayOffsetBytes })) await writer.write(chunk);
    blob = await writer.finish();
  } catch (error) {
    await writer.abort().catch(() => {});
    throw error;
  }
  const expanded: NewQueueMessage = {
    id: d.queue.newId(),
    blob,
    relayOffsetBytes: Buffer.byteLength(returnPath),
    from,
    receivedAtMs: d.clock.nowMs(),
    expiresAtMs: message.expiresAtMs,
    ret: message.ret,
    envid: message.envid,
    isUtf8: message.isUtf8,
    body: message.body,
    priority: message.priority,
    source: { protocol: 'local', accountId: message.source.accountId },
    destinations,
  };
  return { kind: 'message', message: expanded, abort: () => writer.abort() };
}

function headerEnd(bytes: Buffer): number {
  const at = bytes.indexOf('\r\n\r\n');
  return at < 0 ? bytes.length : at + 4;
}

/** Members by domain. A local member is addressed by the account's primary address, so that it can't be expanded again. */
function memberDestinations({ targets, remote }: LocalResolution): NewQueueMessage['destinations'] {
  const byDomain = new Map<string, NewQueueMessage['destinations'][number]>();
  const seen = new Set<string>();
  const add = (address: string, isLocal: boolean) => {
    const domain = domainOfAddress(address);
    const same = `${address.slice(0, address.lastIndexOf('@'))}@${domain}`;
    if (domain === '' || seen.has(same)) return;
    seen.add(same);
    let destination = byDomain.get(domain);
    if (!destination) byDomain.set(domain, (destination = { domain, isLocal, recipients: [] }));
    // RFC 3461 5.2.7.3: members' successes and delays are not the sender's business.
    destination.recipients.push({ address, notify: ['FAILURE'] });
  };
  for (const target of targets) add(target.address, true);
  for (const address of remote) add(address, false);
  return [...byDomain.values()];
}
