/**
 * Expands lists and large groups: new queued messages for the members take the place of the recipient. Lists get a new reverse-path and the fields of RFC 2369;
 * groups keep message and sender as they are. What fits into one transaction goes with the recipient's status; of more members, each batch has a transaction
 * of its own, which moves a mark (`expand-batches.ts`).
 */
import type { Clock } from '../../ops/telemetry/index.js';
import type { BlobStore, PreparedBlob } from '../../store/blobs/contract.js';
import type { Resolution } from '../../store/directory/contract.js';
import type { NewQueueMessage, Queue, QueueMessage, QueueRecipient } from '../../store/queue/index.js';
import { domainOfAddress, isAscii } from './addresses.js';
import { headerLength, listFields, withoutListFields } from './list-header.js';
import { memberReversePath } from './list-posting.js';
import { defaultListSettings, type ListSettings } from './outcome-settings.js';
import { postmasterOf } from './postmaster.js';
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

/** A list or group as one recipient of a message named it. */
export interface Expandable {
  message: QueueMessage;
  recipient: Pick<QueueRecipient, 'address' | 'notify' | 'orcpt'>;
  resolution: LocalResolution;
  /** The start of the message: its header is whole in it. */
  header: Buffer;
  /** Members up to this one, in order, have their copies. */
  after: string | undefined;
}

/** Members that share a transaction. */
export interface MemberBatch {
  /** Chosen anew for each run of an expansion, before its transaction. */
  messages: NewQueueMessage[];
  /** Members up to this one have their copies when the batch is committed. */
  last: string;
  members: number;
}

export interface Expansion {
  /** As the message has it. */
  address: string;
  listAddress: string | undefined;
  batches: MemberBatch[];
  /** Where the mark must be when the first batch is written. */
  after: string | undefined;
  /** Lets go of content that no message has been queued with. */
  abort(): Promise<void>;
}

/** More mailboxes than this are not written in one transaction: the message is queued for each. */
export const maxTargetsPerTransaction = 16;
/** With a message for each member. */
const maxMessagesPerBatch = 200;

export function needsExpansion({ targets, remote, listAddress }: LocalResolution): boolean {
  return listAddress !== undefined || remote.length > 0 || targets.length > maxTargetsPerTransaction;
}

export function listSettingsOf(settings: MailflowSettings, listAddress: string): ListSettings {
  return settings.outcomes.lists.get(listAddress.toLowerCase()) ?? defaultListSettings;
}

interface Member {
  address: string;
  domain: string;
  isLocal: boolean;
}

/** Prepares the members' messages. Without members left, one empty batch: the recipient is done. */
export async function expand(d: ExpandDependencies, expandable: Expandable): Promise<Expansion> {
  const { message, recipient, resolution, after } = expandable;
  const { listAddress } = resolution;
  const settings = d.settings();
  const list = listAddress === undefined ? undefined : listSettingsOf(settings, listAddress);
  const from = list ? (list.owner ?? postmasterOf(listAddress!)) : message.from;
  const members = membersOf(resolution).filter(({ address }) => after === undefined || address > after);
  const isVerp = list?.isVerp === true;
  const content = await prepareContent(d, expandable, from, list);
  const envelope = envelopeOf(d, message, list, listAddress);
  // RFC 3461 5.2.7.3: what becomes of a list's members is its owner's business; a group's are the sender's own recipients (5.2.7.1).
  const request: Omit<QueueRecipient, 'address' | 'status'> = list ? { notify: ['FAILURE'] } : passedOn(recipient);
  const size = Math.max(
    1,
    isVerp ? Math.min(settings.outcomes.membersPerBatch, maxMessagesPerBatch) : settings.outcomes.membersPerBatch,
  );
  const batches: MemberBatch[] = [];
  for (let at = 0; at === 0 || at < members.length; at += size) {
    const chunk = members.slice(at, at + size);
    const own = isVerp ? chunk.filter((member) => reversePathOf(listAddress!, member) !== undefined) : [];
    const shared = isVerp ? chunk.filter((member) => !own.includes(member)) : chunk;
    const messages: NewQueueMessage[] = own.map((member) => ({
      ...envelope,
      id: d.queue.newId(),
      blob: content.bare,
      relayOffsetBytes: 0,
      from: reversePathOf(listAddress!, member)!,
      destinations: destinationsOf([member], request),
    }));
    if (shared.length > 0) {
      const { blob, relayOffsetBytes } = content;
      messages.push({
        ...envelope,
        id: d.queue.newId(),
        blob,
        relayOffsetBytes,
        from,
        destinations: destinationsOf(shared, request),
      });
    }
    batches.push({ messages, last: chunk.at(-1)?.address ?? after ?? '', members: chunk.length });
  }
  return { address: recipient.address, listAddress, batches, after, abort: content.abort };
}

