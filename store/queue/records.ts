/** Keys and values of the queue: tuples from `keyspace.ts`, msgpack arrays that begin with a format version. */
import { Packr } from 'msgpackr';
import { type KeyRange, key, keyItems, keysUnder, nodeKeys, subspace } from '../keyspace.js';
import { KvError } from '../kv/contract.js';
import type { Destination, EntryTraits, QueueMessage, QueueRecipient, RecipientStatus } from './contract.js';
import { shardOf } from './shards.js';

const recordFormat = 1;
/** With something in it that a node which does not know it must not pass over: such a node leaves the record alone and says so. */
const demandingFormat = 2;
const packr = new Packr({ useRecords: false });
const { queue } = subspace;

/** Identifies a destination record. */
export interface DestinationRef {
  queueId: string;
  domain: string;
  part: number;
}

export const messageKey = (queueId: string): Buffer => key(queue, 'message', queueId);
export const destinationKey = (ref: DestinationRef): Buffer => key(queue, 'destination', ref.queueId, ref.domain, ref.part);
export const dueKey = (ref: DestinationRef, dueAtSeconds: number): Buffer =>
  key(queue, 'due', shardOf(ref.queueId), dueAtSeconds, ref.queueId, ref.domain, ref.part);
/** Beside the due entry of a message of high priority. */
export const expressKey = (ref: DestinationRef, dueAtSeconds: number): Buffer =>
  key(queue, 'express', shardOf(ref.queueId), dueAtSeconds, ref.queueId, ref.domain, ref.part);
/** Beside the due entry of a destination that waits in a line. */
export const lineKey = (line: string, ref: DestinationRef): Buffer =>
  key(queue, 'line', line, shardOf(ref.queueId), ref.queueId, ref.domain, ref.part);
/** Counters: which 0 counts messages, 1 their bytes. */
export const usageKey = (name: string, slot: number, which: 0 | 1): Buffer => key(queue, 'usage', name, slot, which);
export const healthKey = (domain: string): Buffer => key(queue, 'health', domain);
export const pauseKey = (what: string): Buffer => key(queue, 'pause', what);
/** Raised when a domain goes down or comes up, and by pauses. */
export const destinationsGenerationKey = (): Buffer => key(queue, 'destinations-generation');
export const claimKey = (nodeId: string, ref: DestinationRef): Buffer =>
  key(queue, 'claim', nodeId, ref.queueId, ref.domain, ref.part);
export const receiptKey = (queueId: string): Buffer => key(queue, 'receipt', queueId);
export const fenceKey = nodeKeys.fence;

export const messageRange = (): KeyRange => keysUnder(queue, 'message');
export const destinationRange = (queueId: string): KeyRange => keysUnder(queue, 'destination', queueId);
export const shardRange = (shard: number): KeyRange => keysUnder(queue, 'due', shard);
/** What of a shard is due at `nowSeconds` ends before it. */
export const dueEnd = (shard: number, nowSeconds: number): Buffer => key(queue, 'due', shard, Math.floor(nowSeconds) + 1);
export const claimRange = (nodeId: string): KeyRange => keysUnder(queue, 'claim', nodeId);
export const allClaimsRange = (): KeyRange => keysUnder(queue, 'claim');
export const receiptRange = (): KeyRange => keysUnder(queue, 'receipt');
export const allExpressRange = (): KeyRange => keysUnder(queue, 'express');
export const expressRange = (shard: number): KeyRange => keysUnder(queue, 'express', shard);
export const allLinesRange = (): KeyRange => keysUnder(queue, 'line');
export const lineRange = (line: string): KeyRange => keysUnder(queue, 'line', line);
export const lineShardRange = (line: string, shard: number): KeyRange => keysUnder(queue, 'line', line, shard);
export const allUsageRange = (): KeyRange => keysUnder(queue, 'usage');
export const usageRange = (name: string): KeyRange => keysUnder(queue, 'usage', name);
export const healthRange = (): KeyRange => keysUnder(queue, 'health');
export const pauseRange = (): KeyRange => keysUnder(queue, 'pause');

/** The destination that a claim key stands for. */
export function claimedRef(packed: Buffer): DestinationRef {
  const [, , , queueId, domain, part] = keyItems(packed) as [number, string, string, string, string, number];
  return { queueId, domain, part };
}

export function encodeMessage(m: QueueMessage): Buffer {
  const { source: s } = m;
  const isDemanding = m.requiresTls === true || m.deliverBy?.mode === 'return';
  const fields: unknown[] = [
    isDemanding ? demandingFormat : recordFormat,
    m.blobId,
    m.sizeBytes,
    m.relayOffsetBytes,
    m.from,
    m.receivedAtMs,
    m.expiresAtMs,
    m.ret,
    m.envid,
    m.isUtf8,
    m.body,
    m.priority,
    [s.protocol, s.remoteAddress, s.accountId, s.helo],
    m.partCount,
  ];
  const { deliverBy: by } = m;
  if (m.requiresTls || by || m.queueName !== undefined || m.countedUnder?.length || m.notBeforeSeconds !== undefined) {
    fields.push(m.requiresTls ? 1 : 0, by && [by.untilMs, by.mode, by.isTraced ? 1 : 0], m.queueName, m.countedUnder);
  }
  if (m.notBeforeSeconds !== undefined) fields.push(m.notBeforeSeconds);
  return packr.pack(fields);
}

