/** What `body` compares of a message (RFC 5173 5): one text after the other, each made when it is asked for, and kept with the parsed message. */
import { decodeBody, decodeCharset, decodeText, htmlToText, isAttachment, type Part } from '../../message/index.js';
import type { ParsedMessage, Run } from '../contract.js';
import { partsWithin } from './fields.js';

export type BodyTransform = { kind: 'raw' } | { kind: 'text' } | { kind: 'content'; types: readonly string[] };

/** Of all texts that one test looks at; what is behind them is not looked at. Fits into the steps that a run has. */
const maxSearchedBytes = 4_194_304;
/** Decoding costs what a few comparisons do. */
const decodedBytesPerStep = 50;

/** Texts by what was asked for, for the tests that follow. */
const decoded = new WeakMap<ParsedMessage, Map<string, string>>();

export function* bodyTexts(run: Run, message: ParsedMessage, transform: BodyTransform): Generator<string> {
  if (!hasBody(message)) return;
  const reader = new BodyReader(run, message);
  if (transform.kind === 'raw') {
    yield reader.raw(message.root.headerEnd, message.bytes.length);
    return;
  }
  for (const part of partsWithin(message.root)) {
    if (reader.isExhausted) return;
    if (transform.kind === 'text') {
      if (part.type === 'text' && !isAttachment(part)) yield reader.text(part);
    } else if (transform.types.some((type) => isOfType(part, type))) yield* reader.contents(part);
  }
}

/** RFC 5173 4: a header alone, without an empty line behind it, has no body. */
function hasBody({ bytes, root }: ParsedMessage): boolean {
  if (root.headerEnd < bytes.length) return true;
  const end = bytes.toString('latin1', Math.max(0, root.headerEnd - 4), root.headerEnd);
  return /(?:^|\n)\r?\n$/.test(end);
}

/** RFC 5173 5.2. */
function isOfType(part: Part, wanted: string): boolean {
  if (wanted === '') return true;
  const type = wanted.toLowerCase();
  return type.includes('/') ? type === `${part.type}/${part.subtype}` : type === part.type;
}

class BodyReader {
  #room = maxSearchedBytes;
  readonly #texts: Map<string, string>;

  constructor(
    private readonly run: Run,
    private readonly message: ParsedMessage,
  ) {
    this.#texts = decoded.get(message) ?? new Map();
    decoded.set(message, this.#texts);
  }

  get isExhausted(): boolean {
    return this.#room <= 0;
  }

  /** Bytes as they are, as text. */
  raw(start: number, end: number): string {
    return this.#made('raw', start, end, (stop) => decodeCharset(this.message.bytes.subarray(start, stop)));
  }

  /** What a reader would see of a text part. */
  text(part: Part): string {
    return this.#made('text', part.headerEnd, part.bodyEnd, (end) => {
      const text = decodeText(this.message.bytes, part, end - part.headerEnd);
      return part.subtype === 'html' ? htmlToText(text, text.length) : text;
    });
  }

  /** RFC 5173 5.2: prologue and epilogue of a multipart, the header of a message, all of anything else. */
  *contents(part: Part): Generator<string> {
    if (part.children && !part.opaque) yield* this.#around(part.headerEnd, part.bodyEnd, part.children);
    else if (part.message && !part.opaque) yield this.raw(part.message.structure.headerStart, part.message.structure.headerEnd);
    else yield this.#content(part);
  }

  #content(part: Part): string {
    return this.#made('content', part.headerEnd, part.bodyEnd, (end) => {
      if (part.type === 'text') return decodeText(this.message.bytes, part, end - part.headerEnd);
      return decodeCharset(decodeBody(this.message.bytes, { ...part, bodyEnd: end }));
    });
  }

  /** In front of the first delimiter, and behind the last one. */
  *#around(start: number, end: number, children: readonly Part[]): Generator<string> {
    yield this.raw(start, this.#lineStartBefore(children[0]!.headerStart, start));
    const last = children[children.length - 1]!.bodyEnd;
    // The delimiter's line begins behind the line end that belongs to it.
    const delimiter = this.message.bytes.indexOf('--', last);
    const epilogue = delimiter < 0 ? -1 : this.message.bytes.indexOf('\n', delimiter);
    if (epilogue >= 0 && epilogue + 1 < end) yield this.raw(epilogue + 1, end);
  }

  /** Start of the line in front of the one that begins at `at`. */
  #lineStartBefore(at: number, least: number): number {
    if (at - 2 < least) return least;
    return Math.max(least, this.message.bytes.lastIndexOf('\n', at - 2) + 1);
  }

  #made(kind: string, start: number, end: number, make: (end: number) => string): string {
    const stop = Math.min(end, start + this.#room);
    this.#room -= stop - start;
    const key = `${kind} ${start} ${stop}`;
    const known = this.#texts.get(key);
    if (known !== undefined) return known;
    this.run.spend(Math.ceil((stop - start) / decodedBytesPerStep));
    const text = make(stop);
    this.#texts.set(key, text);
    return text;
  }
}