/** Only outside members have a reverse-path of their own: a local mailbox can't fail without our knowing. */
function reversePathOf(listAddress: string, { address, isLocal }: Member): string | undefined {
  return isLocal ? undefined : memberReversePath(listAddress, address);
}

type Envelope = Omit<NewQueueMessage, 'id' | 'blob' | 'relayOffsetBytes' | 'from' | 'destinations'>;

function envelopeOf(
  d: ExpandDependencies,
  message: QueueMessage,
  list: ListSettings | undefined,
  listAddress: string | undefined,
): Envelope {
  const { accountId } = message.source;
  const isUtf8List = !isAscii(listAddress ?? '');
  const envelope: Envelope = {
    receivedAtMs: d.clock.nowMs(),
    expiresAtMs: message.expiresAtMs,
    isUtf8: message.isUtf8 || isUtf8List,
    // Its own fields hold the list's address.
    body: isUtf8List && message.body === '7BIT' ? '8BITMIME' : message.body,
    priority: message.priority,
    // A group's copies go on in the sender's name, which anybody outside may have forged: the limit on reports must know.
    source: list ? { protocol: 'local', ...(accountId !== undefined && { accountId }) } : message.source,
  };
  if (message.requiresTls) envelope.requiresTls = true;
  if (list) return envelope;
  // RFC 3461 5.2.7.1, RFC 2852 4.2: an alias passes on what the sender has asked for.
  if (message.ret !== undefined) envelope.ret = message.ret;
  if (message.envid !== undefined) envelope.envid = message.envid;
  if (message.deliverBy) envelope.deliverBy = message.deliverBy;
  return envelope;
}

/** RFC 3461 5.2.7.1: success was told of the group itself. */
function passedOn({ notify, orcpt }: Expandable['recipient']): Omit<QueueRecipient, 'address' | 'status'> {
  const rest = notify?.filter((one) => one !== 'SUCCESS');
  return {
    ...(rest && { notify: rest.length > 0 ? rest : ['NEVER' as const] }),
    ...(orcpt !== undefined && { orcpt }),
  };
}

interface Content {
  blob: PreparedBlob;
  relayOffsetBytes: number;
  /** Without our Return-Path: for copies that share everything but their reverse-path. */
  bare: PreparedBlob;
  abort(): Promise<void>;
}

async function prepareContent(
  d: ExpandDependencies,
  { message, resolution, header }: Expandable,
  from: string,
  list: ListSettings | undefined,
): Promise<Content> {
  const returnPath = Buffer.from(returnPathField(from));
  let front = Buffer.alloc(0);
  let start = message.relayOffsetBytes;
  if (list) {
    const own = header.subarray(start);
    const length = headerLength(own);
    const fields = Buffer.from(listFields(resolution.listAddress!, list));
    // A message without an empty line is all header, if it is short enough to be seen whole.
    const end = length < 0 ? own.length : length;
    front = Buffer.concat([fields, withoutListFields(own.subarray(0, end))]);
    start += end;
  }
  const writers: { abort(): Promise<void> }[] = [];
  const write = async (first: Buffer): Promise<PreparedBlob> => {
    const writer = d.blobs.writer();
    writers.push(writer);
    await writer.write(Buffer.concat([first, front]));
    for await (const chunk of d.blobs.stream(message.blobId, { start })) await writer.write(chunk);
    return writer.finish();
  };
  const abort = async () => {
    for (const writer of writers) await writer.abort().catch(() => {});
  };
  try {
    const blob = await write(returnPath);
    const bare = list?.isVerp ? await write(Buffer.alloc(0)) : blob;
    return { blob, relayOffsetBytes: returnPath.length, bare, abort };
  } catch (error) {
    await abort();
    throw error;
  }
}

/** In the order in which they get their copies, each once. A local member is addressed by the account's primary address, so that it can't be expanded again. */
function membersOf({ targets, remote }: LocalResolution): Member[] {
  const byAddress = new Map<string, Member>();
  const add = (address: string, isLocal: boolean) => {
    const domain = domainOfAddress(address);
    if (domain === '') return;
    const normal = `${address.slice(0, address.lastIndexOf('@'))}@${domain}`;
    if (!byAddress.has(normal)) byAddress.set(normal, { address: normal, domain, isLocal });
  };
  for (const target of targets) add(target.address, true);
  for (const address of remote) add(address, false);
  return [...byAddress.values()].sort((a, b) => (a.address < b.address ? -1 : 1));
}

function destinationsOf(
  members: readonly Member[],
  request: Omit<QueueRecipient, 'address' | 'status'>,
): NewQueueMessage['destinations'] {
  const byDomain = new Map<string, NewQueueMessage['destinations'][number]>();
  for (const { address, domain, isLocal } of members) {
    let destination = byDomain.get(domain);
    if (!destination) byDomain.set(domain, (destination = { domain, isLocal, recipients: [] }));
    destination.recipients.push({ address, ...request });
  }
  return [...byDomain.values()];
}
