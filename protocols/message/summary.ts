/**
 * The summary that is stored with each message, and its compact record: short msgpack arrays with a format version in front, offsets as
 * distances, frequent media types and encodings as numbers.
 */
import { Packr } from 'msgpackr';
import { buildEnvelope, buildMessageIds, sentAtOf } from './envelope.js';
import { formatBodyStructure } from './imap-body-structure.js';
import { formatEnvelope } from './imap-envelope.js';
import { defaultMessageLimits, type MessageLimits, minimalMessageLimits, tightMessageLimits } from './limits.js';
import { missingLineEndBytes } from './line-ends.js';
import { parseMessageWithFields } from './parse.js';
import { preview } from './text.js';
import type { Envelope, EnvelopeAddress, MessageSummary, Part } from './types.js';

const formatVersion = 1;
/** Records that would become longer with IMAP's texts are stored without them. */
const maxRenderedRecordBytes = 16_384;

/** Everything that a mailbox keeps of a message, from its bytes. Never throws. */
export function summarize(bytes: Uint8Array, limits: Partial<MessageLimits> = {}): MessageSummary {
  const all = { ...defaultMessageLimits, ...limits };
  const { structure, fields } = parseMessageWithFields(bytes, all);
  const summary: MessageSummary = {
    envelope: buildEnvelope(fields, all),
    structure,
    messageIds: buildMessageIds(fields, all),
  };
  const words = preview(bytes, structure);
  if (words !== undefined) summary.preview = words;
  const sentAtMs = sentAtOf(fields);
  if (sentAtMs !== undefined) summary.sentAtMs = sentAtMs;
  return summary;
}

/** What a mailbox keeps of a message. */
export interface FiledSummary {
  summary: MessageSummary;
  /** The summary as a record. */
  encoded: Buffer;
  /** Its Message-ID, those that it answers and refers to: what ties it to a thread. Own first. */
  messageIds: string[];
  /** What the message lacks of CRLF at the ends of its lines. */
  missingLineEndBytes: number;
}

/**
 * The summary with its record, no longer than `maxEncodedBytes` (at least 32 kB): for mail that is all header or all parts, limits are tightened until
 * the record fits, at the price of an incomplete structure.
 */
export function summarizeWithin(bytes: Uint8Array, maxEncodedBytes: number): FiledSummary {
  let last: { summary: MessageSummary; encoded: Buffer } | undefined;
  for (const limits of [defaultMessageLimits, tightMessageLimits, minimalMessageLimits]) {
    const summary = summarize(bytes, limits);
    last = { summary, encoded: encodeSummary(summary) };
    if (last.encoded.length <= maxEncodedBytes) break;
  }
  const { own, inReplyTo, references } = last!.summary.messageIds;
  return {
    ...last!,
    messageIds: [...(own === undefined ? [] : [own]), ...inReplyTo, ...references],
    missingLineEndBytes: missingLineEndBytes(bytes),
  };
}

const packr = new Packr({ useRecords: false, variableMapSize: true });

/** Appended to only: the numbers are in stored records. */
const mediaTypes = [
  'text/plain',
  'text/html',
  'multipart/mixed',
  'multipart/alternative',
  'multipart/related',
  'multipart/signed',
  'multipart/report',
  'message/rfc822',
  'message/delivery-status',
  'application/octet-stream',
  'application/pdf',
  'image/png',
  'image/jpeg',
  'image/gif',
  'text/calendar',
  'application/pgp-signature',
  'application/pkcs7-signature',
  'text/rfc822-headers',
];
const encodings = ['7bit', 'quoted-printable', 'base64', '8bit', 'binary'];
const mediaCodes = new Map(mediaTypes.map((name, index) => [name, index]));
const encodingCodes = new Map(encodings.map((name, index) => [name, index]));

type Json = string | number | null | Json[];

/**
 * The record of a summary. Its last element is what IMAP tells of the message, ready for the output; releases before it read the record without that
 * element, as this one reads theirs.
 */
export function encodeSummary(summary: MessageSummary): Buffer {
  const { envelope, structure, messageIds } = summary;
  const fields = [
    formatVersion,
    packEnvelope(envelope),
    packPart(structure, 0),
    summary.preview ?? null,
    messageIds.own ?? null,
    messageIds.inReplyTo,
    messageIds.references,
    summary.sentAtMs ?? null,
  ];
  const record = packr.encode([...fields, packRendering(formatEnvelope(envelope), formatBodyStructure(structure, true))]);
  return record.length <= maxRenderedRecordBytes ? record : packr.encode(fields);
}

/** The texts of ENVELOPE and BODYSTRUCTURE (RFC 9051 7.5.2), latin1. */
export interface Rendering {
  envelope: string;
  bodyStructure: string;
}

/** A msgpack array of nine, the last of which is a rendering. */
const renderedArray = 0x99;
const renderingVersion = 1;
/** Lengths of both texts, and the version. */
const trailerBytes = 9;

