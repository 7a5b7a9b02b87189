/** Replies (RFC 5321 4.2, enhanced codes of RFC 2034 and 3463): built by servers, read incrementally, with limits, by clients. */

/** One reply, of one or several lines. */
export interface Reply {
  /** Three digits, 200 to 599. */
  code: number;
  /** Such as `5.1.1`, without brackets. Left out for greetings, EHLO and 3xx. */
  enhanced?: string;
  /** One sentence, or one per line. CR, LF and other control characters are replaced by spaces when it is built. */
  text: string | readonly string[];
  /** Servers: close the connection after this reply. A code of 421 closes always. */
  close?: boolean;
}

/** A sentence per line stays below RFC 5321 4.5.3.1.5's 512 octets, code and CRLF included. */
const maxTextBytes = 490;
/** No UTF-16 unit takes more octets of UTF-8: a text this short needs no counting. */
const maxUnitBytes = 3;
const unprintable = /[\x00-\x08\x0a-\x1f\x7f]+/g;
const enhancedForm = /^[245]\.[0-9]{1,3}\.[0-9]{1,3}$/;

function cleanText(text: string): string {
  return (text.length * maxUnitBytes > maxTextBytes ? cutText(text) : text).replace(unprintable, ' ');
}

/** As much of the text as fits; no character is cut in two. */
function cutText(text: string): string {
  const octets = Buffer.from(text.slice(0, maxTextBytes), 'utf8');
  if (octets.length <= maxTextBytes) return octets.toString('utf8');
  let end = maxTextBytes;
  while ((octets[end]! & 0xc0) === 0x80) end--;
  return octets.toString('utf8', 0, end);
}

/** The reply's bytes as text (UTF-8 when written), every line ending in CRLF. The enhanced code is repeated on every line (RFC 2034 4); what is none is left out. */
export function formatReply(reply: Reply): string {
  const { enhanced } = reply;
  // It may come from settings or a remote filter: whatever is in it must not begin a line.
  const prefix = enhanced !== undefined && enhancedForm.test(enhanced) ? `${enhanced} ` : '';
  if (typeof reply.text === 'string') return `${reply.code} ${prefix}${cleanText(reply.text)}\r\n`;
  const lines = reply.text.length === 0 ? [''] : reply.text;
  let out = '';
  for (let i = 0; i < lines.length; i++) {
    out += `${reply.code}${i === lines.length - 1 ? ' ' : '-'}${prefix}${cleanText(lines[i]!)}\r\n`;
  }
  return out;
}

/** Shorthand for a reply with an enhanced code. */
export function reply(code: number, enhanced: string, text: string | readonly string[], close = false): Reply {
  return close ? { code, enhanced, text, close } : { code, enhanced, text };
}

/** A reply as a client has read it. */
export interface ParsedReply {
  code: number;
  /** The enhanced code of the last line that had one which fits the code's class. */
  enhanced?: string;
  /** Lines without code and enhanced code. */
  lines: string[];
}

export interface ReplyLimits {
  /** Octets of one line without CRLF. RFC 5321 says 512; real servers exceed it. */
  maxLineBytes: number;
  maxLines: number;
}

export const defaultReplyLimits: ReplyLimits = { maxLineBytes: 4096, maxLines: 128 };

/** The peer's reply breaks the grammar or a limit: the connection is of no more use. */
export class ReplySyntaxError extends Error {
  override name = 'ReplySyntaxError';
}

const replyLine = /^([2-5][0-9]{2})(?:([ -])(.*))?$/s;
const enhancedCode = /^([245])\.([0-9]{1,3})\.([0-9]{1,3})(?: +|$)/;

/** Reads replies out of arbitrary chunks. A line ends with LF; a CR before it is dropped (old servers send bare LF). */
export class ReplyReader {
  readonly #limits: ReplyLimits;
  #rest: Buffer | undefined;
  #lines: string[] = [];
  #code = 0;
  #enhanced: string | undefined;

  constructor(limits: ReplyLimits = defaultReplyLimits) {
    this.#limits = limits;
  }

  /** True when part of a reply has arrived, but not its end. */
  get partial(): boolean {
    return this.#rest !== undefined || this.#lines.length > 0;
  }

  /** Complete replies in `chunk` (with what was kept of earlier ones). Throws `ReplySyntaxError`. */
  push(chunk: Buffer): ParsedReply[] {
    let buffer = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#rest = undefined;
    const replies: ParsedReply[] = [];
    let position = 0;
    for (;;) {
      const lf = buffer.indexOf(10, position);
      if (lf < 0) break;
      const end = lf > position && buffer[lf - 1] === 13 ? lf - 1 : lf;
      if (end - position > this.#limits.maxLineBytes) throw new ReplySyntaxError('a reply line is too long');
      const done = this.#line(buffer.toString('utf8', position, end));
      if (done) replies.push(done);
      position = lf + 1;
    }
    buffer = buffer.subarray(position);
    if (buffer.length > this.#limits.maxLineBytes + 1) throw new ReplySyntaxError('a reply line is too long');
    if (buffer.length > 0) this.#rest = Buffer.from(buffer);
    return replies;
  }

  #line(line: string): ParsedReply | undefined {
    const match = replyLine.exec(line);
    if (!match) throw new ReplySyntaxError(`not an SMTP reply: ${JSON.stringify(line.slice(0, 100))}`);
    const code = Number(match[1]);
    // RFC 5321 4.2.1: all lines carry the same code; where a server disagrees with itself, the last line decides.
    this.#code = code;
    let text = match[3] ?? '';
    const enhanced = enhancedCode.exec(text);
    if (enhanced && Number(enhanced[1]) === Math.floor(code / 100)) {
      this.#enhanced = `${enhanced[1]}.${Number(enhanced[2])}.${Number(enhanced[3])}`;
      text = text.slice(enhanced[0].length);
    }
    this.#lines.push(text);
    if (this.#lines.length > this.#limits.maxLines) throw new ReplySyntaxError('a reply has too many lines');
    if (match[2] === '-') return undefined;
    const done: ParsedReply = { code: this.#code, lines: this.#lines };
    if (this.#enhanced !== undefined) done.enhanced = this.#enhanced;
    this.#lines = [];
    this.#enhanced = undefined;
    return done;
  }
}
