/**
 * Cuts a stream of bytes into commands: lines, joined by literals. Incremental and without I/O: bytes are pushed, events are pulled, and at
 * every literal the caller decides whether it is collected, streamed or refused. Nothing that comes in makes it throw.
 */
import type { GrammarLimits } from './limits.js';

export interface Literal {
  bytes: Buffer;
  /** literal8 (`~{n}`), which may contain NUL. */
  binary: boolean;
}

/** One complete command: text, literal, text, … text. There is always one text more than literals. */
export interface RawCommand {
  texts: string[];
  literals: Literal[];
}

export type ReaderFault = 'line-too-long' | 'literal-too-long' | 'bad-literal' | 'flood';

export type ReaderEvent =
  | { kind: 'command'; command: RawCommand }
  /** The client announces a literal; answer with `collect`, `stream` or `refuse`. */
  | { kind: 'literal'; sizeBytes: number; synchronising: boolean; binary: boolean; soFar: RawCommand }
  /** Bytes of a literal that is streamed; they belong to the taker. */
  | { kind: 'chunk'; bytes: Buffer }
  /** The streamed literal is complete; the command goes on. */
  | { kind: 'chunk-end' }
  /** The rest of a refused command is gone; the next event belongs to a new command. */
  | { kind: 'skipped' }
  /** A line asked for with `nextLine`, without its line end. */
  | { kind: 'line'; text: string }
  /** The command is lost; `tag` as far as it was readable. With `fatal` the position in the stream is lost too. */
  | { kind: 'fault'; fault: ReaderFault; tag: string; fatal: boolean };

type State = 'text' | 'asked' | 'collect' | 'stream' | 'skip' | 'dead';

const lineFeed = 0x0a;
const carriageReturn = 0x0d;
const literalMark = /(~?)\{([0-9]{1,20})(\+?)\}$/;
/** Longest literal mark: `~{` 20 digits `+}`. */
const literalMarkChars = 24;

export class CommandReader {
  readonly #limits: GrammarLimits;
  #chunks: Buffer[] = [];
  #offset = 0;
  #bufferedBytes = 0;
  #line: Buffer[] = [];
  #lineBytes = 0;
  /** The line is over its limit and only its end is looked for. */
  #overflown = false;
  #overflowBytes = 0;
  #state: State = 'text';
  #texts: string[] = [];
  #literals: Literal[] = [];
  #textBytes = 0;
  #literalBytes = 0;
  #refusing = false;
  #pending = { sizeBytes: 0, synchronising: false, binary: false };
  #remaining = 0;
  #collected: Buffer[] = [];

  constructor(limits: GrammarLimits) {
    this.#limits = limits;
  }

  /** Bytes pushed and not yet consumed. */
  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  /** Whether a command has begun and is not complete. */
  get isInsideCommand(): boolean {
    return this.#state !== 'text' || this.#texts.length > 0 || this.#lineBytes > 0;
  }

  /** The memory of `chunk` belongs to the reader from here on. */
  push(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#bufferedBytes += chunk.length;
  }

