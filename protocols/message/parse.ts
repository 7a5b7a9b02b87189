/**
 * A message's structure as offsets, in one pass and without copying body bytes. Every sequence of bytes has *some* structure: broken
 * mail is divided as far as its delimiters allow. Time is linear in the message's length (times the bounded depth at worst).
 */
import { trimBlanks, trimBlanksEnd, withoutBlanks } from './blanks.js';
import { asBuffer } from './charset.js';
import { buildEnvelope, emptyEnvelope, MessageFields } from './envelope.js';
import { findNameEnd, forEachField, unfold } from './headers.js';
import { defaultMessageLimits, type MessageLimits } from './limits.js';
import { LineCounter } from './line-counter.js';
import { parseParameterized } from './parameters.js';
import type { MessageStructure, Part } from './types.js';

const lf = 0x0a;
const cr = 0x0d;
const dash = 0x2d;
const space = 0x20;
const tab = 0x09;
const lineStartDashes = Buffer.from('\n--');

type DefaultMedia = 'text/plain' | 'message/rfc822';

/** An entity whose end has not been met. */
interface OpenEntity {
  part: Part;
  /** Bytes of the boundary parameter while delimiters are looked for; undefined for leaves and behind the close delimiter. */
  boundary: Buffer | undefined;
  defaultChild: DefaultMedia;
}

/** A part whose body has not been looked at, and its raw boundary parameter. */
interface DescribedPart {
  part: Part;
  boundary: string | undefined;
}

interface Delimiter {
  /** Index in the stack of open entities. */
  level: number;
  /** First byte of the delimiter's line. */
  start: number;
  /** First byte of the line behind it. */
  next: number;
  closes: boolean;
}

export interface ParsedMessage {
  structure: MessageStructure;
  /** The root header's envelope fields. */
  fields: MessageFields;
}

/** The structure of `bytes`, a whole message. Never throws. */
export function parseMessage(bytes: Uint8Array, limits: Partial<MessageLimits> = {}): MessageStructure {
  return parseMessageWithFields(bytes, { ...defaultMessageLimits, ...limits }).structure;
}

/** `parseMessage` that also hands out what the root header holds for an envelope. */
export function parseMessageWithFields(bytes: Uint8Array, limits: MessageLimits): ParsedMessage {
  return new StructureParser(asBuffer(bytes), limits).run();
}

class StructureParser {
  private readonly open: OpenEntity[] = [];
  private readonly lines: LineCounter;
  private partCount = 0;
  /** Boundaries among `open`; without any, nothing has to be searched. */
  private activeBoundaries = 0;

  constructor(
    private readonly bytes: Buffer,
    private readonly limits: MessageLimits,
  ) {
    this.lines = new LineCounter(bytes);
  }

  run(): ParsedMessage {
    const fields = new MessageFields(this.limits);
    const structure = this.openEntity(0, 'text/plain', fields);
    let at = this.open.at(-1)!.part.headerEnd;
    for (;;) {
      const delimiter = this.nextDelimiter(at);
      if (!delimiter) break;
      this.closeAbove(delimiter.level, this.contentEnd(delimiter.start));
      at = delimiter.next;
      const parent = this.open[delimiter.level]!;
      if (delimiter.closes) {
        parent.boundary = undefined;
        this.activeBoundaries--;
        continue;
      }
      if (this.partCount >= this.limits.maxParts) {
        // No room for further parts: an undivided rest is told as such, a begun multipart ends with what it has.
        break;
      }
      parent.part.children!.push(this.openEntity(at, parent.defaultChild, undefined));
      at = this.open.at(-1)!.part.headerEnd;
    }
    this.closeAbove(-1, this.bytes.length);
    return { structure, fields };
  }

