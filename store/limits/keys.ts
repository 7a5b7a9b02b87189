/** Keys of the limits subspace. The only place that knows their tuples. */
import { hash } from 'node:crypto';
import { type KeyRange, key, keysUnder, subspace } from '../keyspace.js';

const { limits } = subspace;

/** Longer ones (a sender address may have 320 octets, a HELO more) are stored by their digest. */
const maxPlainKeyBytes = 128;

/** What callers give as a key, in bounded size. Different keys stay different. */
export function boundedKey(text: string): string {
  // A text that looks like a digest is digested too, or it could be mistaken for another's.
  if (!text.startsWith('sha256:') && (text.length <= maxPlainKeyBytes / 3 || Buffer.byteLength(text) <= maxPlainKeyBytes))
    return text;
  return `sha256:${hash('sha256', text, 'base64url')}`;
}

const nameForm = /^[a-z0-9.-]{1,64}$/;

/** @throws RangeError for what is no name of a limit. */
export function assertName(name: string): void {
  if (!nameForm.test(name)) throw new RangeError(`a limit's name has 1 to 64 of a-z, 0-9, '.' and '-': ${JSON.stringify(name)}`);
}

export const slotKey = (name: string, of: string, nodeId: string): Buffer => key(limits, 'slots', name, boundedKey(of), nodeId);
export const slotRange = (name: string, of: string): KeyRange => keysUnder(limits, 'slots', name, boundedKey(of));
export const allSlotsRange = (): KeyRange => keysUnder(limits, 'slots');

export const banKey = (network: string): Buffer => key(limits, 'ban', network);
export const banRange = (): KeyRange => keysUnder(limits, 'ban');
export const banGenerationKey: Buffer = key(limits, 'ban-generation');
export const banLogFloorKey: Buffer = key(limits, 'ban-log-floor');
/** Followed by a versionstamp (a tuple's element of type 0x33) and two zero bytes. */
export const banLogPrefix: Buffer = Buffer.concat([key(limits, 'ban-log'), Buffer.of(0x33)]);
export const banLogSuffix: Buffer = Buffer.alloc(2);