export function decodeMessage(id: string, value: Buffer): QueueMessage {
  const f = fieldsOf(value, 'message', id);
  const [protocol, remoteAddress, accountId, helo] = f[12] as [QueueMessage['source']['protocol'], string?, string?, string?];
  const message: QueueMessage = {
    id,
    blobId: f[1] as string,
    sizeBytes: f[2] as number,
    relayOffsetBytes: f[3] as number,
    from: f[4] as string,
    receivedAtMs: f[5] as number,
    expiresAtMs: f[6] as number,
    ret: f[7] as QueueMessage['ret'],
    envid: f[8] as string | undefined,
    isUtf8: f[9] as boolean,
    body: f[10] as QueueMessage['body'],
    priority: f[11] as number,
    source: { protocol, remoteAddress, accountId, helo },
    partCount: f[13] as number,
  };
  if (f[14]) message.requiresTls = true;
  const by = f[15] as [number, 'return' | 'notify', number] | undefined;
  if (by) message.deliverBy = { untilMs: by[0], mode: by[1], isTraced: by[2] === 1 };
  if (typeof f[16] === 'string') message.queueName = f[16];
  if (Array.isArray(f[17])) message.countedUnder = f[17] as string[];
  if (typeof f[18] === 'number') message.notBeforeSeconds = f[18];
  return message;
}

const statuses: readonly RecipientStatus[] = ['pending', 'delivered', 'relayed', 'failed', 'expanded', 'cancelled'];
const states: readonly Destination['state'][] = ['due', 'claimed', 'held'];

export function encodeDestination(d: Destination): Buffer {
  const recipients = d.recipients.map((r) => {
    const { lastReply: reply } = r;
    const plain = [r.address, statuses.indexOf(r.status)];
    if (r.orcpt === undefined && !r.notify && !reply && !r.isDelayNotified) return plain;
    return [...plain, r.orcpt, r.notify, encodeReply(reply), r.isDelayNotified ? 1 : 0];
  });
  const claim = d.claim && [d.claim.nodeId, d.claim.incarnation, d.claim.epoch];
  const { traits, line, route, cancelReply } = d;
  const fields: unknown[] = [
    route || cancelReply ? demandingFormat : recordFormat,
    d.isLocal,
    states.indexOf(d.state),
    d.epoch,
    d.attempts,
    d.dueAtSeconds,
    d.lastAttemptAtMs,
    claim,
    recipients,
  ];
  if (traits || line !== undefined || route || cancelReply) {
    fields.push(traits && [traits.isExpress ? 1 : 0, traits.senderHash, traits.queueName], line);
  }
  if (route || cancelReply) fields.push(route && [route.host, route.port, route.isDomain ? 1 : 0], encodeReply(cancelReply));
  return packr.pack(fields);
}

type Reply = NonNullable<QueueRecipient['lastReply']>;
type ReplyFields = [number, string, string, string?];

const encodeReply = (reply: Reply | undefined) => reply && [reply.code, reply.enhanced, reply.text, reply.host];
const decodeReply = (f: ReplyFields): Reply => ({ code: f[0], enhanced: f[1], text: f[2], host: f[3] });

export function decodeDestination(ref: DestinationRef, value: Buffer): Destination {
  const f = fieldsOf(value, 'destination', ref.queueId);
  const claim = f[7] as [string, number, number] | undefined;
  const traits = f[9] as [number, number, string] | undefined;
  const route = f[11] as [string, number | undefined, number] | undefined;
  const destination: Destination = {
    queueId: ref.queueId,
    domain: ref.domain,
    part: ref.part,
    isLocal: f[1] as boolean,
    state: states[f[2] as number]!,
    epoch: f[3] as number,
    attempts: f[4] as number,
    dueAtSeconds: f[5] as number,
    lastAttemptAtMs: f[6] as number | undefined,
    claim: claim && { nodeId: claim[0], incarnation: claim[1], epoch: claim[2] },
    recipients: (f[8] as unknown[][]).map(decodeRecipient),
  };
  if (traits) destination.traits = readTraits(destination.isLocal, traits);
  if (typeof f[10] === 'string') destination.line = f[10];
  if (route) destination.route = routeOf(route);
  if (f[12]) destination.cancelReply = decodeReply(f[12] as ReplyFields);
  return destination;
}

function readTraits(isLocal: boolean, [isExpress, senderHash, queueName]: [number, number, string]): EntryTraits {
  return { isLocal, isExpress: isExpress === 1, senderHash, queueName };
}

function routeOf([host, port, isDomain]: [string, number | undefined, number]): NonNullable<Destination['route']> {
  const route: NonNullable<Destination['route']> = { host };
  if (port !== undefined) route.port = port;
  if (isDomain) route.isDomain = true;
  return route;
}

function decodeRecipient(f: unknown[]): QueueRecipient {
  const recipient: QueueRecipient = { address: f[0] as string, status: statuses[f[1] as number]! };
  if (f[2] !== undefined) recipient.orcpt = f[2] as string;
  if (f[3] !== undefined) recipient.notify = f[3] as QueueRecipient['notify'];
  if (f[4]) recipient.lastReply = decodeReply(f[4] as ReplyFields);
  if (f[5]) recipient.isDelayNotified = true;
  return recipient;
}

/** The record of a destination from its key and value. */
export function destinationAt(packedKey: Buffer, value: Buffer): Destination {
  const [, , queueId, domain, part] = keyItems(packedKey) as [number, string, string, string, number];
  return decodeDestination({ queueId, domain, part }, value);
}

function fieldsOf(value: Buffer, what: string, id: string): unknown[] {
  const fields: unknown = packr.unpack(value);
  if (!Array.isArray(fields) || (fields[0] !== recordFormat && fields[0] !== demandingFormat)) {
    throw new KvError('unavailable', `queue ${what} record of ${id} has an unknown format`, 'io');
  }
  return fields;
}