  /** Reads the header at `start`, opens the entity and, for an embedded message, the entities inside it. */
  private openEntity(start: number, defaultMedia: DefaultMedia, fields: MessageFields | undefined): Part {
    this.partCount++;
    const { headerEnd, textEnd } = this.findHeaderEnd(start);
    const { part, boundary } = this.readHeader(start, headerEnd, textEnd, defaultMedia, fields);
    const entity: OpenEntity = { part, boundary: undefined, defaultChild: 'text/plain' };
    this.open.push(entity);
    const roomInside = this.open.length < this.limits.maxDepth && this.partCount < this.limits.maxParts;
    if (part.type === 'multipart') {
      part.children = [];
      entity.defaultChild = part.subtype === 'digest' ? 'message/rfc822' : 'text/plain';
      if (roomInside) this.activate(entity, boundary);
    } else if (isEmbeddedMessage(part)) {
      this.openEmbedded(part, roomInside);
    }
    return part;
  }

  private activate(entity: OpenEntity, boundary: string | undefined): void {
    // RFC 2046 5.1.1: a boundary does not end with white space; what does was padded on the way.
    const trimmed = boundary && trimBlanksEnd(boundary);
    if (!trimmed) return;
    const bytes = Buffer.from(trimmed, 'latin1');
    if (bytes.length > this.limits.maxBoundaryBytes) return;
    entity.boundary = bytes;
    this.activeBoundaries++;
  }

  private openEmbedded(part: Part, roomInside: boolean): void {
    // RFC 2046 5.2.1 forbids other encodings; RFC 6532 3.5 allows them for message/global. Inside them no offsets exist.
    if (!roomInside || /^(?:base64|quoted-printable)$/.test(part.encoding)) {
      part.opaque = true;
      return;
    }
    const fields = new MessageFields(this.limits);
    const structure = this.openEntity(part.headerEnd, 'text/plain', fields);
    part.message = { envelope: buildEnvelope(fields, this.limits), structure };
  }

  /**
   * The header's end: behind the first empty line, at a delimiter of an enclosing multipart, or at the end of the bytes. When the very first
   * line is no header field, there is no header.
   */
  private findHeaderEnd(start: number): { headerEnd: number; textEnd: number } {
    const { bytes } = this;
    if (!this.startsHeader(start)) return { headerEnd: start, textEnd: start };
    let at = start;
    while (at < bytes.length) {
      const first = bytes[at];
      if (first === lf) return { headerEnd: at + 1, textEnd: at };
      if (first === cr && bytes[at + 1] === lf) return { headerEnd: at + 2, textEnd: at };
      if (first === dash && bytes[at + 1] === dash && this.matchDelimiter(at)) break;
      const end = bytes.indexOf(lf, at);
      at = end < 0 ? bytes.length : end + 1;
    }
    return { headerEnd: at, textEnd: at };
  }

  private startsHeader(start: number): boolean {
    const { bytes } = this;
    const first = bytes[start];
    if (first === undefined || first === lf || (first === cr && bytes[start + 1] === lf)) return true;
    if (findNameEnd((index) => bytes[index]!, start, bytes.length) >= 0) return true;
    // An mbox separator in front of the header is not part of a field, but no body either; a leading blank continues nothing.
    return first === space || first === tab || /^>?From /.test(bytes.toString('latin1', start, start + 6));
  }

  private readHeader(
    start: number,
    headerEnd: number,
    textEnd: number,
    defaultMedia: DefaultMedia,
    fields: MessageFields | undefined,
  ): DescribedPart {
    const { limits } = this;
    const text = this.bytes.toString('latin1', start, Math.min(textEnd, start + limits.maxHeaderBytes));
    const content = new Map<string, string>();
    const visit = (name: string, _start: number, valueStart: number, end: number) => {
      if (name.startsWith('content-')) {
        if (!content.has(name))
          content.set(name, unfold(text.slice(valueStart, Math.min(end, valueStart + maxContentFieldBytes))));
      } else {
        fields?.offer(name, (maxBytes) => text.slice(valueStart, Math.min(end, valueStart + maxBytes)));
      }
      return undefined;
    };
    forEachField(text, visit, limits.maxHeaderFields);
    return describePart(content, start, headerEnd, defaultMedia, limits);
  }

