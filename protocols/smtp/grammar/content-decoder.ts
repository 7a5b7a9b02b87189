/**
 * The content of DATA and BDAT as a stream: finds the end of data, takes the dots out, watches the line ends. The only end of DATA is
 * CRLF.CRLF (RFC 5321 4.1.1.4); a bare CR or LF is never part of one, whatever stands around it and however the bytes were cut into
 * chunks (SMTP smuggling).
 */

const CR = 13;
const LF = 10;
const DOT = 46;

/** What was seen last. `line`: a CRLF, or the very beginning. `dot`: CRLF and a dot. `dotCr`: CRLF, a dot and a CR that is held back. */
type Position = 'text' | 'cr' | 'line' | 'dot' | 'dotCr';

export interface ContentRules {
  /** What a bare CR or LF does: the content is refused, or it becomes CRLF, or (BINARYMIME) it is nobody's business. */
  bareLineEnds: 'refuse' | 'normalise' | 'allow';
  nul: 'refuse' | 'allow';
}

/** State and outcome shared by both framings. */
abstract class ContentDecoder {
  /** The content of the last `push`, possibly a part of its chunk, which was modified in place; undefined when there is none. */
  content: Buffer | undefined;
  /** A bare CR or LF was seen. With `refuse`, no content comes any more. */
  bareLineEnd = false;
  /** A NUL was seen and is refused: no content comes any more. */
  nul = false;

  protected position: Position = 'line';

  constructor(protected readonly rules: ContentRules) {}

  /** True when the content must be refused. */
  get refused(): boolean {
    return this.nul || (this.bareLineEnd && this.rules.bareLineEnds !== 'normalise');
  }

  /** True when content was changed to repair its line ends. */
  get normalised(): boolean {
    return this.bareLineEnd && this.rules.bareLineEnds === 'normalise';
  }

  protected checkNul(chunk: Buffer, start: number, end: number): void {
    if (this.nul || this.rules.nul === 'allow') return;
    const at = chunk.indexOf(0, start);
    if (at >= 0 && at < end) this.nul = true;
  }

  /**
   * Moves from `text` past the next LF or to `end`. Both searches are native, and linear: as long as no bare CR or LF was seen, they
   * meet at the same place; afterwards only LF is searched.
   */
  protected skipText(chunk: Buffer, from: number, end: number): number {
    const lf = chunk.indexOf(LF, from);
    if (lf < 0 || lf >= end) {
      if (!this.bareLineEnd) {
        const cr = chunk.indexOf(CR, from);
        if (cr >= 0 && cr < end - 1) this.bareLineEnd = true;
      }
      this.position = chunk[end - 1] === CR ? 'cr' : 'text';
      return end;
    }
    const paired = lf > from && chunk[lf - 1] === CR;
    if (!this.bareLineEnd && (!paired || chunk.indexOf(CR, from) !== lf - 1)) this.bareLineEnd = true;
    this.position = paired ? 'line' : 'text';
    return lf + 1;
  }
}

/**
 * Decodes what follows a 354. `allow` is taken as `refuse`: where a CR or LF may be anything, a dot can't be a frame (RFC 3030 3).
 */
export class DataDecoder extends ContentDecoder {
  /** The end of data has been found. */
  ended = false;

  /** Takes `chunk` from `start` on; returns the index after the last octet that belongs to the message and its end. */
  push(chunk: Buffer, start = 0): number {
    this.content = undefined;
    if (this.ended || start >= chunk.length) return start;
    return this.rules.bareLineEnds === 'normalise' ? this.#pushNormalising(chunk, start) : this.#pushInPlace(chunk, start);
  }