function packRendering(envelope: string, bodyStructure: string): Buffer {
  const bytes = Buffer.allocUnsafe(envelope.length + bodyStructure.length + trailerBytes);
  bytes.write(envelope, 0, 'latin1');
  bytes.write(bodyStructure, envelope.length, 'latin1');
  const trailer = envelope.length + bodyStructure.length;
  bytes.writeUInt32BE(envelope.length, trailer);
  bytes.writeUInt32BE(bodyStructure.length, trailer + 4);
  bytes[trailer + 8] = renderingVersion;
  return bytes;
}

/** Takes IMAP's texts out of a record without decoding it; undefined where there are none. */
export function renderingOf(record: Buffer): Rendering | undefined {
  if (record[0] !== renderedArray || record[1] !== formatVersion || record.at(-1) !== renderingVersion) return undefined;
  const trailer = record.length - trailerBytes;
  if (trailer < 2) return undefined;
  const middle = trailer - record.readUInt32BE(trailer + 4);
  const begin = middle - record.readUInt32BE(trailer);
  if (begin < 2 || middle < begin || !isBytesHead(record, begin, record.length - begin)) return undefined;
  return { envelope: record.toString('latin1', begin, middle), bodyStructure: record.toString('latin1', middle, trailer) };
}

/** Whether a msgpack byte string of this length begins at `begin`. */
function isBytesHead(record: Buffer, begin: number, length: number): boolean {
  if (length < 0x100) return record[begin - 2] === 0xc4 && record[begin - 1] === length;
  return begin >= 3 && record[begin - 3] === 0xc5 && record.readUInt16BE(begin - 2) === length;
}

/** Reads a record that `encodeSummary` wrote. Throws a `SummaryFormatError` for anything else. */
export function decodeSummary(record: Uint8Array): MessageSummary {
  return readRecord(record, unpackSummary);
}

/** The part of a summary that is about the header; the structure is not even looked at. */
export type SummaryHead = Pick<MessageSummary, 'envelope' | 'messageIds'>;

/** As `decodeSummary`, in a fraction of the time, for whoever wants the head of many. */
export function decodeSummaryHead(record: Uint8Array): SummaryHead {
  return readRecord(record, ([, envelope, , , own, inReplyTo, references]) => ({
    envelope: unpackEnvelope(envelope as Json[]),
    messageIds: {
      ...(own === null ? {} : { own: own as string }),
      inReplyTo: inReplyTo as string[],
      references: references as string[],
    },
  }));
}

function readRecord<T>(record: Uint8Array, unpack: (value: Json[]) => T): T {
  let value: unknown;
  try {
    value = packr.decode(record as Buffer);
  } catch (cause) {
    throw new SummaryFormatError('the message summary cannot be read', { cause });
  }
  if (!Array.isArray(value) || value[0] !== formatVersion) {
    throw new SummaryFormatError(`message summary of format ${Array.isArray(value) ? String(value[0]) : typeof value}`);
  }
  try {
    return unpack(value as Json[]);
  } catch (cause) {
    throw new SummaryFormatError('the message summary is damaged', { cause });
  }
}

/** A stored summary has a format that this version does not read, or is damaged; the remedy is to summarize the message again. */
export class SummaryFormatError extends Error {
  readonly code = 'summary-format';
  override name = 'SummaryFormatError';
}

function unpackSummary(value: Json[]): MessageSummary {
  const [, envelope, structure, words, own, inReplyTo, references, sentAtMs] = value as [
    number,
    Json[],
    Json[],
    string | null,
    string | null,
    string[],
    string[],
    number | null,
  ];
  const summary: MessageSummary = {
    envelope: unpackEnvelope(envelope),
    structure: unpackPart(structure, 0),
    messageIds: { inReplyTo, references },
  };
  if (own !== null) summary.messageIds.own = own;
  if (words !== null) summary.preview = words;
  if (sentAtMs !== null) summary.sentAtMs = sentAtMs;
  return summary;
}

const packAddresses = (list: EnvelopeAddress[]): Json[] =>
  list.flatMap(({ name, route, mailbox, host }) => [name, route, mailbox, host]);

function sameAddresses(a: EnvelopeAddress[], b: EnvelopeAddress[]): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  return a.every((one, i) => {
    const other = b[i]!;
    return one.name === other.name && one.route === other.route && one.mailbox === other.mailbox && one.host === other.host;
  });
}

function packEnvelope(e: Envelope): Json[] {
  // 0 stands for "the same as From", which is what Sender and Reply-To nearly always are.
  const orFrom = (list: EnvelopeAddress[]) => (sameAddresses(list, e.from) ? 0 : packAddresses(list));
  return [
    e.date,
    e.subject,
    packAddresses(e.from),
    orFrom(e.sender),
    orFrom(e.replyTo),
    packAddresses(e.to),
    packAddresses(e.cc),
    packAddresses(e.bcc),
    e.inReplyTo,
    e.messageId,
  ];
}

