/**
 * BODY[section], BINARY[section] and BINARY.SIZE[section] of one message: which bytes of the blob they are, read as few of them as possible.
 */
import type { BlobStore } from '../../../store/blobs/contract.js';
import {
  type ByteRange,
  createTransferDecoder,
  findPart,
  headerFieldsSubset,
  isKnownTransferEncoding,
  type MessageStructure,
  messageAt,
  type Part,
  resolveSection,
} from '../../message/index.js';
import type { SectionItem } from '../grammar/fetch-items.js';
import { no, Refusal } from '../replies.js';

export interface MessageBytes {
  blobId: string;
  sizeBytes: number;
  /** The whole message, where it is small enough to have been read ahead. */
  whole?: Buffer;
}

/** What goes into the response for one item. */
export type SectionValue =
  | { kind: 'nil' }
  | { kind: 'number'; value: number }
  /** Bytes in memory. */
  | { kind: 'bytes'; bytes: Buffer; binary: boolean }
  /** Bytes `[start, end)` of the blob, to be streamed. */
  | { kind: 'range'; range: ByteRange };

/** Ranges up to this size are read in one piece. */
const maxReadBytes = 262_144;
/** Longest header of which HEADER.FIELDS picks fields. */
const maxHeaderBytes = 8_388_608;

function clip(range: ByteRange, partial: { offset: number; length: number } | undefined): ByteRange {
  if (!partial) return range;
  const start = Math.min(range.start + partial.offset, range.end);
  return { start, end: Math.min(start + partial.length, range.end) };
}

/** Whether an item can be answered without the message's structure. */
export function needsStructure(item: SectionItem): boolean {
  return item.kind !== 'section' || item.section.path.length > 0 || item.section.text !== undefined;
}

export class SectionReader {
  readonly #blobs: BlobStore;

  constructor(blobs: BlobStore) {
    this.#blobs = blobs;
  }

  async read(item: SectionItem, message: MessageBytes, structure: MessageStructure | undefined): Promise<SectionValue> {
    if (item.kind !== 'section') return this.#binary(item, message, structure);
    const { path, text, fields } = item.section;
    if (path.length === 0 && text === undefined)
      return this.#value(message, clip({ start: 0, end: message.sizeBytes }, item.partial));
    if (!structure) return { kind: 'nil' };
    if (text === 'HEADER.FIELDS' || text === 'HEADER.FIELDS.NOT') {
      return this.#fields(item, message, structure, fields ?? [], text === 'HEADER.FIELDS.NOT');
    }
    const range = resolveSection(structure, text ? { numbers: path, text } : { numbers: path });
    return range ? this.#value(message, clip(range, item.partial)) : { kind: 'nil' };
  }

  async #value(message: MessageBytes, range: ByteRange): Promise<SectionValue> {
    if (range.end <= range.start) return { kind: 'bytes', bytes: Buffer.alloc(0), binary: false };
    if (!message.whole && range.end - range.start > maxReadBytes) return { kind: 'range', range };
    return { kind: 'bytes', bytes: await this.#bytes(message, range), binary: false };
  }

  async #bytes(message: MessageBytes, range: ByteRange): Promise<Buffer> {
    return message.whole ? message.whole.subarray(range.start, range.end) : this.#blobs.read(message.blobId, range);
  }

  async #fields(
    item: SectionItem,
    message: MessageBytes,
    structure: MessageStructure,
    fields: readonly string[],
    not: boolean,
  ): Promise<SectionValue> {
    const root = messageAt(structure, item.section.path);
    if (!root) return { kind: 'nil' };
    const length = Math.min(root.headerEnd - root.headerStart, maxHeaderBytes);
    const header = await this.#bytes(message, { start: root.headerStart, end: root.headerStart + length });
    const subset = headerFieldsSubset(header, { headerStart: 0, headerEnd: length }, fields, not);
    const range = clip({ start: 0, end: subset.length }, item.partial);
    return { kind: 'bytes', bytes: subset.subarray(range.start, range.end), binary: false };
  }

  /** RFC 9051 6.4.5, RFC 3516: the part's body without its transfer encoding. */
  async #binary(item: SectionItem, message: MessageBytes, structure: MessageStructure | undefined): Promise<SectionValue> {
    const part = structure && findPart(structure, item.section.path);
    if (!part || !structure) return { kind: 'nil' };
    const isWhole = item.section.path.length === 0;
    // A multipart has no encoding of its own to remove.
    const encoding = isWhole || part.children || part.message ? 'binary' : part.encoding;
    if (!isKnownTransferEncoding(encoding)) throw new Refusal(no('Unknown transfer encoding', 'UNKNOWN-CTE'));
    const range = { start: isWhole ? 0 : part.headerEnd, end: isWhole ? message.sizeBytes : part.bodyEnd };
    if (item.kind === 'binary-size') return { kind: 'number', value: await this.#decodedSize(message, range, encoding) };
    if (!isEncoded(encoding)) {
      const clipped = clip(range, item.partial);
      return { kind: 'bytes', bytes: await this.#bytes(message, clipped), binary: true };
    }
    const bytes = await this.#decode(message, range, encoding, item.partial);
    return { kind: 'bytes', bytes, binary: true };
  }

  /** Decodes piece by piece, and keeps only what is asked for. */
  async #decode(message: MessageBytes, range: ByteRange, encoding: string, partial: SectionItem['partial']): Promise<Buffer> {
    const from = partial?.offset ?? 0;
    const to = partial ? from + partial.length : Number.POSITIVE_INFINITY;
    const kept: Buffer[] = [];
    let at = 0;
    for await (const piece of this.#decoded(message, range, encoding)) {
      const start = Math.max(0, from - at);
      const end = Math.min(piece.length, to - at);
      if (start < end) kept.push(piece.subarray(start, end));
      at += piece.length;
      if (at >= to) break;
    }
    return kept.length === 1 ? kept[0]! : Buffer.concat(kept);
  }

  async #decodedSize(message: MessageBytes, range: ByteRange, encoding: string): Promise<number> {
    if (!isEncoded(encoding)) return range.end - range.start;
    let size = 0;
    for await (const piece of this.#decoded(message, range, encoding)) size += piece.length;
    return size;
  }

  async *#decoded(message: MessageBytes, range: ByteRange, encoding: string): AsyncGenerator<Buffer> {
    const decoder = createTransferDecoder(encoding);
    if (range.end > range.start) {
      if (message.whole) yield decoder.push(message.whole.subarray(range.start, range.end));
      else for await (const chunk of this.#blobs.stream(message.blobId, range)) yield decoder.push(chunk);
    }
    yield decoder.end();
  }
}

function isEncoded(encoding: Part['encoding']): boolean {
  return /^(?:base64|quoted-printable)$/i.test(encoding);
}
