/**
 * Messages as multi-line responses (RFC 1939 section 3): lines end in CRLF, a leading dot is doubled, a line with one dot ends it all. The work is done by
 * native searches over whole chunks; most chunks go out as they are.
 */

const lineFeed = 0x0a;
const carriageReturn = 0x0d;
const dot = 0x2e;
/** A line feed without its carriage return: it would be a line end for some clients and none for others. */
const bareLineFeed = /(?<!\r)\n/;
const bareLineFeeds = /(?<!\r)\n/g;
const dotAtLineStart = Buffer.from('\n.');

export class DotStuffer {
  #previous = lineFeed;

  /** The chunk as it is to be sent: the very same one where there is nothing to change. */
  push(chunk: Buffer): Buffer {
    if (chunk.length === 0) return chunk;
    const previous = this.#previous;
    this.#previous = chunk[chunk.length - 1]!;
    const startsWithDot = previous === lineFeed && chunk[0] === dot;
    const latin1 = chunk.toString('latin1');
    // What stands in front decides whether the first byte is a bare line feed.
    const text = previous === carriageReturn ? `\r${latin1}` : latin1;
    const hasBare = bareLineFeed.test(text);
    if (!startsWithDot && !hasBare && !chunk.includes(dotAtLineStart)) return chunk;
    const whole = (hasBare ? text.replace(bareLineFeeds, '\r\n') : text).replaceAll('\n.', '\n..');
    const own = previous === carriageReturn ? whole.slice(1) : whole;
    return Buffer.from(startsWithDot ? `.${own}` : own, 'latin1');
  }

  /** The end of the response, with a line end for a message that has none. */
  end(): string {
    if (this.#previous === lineFeed) return '.\r\n';
    return this.#previous === carriageReturn ? '\n.\r\n' : '\r\n.\r\n';
  }
}

/** The header, the empty line, and so many lines of the body (TOP, RFC 1939 section 7). */
export class TopCut {
  #linesLeft: number;
  #isInHeader = true;
  /** Nothing but a carriage return has come of the present line. */
  #isEmptySoFar = true;
  /** Nothing more is wanted. */
  isDone = false;

  constructor(bodyLines: number) {
    this.#linesLeft = bodyLines;
  }

  /** As much of the chunk as belongs to the answer. */
  take(chunk: Buffer): Buffer {
    let at = 0;
    for (;;) {
      const end = chunk.indexOf(lineFeed, at);
      if (end < 0) {
        const isEmpty = at === chunk.length || (at === chunk.length - 1 && chunk[at] === carriageReturn);
        this.#isEmptySoFar = this.#isEmptySoFar && isEmpty;
        return chunk;
      }
      const isEmpty = this.#isEmptySoFar && (end === at || (end === at + 1 && chunk[at] === carriageReturn));
      at = end + 1;
      this.#isEmptySoFar = true;
      if (this.#isInHeader) this.#isInHeader = !isEmpty;
      else this.#linesLeft--;
      if (!this.#isInHeader && this.#linesLeft <= 0) {
        this.isDone = true;
        return chunk.subarray(0, at);
      }
    }
  }
}