  /** The next delimiter line of any open multipart at or behind `from`, which is the start of a line. */
  private nextDelimiter(from: number): Delimiter | undefined {
    if (this.activeBoundaries === 0) return undefined;
    const { bytes } = this;
    let at = from;
    if (bytes[at] === dash && bytes[at + 1] === dash) {
      const found = this.matchDelimiter(at);
      if (found) return found;
    }
    // The line end in front of `from` may start the match for `from` itself, which has been tried.
    while ((at = bytes.indexOf(lineStartDashes, at)) >= 0) {
      const found = this.matchDelimiter(at + 1);
      if (found) return found;
      at += 3;
    }
    return undefined;
  }

  /**
   * RFC 2046 5.1.1: `--boundary`, or `--boundary--`, then the line's end or white space and anything. The innermost multipart is asked
   * first, so that of nested boundaries where one begins with the other the right one answers.
   */
  private matchDelimiter(start: number): Delimiter | undefined {
    const { bytes } = this;
    for (let level = this.open.length - 1; level >= 0; level--) {
      const boundary = this.open[level]!.boundary;
      if (!boundary || !startsWith(bytes, start + 2, boundary)) continue;
      const end = start + 2 + boundary.length;
      const closes = bytes[end] === dash && bytes[end + 1] === dash && isPadding(bytes[end + 2]);
      if (!closes && !isPadding(bytes[end])) continue;
      const lineEnd = bytes.indexOf(lf, end);
      return { level, start, next: lineEnd < 0 ? bytes.length : lineEnd + 1, closes };
    }
    return undefined;
  }

  /** Where content ends that a delimiter line at `start` follows: the line end in front belongs to the delimiter. */
  private contentEnd(start: number): number {
    let end = start;
    if (this.bytes[end - 1] === lf) end--;
    if (end < start && this.bytes[end - 1] === cr) end--;
    return end;
  }

  /** Ends all entities above stack index `level`. */
  private closeAbove(level: number, contentEnd: number): void {
    let end = contentEnd;
    while (this.open.length - 1 > level) {
      const { part, boundary } = this.open.pop()!;
      if (boundary) this.activeBoundaries--;
      // A header that a delimiter cuts short ends behind its own last line end; what encloses it ends no earlier.
      end = Math.max(end, part.headerEnd);
      part.bodyEnd = end;
      part.size = end - part.headerEnd;
      if (part.children?.length === 0) {
        part.opaque = true;
        part.children.push(this.undivided(part));
      }
      if (part.opaque && isEmbeddedMessage(part)) part.message = { envelope: emptyEnvelope(), structure: this.undivided(part) };
      if (part.type === 'text' || part.message) part.lines = this.lines.count(part.headerEnd, end);
    }
  }

  /** A headerless text part over the whole body of `container`. */
  private undivided(container: Part): Part {
    const { headerEnd, bodyEnd, encoding } = container;
    const part: Part = {
      type: 'text',
      subtype: 'plain',
      params: { charset: 'us-ascii' },
      // RFC 2045 6.4: a multipart's own encoding is never more than an announcement; an embedded message's is real.
      encoding: isEmbeddedMessage(container) ? encoding : '7bit',
      headerStart: headerEnd,
      headerEnd,
      bodyEnd,
      size: bodyEnd - headerEnd,
    };
    part.lines = this.lines.count(headerEnd, bodyEnd);
    return part;
  }
}

/** Bytes read of one Content-* field. */
const maxContentFieldBytes = 16 * 1024;

function isPadding(byte: number | undefined): boolean {
  return byte === undefined || byte === lf || byte === cr || byte === space || byte === tab;
}

