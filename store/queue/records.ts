/** Keys and values of the queue: tuples from `keyspace.ts`, msgpack arrays that begin with a format version. */
import { Packr } from 'msgpackr';
import { type KeyRange, key, keyItems, keysUnder, nodeKeys, subspace } from '../keyspace.js';
import { KvError } from '../kv/contract.js';
import type { Destination, DueEntry, QueueMessage, QueueRecipient, RecipientStatus } from './contract.js';
import { shardOf } from './shards.js';

const recordFormat = 1;
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
export const claimKey = (nodeId: string, ref: DestinationRef): Buffer =>
  key(queue, 'claim', nodeId, ref.queueId, ref.domain, ref.part);
export const receiptKey = (queueId: string): Buffer => key(queue, 'receipt', queueId);
export const fenceKey = nodeKeys.fence;

export const messageRange = (): KeyRange => keysUnder(queue, 'message');
export const destinationRange = (queueId: string): KeyRange => keysUnder(queue, 'destination', queueId);
export const shardRange = (shard: number): KeyRange => keysUnder(queue, 'due', shard);
export const claimRange = (nodeId: string): KeyRange => keysUnder(queue, 'claim', nodeId);
export const allClaimsRange = (): KeyRange => keysUnder(queue, 'claim');
export const receiptRange = (): KeyRange => keysUnder(queue, 'receipt');

/** The entry that a due key stands for. */
export function dueEntry(packed: Buffer): DueEntry {
  const [, , shard, dueAtSeconds, queueId, domain, part] = keyItems(packed) as [
    number,
    string,
    number,
    number,
    string,
    string,
    number,
  ];
  return { shard, dueAtSeconds, queueId, domain, part };
}

/** The destination that a claim key stands for. */
export function claimedRef(packed: Buffer): DestinationRef {
  const [, , , queueId, domain, part] = keyItems(packed) as [number, string, string, string, string, number];
  return { queueId, domain, part };
}

export function encodeMessage(m: QueueMessage): Buffer {
  const { source: s } = m;
  return packr.pack([
    recordFormat,
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
  ]);
}

export function decodeMessage(id: string, value: Buffer): QueueMessage {
  const f = fieldsOf(value, 'message', id);
  const [protocol, remoteAddress, accountId, helo] = f[12] as [QueueMessage['source']['protocol'], string?, string?, string?];
  return {
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
}

const statuses: readonly RecipientStatus[] = ['pending', 'delivered', 'relayed', 'failed', 'expanded', 'cancelled'];
const states: readonly Destination['state'][] = ['due', 'claimed', 'held'];

export function encodeDestination(d: Destination): Buffer {
  const recipients = d.recipients.map((r) => {
    const { lastReply: reply } = r;
    const plain = [r.address, statuses.indexOf(r.status)];
    if (r.orcpt === undefined && !r.notify && !reply && !r.isDelayNotified) return plain;
    const replyFields = reply && [reply.code, reply.enhanced, reply.text, reply.host];
    return [...plain, r.orcpt, r.notify, replyFields, r.isDelayNotified ? 1 : 0];
  });
  const claim = d.claim && [d.claim.nodeId, d.claim.incarnation, d.claim.epoch];
  return packr.pack([
    recordFormat,
    d.isLocal,
    states.indexOf(d.state),
    d.epoch,
    d.attempts,
    d.dueAtSeconds,
    d.lastAttemptAtMs,
    claim,
    recipients,
  ]);
}

export function decodeDestination(ref: DestinationRef, value: Buffer): Destination {
  const f = fieldsOf(value, 'destination', ref.queueId);
  const claim = f[7] as [string, number, number] | undefined;
  return {
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
}

function decodeRecipient(f: unknown[]): QueueRecipient {
  const recipient: QueueRecipient = { address: f[0] as string, status: statuses[f[1] as number]! };
  if (f[2] !== undefined) recipient.orcpt = f[2] as string;
  if (f[3] !== undefined) recipient.notify = f[3] as QueueRecipient['notify'];
  const reply = f[4] as [number, string, string, string?] | undefined;
  if (reply) recipient.lastReply = { code: reply[0], enhanced: reply[1], text: reply[2], host: reply[3] };
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
  if (!Array.isArray(fields) || fields[0] !== recordFormat) {
    throw new KvError('unavailable', `queue ${what} record of ${id} has an unknown format`, 'io');
  }
  return fields;
}