  /** Closes the gaps that dots leave by moving runs of content to the left: one piece of content per chunk, no copy without dots. */
  #pushInPlace(chunk: Buffer, start: number): number {
    const end = chunk.length;
    let at = start;
    let written = start;
    let runStart = start;
    const closeRun = (runEnd: number) => {
      if (written !== runStart && runEnd > runStart) chunk.copyWithin(written, runStart, runEnd);
      written += Math.max(0, runEnd - runStart);
    };
    while (at < end && !this.ended) {
      if (this.position === 'text') {
        at = this.skipText(chunk, at, end);
        continue;
      }
      const octet = chunk[at]!;
      switch (this.position) {
        case 'line':
          if (octet === DOT) {
            closeRun(at);
            at++;
            runStart = at;
            this.position = 'dot';
          } else this.position = 'text';
          break;
        case 'dot':
          if (octet === CR) {
            at++;
            this.position = 'dotCr';
          } else this.position = 'text';
          break;
        case 'dotCr':
          if (octet === LF) {
            at++;
            this.ended = true;
          } else {
            this.bareLineEnd = true;
            this.position = 'text';
          }
          break;
        case 'cr':
          if (octet === LF) {
            at++;
            this.position = 'line';
          } else {
            this.bareLineEnd = true;
            this.position = 'text';
          }
          break;
      }
    }
    // A CR (and LF) after the dot is not content as long as it may be the end; if it is not, it was a bare CR and all is refused.
    if (!this.ended && this.position !== 'dotCr') closeRun(at);
    this.checkNul(chunk, start, at);
    if (written > start && !this.refused) this.content = chunk.subarray(start, written);
    return at;
  }

  /** Octet by octet: only used where the operator chose to repair line ends. */
  #pushNormalising(chunk: Buffer, start: number): number {
    const end = chunk.length;
    const out = Buffer.allocUnsafe(2 * (end - start) + 2);
    let length = 0;
    let at = start;
    const lineEnd = () => {
      out[length++] = CR;
      out[length++] = LF;
    };
    const bare = () => {
      this.bareLineEnd = true;
      lineEnd();
    };
    for (; at < end && !this.ended; at++) {
      const octet = chunk[at]!;
      const before = this.position;
      if (octet === LF) {
        if (before === 'dotCr') this.ended = true;
        else if (before === 'cr') lineEnd();
        else bare();
        this.position = before === 'cr' ? 'line' : 'text';
        continue;
      }
      if (before === 'cr' || before === 'dotCr') bare();
      if (octet === CR) this.position = before === 'dot' ? 'dotCr' : 'cr';
      else if (octet === DOT && before === 'line') this.position = 'dot';
      else {
        out[length++] = octet;
        this.position = 'text';
      }
    }
    this.checkNul(chunk, start, at);
    if (length > 0 && !this.refused) this.content = out.subarray(0, length);
    return at;
  }
}

/** Watches the octets of BDAT chunks (RFC 3030), which are framed by their length: no dots, no end to find. */
export class ChunkDecoder extends ContentDecoder {
  /** Takes the octets of `chunk` in [start, end). */
  push(chunk: Buffer, start: number, end: number): void {
    this.content = undefined;
    if (start >= end) return;
    const { bareLineEnds } = this.rules;
    this.checkNul(chunk, start, end);
    if (bareLineEnds === 'normalise') this.#normalise(chunk, start, end);
    else {
      if (bareLineEnds === 'refuse') this.#watch(chunk, start, end);
      if (!this.refused) this.content = start === 0 && end === chunk.length ? chunk : chunk.subarray(start, end);
    }
  }

  /** After the last chunk: what was held back, and whether the content ended on a bare CR. */
  finish(): Buffer | undefined {
    if (this.rules.bareLineEnds === 'allow' || this.position !== 'cr') return undefined;
    this.bareLineEnd = true;
    this.position = 'text';
    return this.rules.bareLineEnds === 'normalise' && !this.refused ? Buffer.from('\r\n') : undefined;
  }

  #watch(chunk: Buffer, start: number, end: number): void {
    let at = start;
    while (at < end && !this.bareLineEnd) {
      if (this.position === 'cr') {
        if (chunk[at] === LF) at++;
        else this.bareLineEnd = true;
      }
      this.position = 'text';
      if (at < end) at = this.skipText(chunk, at, end);
    }
  }

  #normalise(chunk: Buffer, start: number, end: number): void {
    const out = Buffer.allocUnsafe(2 * (end - start) + 2);
    let length = 0;
    for (let at = start; at < end; at++) {
      const octet = chunk[at]!;
      const heldCr = this.position === 'cr';
      this.position = octet === CR ? 'cr' : 'text';
      if (octet === LF || heldCr) {
        if (octet !== LF || !heldCr) this.bareLineEnd = true;
        out[length++] = CR;
        out[length++] = LF;
      }
      if (octet !== LF && octet !== CR) out[length++] = octet;
    }
    if (length > 0 && !this.refused) this.content = out.subarray(0, length);
  }
}