/** Compares in place: candidates are many and differ early, so no native call pays. */
function startsWith(bytes: Buffer, at: number, boundary: Buffer): boolean {
  if (at + boundary.length > bytes.length || bytes[at + boundary.length - 1] !== boundary[boundary.length - 1]) return false;
  for (let i = 0; i < boundary.length; i++) if (bytes[at + i] !== boundary[i]) return false;
  return true;
}

function isEmbeddedMessage(part: Part): boolean {
  return part.type === 'message' && (part.subtype === 'rfc822' || part.subtype === 'global');
}

const token = /^[^\x00-\x20()<>@,;:\\"/[\]?=\x7f-\xff]{1,127}$/;

/** The media type of a raw Content-Type value; undefined when RFC 2045 5.2 says to treat it as absent. */
function mediaTypeOf(value: string): { type: string; subtype: string } | undefined {
  const [type, subtype, ...rest] = value.split('/', 3).map((piece) => trimBlanks(piece).toLowerCase());
  if (!type || !subtype || rest.length > 0 || !token.test(type)) return undefined;
  const plain = /^\S+/.exec(subtype)?.[0] ?? '';
  return token.test(plain) ? { type, subtype: plain } : undefined;
}

function describePart(
  content: ReadonlyMap<string, string>,
  headerStart: number,
  headerEnd: number,
  defaultMedia: DefaultMedia,
  limits: MessageLimits,
): DescribedPart {
  const contentType = content.get('content-type');
  const parsed = contentType ? parseParameterized(contentType, limits) : undefined;
  let media = parsed && mediaTypeOf(parsed.value);
  let params = parsed?.params ?? {};
  // RFC 2046 5.1.1 requires the parameter: without it the type cannot be what it says.
  if (media?.type === 'multipart' && !trimBlanksEnd(parsed?.boundary ?? '')) media = undefined;
  if (!media) {
    const embedded = defaultMedia === 'message/rfc822' && !contentType;
    media = embedded ? { type: 'message', subtype: 'rfc822' } : { type: 'text', subtype: 'plain' };
    params = embedded ? {} : { charset: params['charset'] || 'us-ascii' };
  }
  const part: Part = {
    type: media.type,
    subtype: media.subtype,
    params,
    encoding: '7bit',
    headerStart,
    headerEnd,
    bodyEnd: headerEnd,
    size: 0,
  };
  addContentFields(part, content, limits);
  return { part, boundary: parsed?.boundary };
}

function addContentFields(part: Part, content: ReadonlyMap<string, string>, limits: MessageLimits): void {
  const short = (name: string) => content.get(name)?.slice(0, limits.maxTextFieldBytes) || undefined;
  const encoding = content.get('content-transfer-encoding');
  if (encoding) part.encoding = /^[^\s;(]{1,64}/.exec(encoding)?.[0].toLowerCase() ?? '7bit';
  const disposition = content.get('content-disposition');
  if (disposition) {
    const { value, params } = parseParameterized(disposition, limits);
    const kind = /^\S{1,64}/.exec(value.toLowerCase())?.[0];
    if (kind && token.test(kind)) {
      part.disposition = kind;
      part.dispositionParams = params;
    } else if (Object.keys(params).length > 0) {
      // RFC 2183 2.8: what is not understood is an attachment.
      part.disposition = 'attachment';
      part.dispositionParams = params;
    }
  }
  const id = short('content-id');
  if (id) part.id = id;
  const description = short('content-description');
  if (description) part.description = description;
  const location = withoutBlanks(short('content-location') ?? '');
  if (location) part.location = location;
  const md5 = short('content-md5')?.slice(0, 64);
  if (md5) part.md5 = md5;
  const language = short('content-language')?.replace(/\([^()]*\)/g, '');
  const tags = language
    ?.split(',', 32)
    .map(trimBlanks)
    .filter((tag) => tag !== '' && tag.length <= 64);
  if (tags && tags.length > 0) part.language = tags;
}