  /** A reader with other limits that goes on with the bytes this one has not consumed. Only between commands. */
  withLimits(limits: GrammarLimits): CommandReader {
    const reader = new CommandReader(limits);
    if (this.#lineBytes > 0) reader.push(Buffer.concat(this.#line, this.#lineBytes));
    for (const [at, chunk] of this.#chunks.entries()) reader.push(at === 0 ? chunk.subarray(this.#offset) : chunk);
    return reader;
  }

  /** Takes out what was pushed and not consumed: it is meant for somebody else (COMPRESS). Only between commands. */
  takeUnread(): Buffer[] {
    const line = Buffer.concat(this.#line, this.#lineBytes);
    const chunks = this.#chunks.map((chunk, at) => (at === 0 ? chunk.subarray(this.#offset) : chunk));
    this.reset();
    return [line, ...chunks].filter((chunk) => chunk.length > 0);
  }

  /** Forgets everything buffered and begun (STARTTLS: what came in plain text must not be taken for secure). */
  reset(): void {
    this.#chunks = [];
    this.#offset = 0;
    this.#bufferedBytes = 0;
    this.#line = [];
    this.#lineBytes = 0;
    this.#overflown = false;
    this.#state = 'text';
    this.#endCommand();
  }

  /** The next event, or undefined when more bytes are needed. */
  next(): ReaderEvent | undefined {
    for (;;) {
      switch (this.#state) {
        case 'dead':
        case 'asked':
          return undefined;
        case 'text': {
          const event = this.#readText();
          if (event !== 'again') return event;
          break;
        }
        case 'stream': {
          if (this.#remaining === 0) {
            this.#state = 'text';
            return { kind: 'chunk-end' };
          }
          const bytes = this.#take(this.#remaining);
          if (!bytes) return undefined;
          this.#remaining -= bytes.length;
          return { kind: 'chunk', bytes };
        }
        case 'collect':
        case 'skip': {
          while (this.#remaining > 0) {
            const bytes = this.#take(this.#remaining);
            if (!bytes) return undefined;
            this.#remaining -= bytes.length;
            if (this.#state === 'collect') this.#collected.push(bytes);
          }
          if (this.#state === 'collect') {
            const bytes = this.#collected.length === 1 ? this.#collected[0]! : Buffer.concat(this.#collected);
            this.#literals.push({ bytes, binary: this.#pending.binary });
            this.#collected = [];
          }
          this.#state = 'text';
          break;
        }
      }
    }
  }

  /** One line as it is, whatever it looks like (AUTHENTICATE, IDLE). Only between commands. */
  nextLine(): ReaderEvent | undefined {
    const line = this.#takeLine();
    if (line === undefined) return this.#overflowFault();
    if (line === 'too-long') return this.#fault('line-too-long');
    return { kind: 'line', text: line };
  }

  /** Takes the announced literal into memory as part of the command. */
  collect(): void {
    this.#literalBytes += this.#pending.sizeBytes;
    this.#remaining = this.#pending.sizeBytes;
    this.#state = 'collect';
  }

  /** Hands the announced literal out chunk by chunk. In the command it counts as an empty literal. */
  stream(): void {
    this.#remaining = this.#pending.sizeBytes;
    this.#literals.push({ bytes: Buffer.alloc(0), binary: this.#pending.binary });
    this.#state = 'stream';
  }

  /**
   * Gives the command up. True when it is over at once (the client waits for an answer, and does not send the literal); otherwise `skipped` comes when
   * the rest has been read and thrown away.
   */
  refuse(): boolean {
    if (this.#state === 'asked' && this.#pending.synchronising) {
      this.#endCommand();
      this.#state = 'text';
      return true;
    }
    this.#refusing = true;
    if (this.#state === 'asked') this.#remaining = this.#pending.sizeBytes;
    if (this.#state !== 'text') this.#state = 'skip';
    this.#collected = [];
    return false;
  }

  #readText(): ReaderEvent | undefined | 'again' {
    const line = this.#takeLine();
    if (line === undefined) return this.#overflowFault();
    if (line === 'too-long') {
      const wasRefusing = this.#refusing;
      const fault = this.#fault('line-too-long');
      return wasRefusing ? { kind: 'skipped' } : fault;
    }
    this.#textBytes += line.length;
    const mark = line.endsWith('}') ? literalMark.exec(line.slice(-literalMarkChars)) : null;
    if (!mark) {
      if (this.#refusing) {
        this.#endCommand();
        return { kind: 'skipped' };
      }
      this.#texts.push(line);
      const command = { texts: this.#texts, literals: this.#literals };
      this.#endCommand();
      return { kind: 'command', command };
    }
    return this.#announce(line.slice(0, line.length - mark[0].length), mark);
  }

  #announce(text: string, mark: RegExpExecArray): ReaderEvent | undefined | 'again' {
    const sizeBytes = Number(mark[2]);
    const synchronising = mark[3] === '';
    if (!this.#refusing) this.#texts.push(text);
    if (!Number.isSafeInteger(sizeBytes) || (!synchronising && sizeBytes > this.#limits.maxSkippedBytes)) {
      // What follows can't be told from commands any more, unless the client waits.
      const fatal = !synchronising;
      const tag = this.#tag();
      this.#endCommand();
      this.#state = fatal ? 'dead' : 'text';
      return { kind: 'fault', fault: 'bad-literal', tag, fatal };
    }
    this.#pending = { sizeBytes, synchronising, binary: mark[1] === '~' };
    if (this.#refusing) {
      if (synchronising) {
        this.#endCommand();
        return { kind: 'skipped' };
      }
      this.#remaining = sizeBytes;
      this.#state = 'skip';
      return 'again';
    }
    this.#state = 'asked';
    return {
      kind: 'literal',
      sizeBytes,
      synchronising,
      binary: mark[1] === '~',
      soFar: { texts: this.#texts, literals: this.#literals },
    };
  }

  /** Whether an announced literal can be collected within the limits. */
  fits(sizeBytes: number): boolean {
    return this.#literalBytes + sizeBytes <= this.#limits.maxLiteralBytes && this.#literals.length < this.#limits.maxArguments;
  }

  #tag(): string {
    return readTag(this.#texts[0] ?? '');
  }

  #fault(fault: ReaderFault): ReaderEvent {
    const tag = this.#tag();
    this.#endCommand();
    return { kind: 'fault', fault, tag, fatal: false };
  }

  #overflowFault(): ReaderEvent | undefined {
    if (!this.#overflown || this.#overflowBytes <= this.#limits.maxLineBytes * 16) return undefined;
    const tag = this.#tag();
    this.reset();
    this.#state = 'dead';
    return { kind: 'fault', fault: 'flood', tag, fatal: true };
  }

  #endCommand(): void {
    this.#texts = [];
    this.#literals = [];
    this.#textBytes = 0;
    this.#literalBytes = 0;
    this.#refusing = false;
    this.#collected = [];
    this.#remaining = 0;
  }

  /** Up to `maxBytes` of what is buffered, without copying. */
  #take(maxBytes: number): Buffer | undefined {
    const chunk = this.#chunks[0];
    if (!chunk) return undefined;
    const available = chunk.length - this.#offset;
    if (available <= maxBytes) {
      const taken = this.#offset === 0 ? chunk : chunk.subarray(this.#offset);
      this.#chunks.shift();
      this.#offset = 0;
      this.#bufferedBytes -= available;
      return taken;
    }
    const taken = chunk.subarray(this.#offset, this.#offset + maxBytes);
    this.#offset += maxBytes;
    this.#bufferedBytes -= maxBytes;
    return taken;
  }

  /** A line without its end (CRLF; a bare LF is tolerated), as latin1. Each byte is looked at once, however it is chunked. */
  #takeLine(): string | 'too-long' | undefined {
    for (;;) {
      const chunk = this.#chunks[0];
      if (!chunk) return undefined;
      const end = chunk.indexOf(lineFeed, this.#offset);
      const bytes = this.#take((end < 0 ? chunk.length : end + 1) - this.#offset)!;
      if (this.#overflown) this.#overflowBytes += bytes.length;
      else {
        this.#line.push(bytes);
        this.#lineBytes += bytes.length;
        if (this.#textBytes + this.#lineBytes > this.#limits.maxLineBytes + 2) this.#overflow();
      }
      if (end < 0) continue;
      if (this.#overflown) {
        this.#overflown = false;
        return 'too-long';
      }
      const line = this.#line.length === 1 ? this.#line[0]! : Buffer.concat(this.#line, this.#lineBytes);
      this.#line = [];
      this.#lineBytes = 0;
      const length = line.length > 1 && line[line.length - 2] === carriageReturn ? line.length - 2 : line.length - 1;
      return line.toString('latin1', 0, length);
    }
  }

  #overflow(): void {
    this.#overflown = true;
    this.#overflowBytes = this.#lineBytes;
    if (this.#texts.length === 0) this.#texts.push(Buffer.concat(this.#line, this.#lineBytes).toString('latin1', 0, 80));
    this.#line = [];
    this.#lineBytes = 0;
  }
}

/** The tag at the beginning of a line, or `*` when there is none that could be used in an answer. */
export function readTag(line: string): string {
  // RFC 9051 section 9: tag = 1*<any ASTRING-CHAR except "+">
  const match = /^[^\x00-\x20(){%*"\\+\x7f-\xff]{1,64}(?= |$)/.exec(line);
  return match ? match[0] : '*';
}
