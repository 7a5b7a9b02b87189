import { unpack } from 'msgpackr';
import { describe, expect, it } from 'vitest';
import type { Destination, QueueMessage } from './contract.js';
import { decodeDestination, decodeMessage, encodeDestination, encodeMessage } from './records.js';

const message: QueueMessage = {
  id: 'm',
  blobId: 'b',
  sizeBytes: 1,
  relayOffsetBytes: 0,
  from: 'a@b.test',
  receivedAtMs: 1,
  expiresAtMs: 2,
  isUtf8: false,
  body: '7BIT',
  priority: 0,
  source: { protocol: 'smtp' },
  partCount: 1,
};
const destination: Destination = {
  queueId: 'm',
  domain: 'c.test',
  part: 0,
  isLocal: false,
  state: 'due',
  recipients: [{ address: 'x@c.test', status: 'pending' }],
  attempts: 0,
  dueAtSeconds: 5,
  epoch: 0,
};
const formatOf = (value: Buffer) => (unpack(value) as unknown[])[0];

describe('records', () => {
  it('keep all fields', () => {
    const full: QueueMessage = {
      ...message,
      requiresTls: true,
      deliverBy: { untilMs: 77, mode: 'notify', isTraced: true },
      queueName: 'bulk',
      countedUnder: ['total'],
      notBeforeSeconds: 1_900_000_000,
    };
    expect(decodeMessage('m', encodeMessage(full))).toEqual({ ...full, ret: undefined, envid: undefined });
    const waiting: Destination = {
      ...destination,
      line: 'c.test',
      traits: { isLocal: false, isExpress: true, senderHash: 0xffffffff, queueName: 'bulk' },
      route: { host: 'r.test', isDomain: true },
      cancelReply: { code: 550, enhanced: '5.0.0', text: 'no', host: 'h' },
    };
    expect(decodeDestination(destination, encodeDestination(waiting))).toEqual(waiting);
  });

  it('are in a format that nodes of the release before leave alone, where passing over a field would be wrong', () => {
    expect(formatOf(encodeMessage(message))).toBe(1);
    expect(formatOf(encodeMessage({ ...message, queueName: 'bulk' }))).toBe(1);
    expect(formatOf(encodeMessage({ ...message, notBeforeSeconds: 7 }))).toBe(1);
    expect(formatOf(encodeMessage({ ...message, deliverBy: { untilMs: 1, mode: 'notify', isTraced: false } }))).toBe(1);
    expect(formatOf(encodeMessage({ ...message, deliverBy: { untilMs: 1, mode: 'return', isTraced: false } }))).toBe(2);
    expect(formatOf(encodeMessage({ ...message, requiresTls: true }))).toBe(2);
    expect(formatOf(encodeDestination({ ...destination, line: 'c.test' }))).toBe(1);
    expect(formatOf(encodeDestination({ ...destination, route: { host: 'r.test' } }))).toBe(2);
    expect(formatOf(encodeDestination({ ...destination, cancelReply: { code: 550, enhanced: '5.0.0', text: '' } }))).toBe(2);
  });

  it('keep the time before which a message stays, also where it asks for nothing else', () => {
    expect(decodeMessage('m', encodeMessage({ ...message, notBeforeSeconds: 7 }))).toMatchObject({ notBeforeSeconds: 7 });
  });

  it('of the release before are read', () => {
    const before = encodeMessage(message);
    expect(decodeMessage('m', before)).toEqual({ ...message, ret: undefined, envid: undefined });
    expect(unpack(before)).toHaveLength(14);
    expect(unpack(encodeDestination(destination))).toHaveLength(9);
    expect(decodeDestination(destination, encodeDestination(destination)).traits).toBeUndefined();
  });
});