function unpackAddresses(packed: Json): EnvelopeAddress[] {
  const flat = packed as (string | null)[];
  const out: EnvelopeAddress[] = [];
  for (let i = 0; i + 3 < flat.length; i += 4)
    out.push({ name: flat[i]!, route: flat[i + 1]!, mailbox: flat[i + 2]!, host: flat[i + 3]! });
  return out;
}

function unpackEnvelope(packed: Json[]): Envelope {
  const [date, subject, from, sender, replyTo, to, cc, bcc, inReplyTo, messageId] = packed as [
    string | null,
    string | null,
    Json,
    Json,
    Json,
    Json,
    Json,
    Json,
    string | null,
    string | null,
  ];
  const fromList = unpackAddresses(from);
  return {
    date,
    subject,
    from: fromList,
    sender: sender === 0 ? fromList : unpackAddresses(sender),
    replyTo: replyTo === 0 ? fromList : unpackAddresses(replyTo),
    to: unpackAddresses(to),
    cc: unpackAddresses(cc),
    bcc: unpackAddresses(bcc),
    inReplyTo,
    messageId,
  };
}

const packParams = (params: Record<string, string>): Json[] => Object.entries(params).flat();

function unpackParams(packed: Json): Record<string, string> {
  const flat = packed as string[];
  const params: Record<string, string> = {};
  for (let i = 0; i + 1 < flat.length; i += 2) params[flat[i]!] = flat[i + 1]!;
  return params;
}

/**
 * `[media, params, encoding, header distance, header bytes, body bytes, lines, inside, extras?]`. The header's distance counts from `base`: the
 * end of the container's header or of the part before. `inside` is the children, or envelope and structure, or null; extras only when there are any.
 */
function packPart(part: Part, base: number): Json[] {
  const media = `${part.type}/${part.subtype}`;
  const packed: Json[] = [
    mediaCodes.get(media) ?? media,
    packParams(part.params),
    encodingCodes.get(part.encoding) ?? part.encoding,
    part.headerStart - base,
    part.headerEnd - part.headerStart,
    part.bodyEnd - part.headerEnd,
    part.lines ?? null,
    packInside(part),
  ];
  const extras: Json[] = [
    part.opaque ? 1 : null,
    part.disposition ?? null,
    part.dispositionParams ? packParams(part.dispositionParams) : null,
    part.id ?? null,
    part.description ?? null,
    part.language ?? null,
    part.location ?? null,
    part.md5 ?? null,
  ];
  while (extras.length > 0 && extras.at(-1) === null) extras.pop();
  if (extras.length > 0) packed.push(extras);
  return packed;
}

function packInside(part: Part): Json {
  if (part.message) return [packEnvelope(part.message.envelope), packPart(part.message.structure, part.headerEnd)];
  if (!part.children) return null;
  let base = part.headerEnd;
  return part.children.map((child) => {
    const packed = packPart(child, base);
    base = child.bodyEnd;
    return packed;
  });
}

function unpackPart(packed: Json[], base: number): Part {
  const [media, params, encoding, distance, headerBytes, bodyBytes, lines, inside, extras] = packed as [
    Json,
    Json,
    Json,
    number,
    number,
    number,
    number | null,
    Json[] | null,
    Json[] | undefined,
  ];
  const [type, subtype] = (typeof media === 'number' ? mediaTypes[media]! : (media as string)).split('/') as [string, string];
  const headerStart = base + distance;
  const headerEnd = headerStart + headerBytes;
  const part: Part = {
    type,
    subtype,
    params: unpackParams(params),
    encoding: typeof encoding === 'number' ? encodings[encoding]! : (encoding as string),
    headerStart,
    headerEnd,
    bodyEnd: headerEnd + bodyBytes,
    size: bodyBytes,
  };
  if (lines !== null) part.lines = lines;
  if (extras) unpackExtras(part, extras);
  if (inside && type === 'multipart') {
    let from = headerEnd;
    part.children = (inside as Json[][]).map((child) => {
      const unpacked = unpackPart(child, from);
      from = unpacked.bodyEnd;
      return unpacked;
    });
  } else if (inside) {
    part.message = { envelope: unpackEnvelope(inside[0] as Json[]), structure: unpackPart(inside[1] as Json[], headerEnd) };
  }
  return part;
}

function unpackExtras(part: Part, extras: Json[]): void {
  const [opaque, disposition, dispositionParams, id, description, language, location, md5] = extras;
  if (opaque) part.opaque = true;
  if (disposition != null) part.disposition = disposition as string;
  if (dispositionParams != null) part.dispositionParams = unpackParams(dispositionParams);
  if (id != null) part.id = id as string;
  if (description != null) part.description = description as string;
  if (language != null) part.language = language as string[];
  if (location != null) part.location = location as string;
  if (md5 != null) part.md5 = md5 as string;
}
