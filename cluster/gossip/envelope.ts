/**
 * What surrounds every message: a msgpackr array `[version, from, incarnation, sequence, body]`. Later versions may put more at its end, or raise the
 * version; both are left to those who know them.
 */
import { Packr } from 'msgpackr';
import type { GossipMessage } from './contract.js';

const envelopeVersion = 1;
const maxNodeIdLength = 64;

// Arrays and maps only: records would need a memory that both sides share, references could make circles.
const packr = new Packr({ useRecords: false, copyBuffers: true, structuredClone: false });

/** `garbage`: no peer of any version would send it. `newer`: a later version, which this one can't read. */
export type Unread = 'garbage' | 'newer';

/** Throws what msgpackr throws for a body that can't be packed. */
export function packEnvelope(message: GossipMessage): Buffer {
  return packr.pack([envelopeVersion, message.from, message.incarnation, message.sequence, message.body]);
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** Never throws. The bytes aren't kept. */
export function unpackEnvelope(bytes: Uint8Array): GossipMessage | Unread {
  let fields: unknown;
  try {
    fields = packr.unpack(bytes);
  } catch {
    return 'garbage';
  }
  if (!Array.isArray(fields) || !isCount(fields[0]) || fields[0] === 0) return 'garbage';
  if (fields[0] > envelopeVersion) return 'newer';
  const [, from, incarnation, sequence, body] = fields as unknown[];
  if (typeof from !== 'string' || from.length === 0 || from.length > maxNodeIdLength) return 'garbage';
  if (!isCount(incarnation) || !isCount(sequence) || sequence === 0 || fields.length < 5) return 'garbage';
  return { from, incarnation, sequence, body };
}
