/**
 * Content on its way out by DATA: a dot is doubled wherever a line begins in anybody's reading, that is after CRLF and also after a bare
 * CR or a bare LF, so that no peer, however lax, can find an end of data inside a message. Closes with CRLF.CRLF.
 */

const CR = 13;
const LF = 10;
const DOT = 46;
const oneDot = Buffer.from('.');

/** Pieces of one chunk; content with more dots at line beginnings is copied instead. */
const maxPieces = 16;

/** The octets from `from` on, whose first is no dot to double, in one new buffer: cheaper than thousands of small pieces. */
function stuffDense(chunk: Buffer, from: number): Buffer {
  const out = Buffer.allocUnsafe(2 * (chunk.length - from));
  let length = 0;
  let atLineStart = false;
  for (let at = from; at < chunk.length; at++) {
    const octet = chunk[at]!;
    if (octet === DOT && atLineStart) out[length++] = DOT;
    out[length++] = octet;
    atLineStart = octet === LF || octet === CR;
  }
  return out.subarray(0, length);
}

export class DotStuffer {
  /** The octet before the next one; LF at the beginning: a message starts a line. */
  #last = LF;
  #beforeLast = CR;

  /** The pieces to write for `chunk`: parts of it, and dots. Most often `chunk` itself and nothing else. */
  push(chunk: Buffer): Buffer[] {
    if (chunk.length === 0) return [];
    const pieces: Buffer[] = [];
    if (chunk[0] === DOT && (this.#last === LF || this.#last === CR)) pieces.push(oneDot);
    let from = 0;
    // Two native searches per chunk find nearly always nothing.
    let lfDot = chunk.indexOf('\n.', 0, 'latin1');
    let crDot = chunk.indexOf('\r.', 0, 'latin1');
    while (lfDot >= 0 || crDot >= 0) {
      if (pieces.length > maxPieces) break;
      const dot = 1 + (crDot < 0 || (lfDot >= 0 && lfDot < crDot) ? lfDot : crDot);
      pieces.push(chunk.subarray(from, dot), oneDot);
      from = dot;
      if (lfDot >= 0 && lfDot < dot) lfDot = chunk.indexOf('\n.', dot, 'latin1');
      if (crDot >= 0 && crDot < dot) crDot = chunk.indexOf('\r.', dot, 'latin1');
    }
    if (lfDot >= 0 || crDot >= 0) pieces.push(stuffDense(chunk, from));
    else pieces.push(from === 0 ? chunk : chunk.subarray(from));
    this.#beforeLast = chunk.length > 1 ? chunk[chunk.length - 2]! : this.#last;
    this.#last = chunk[chunk.length - 1]!;
    return pieces;
  }

  /** What ends the data: the CRLF that the content lacks, and dot CRLF. */
  end(): Buffer {
    return Buffer.from(this.#last === LF && this.#beforeLast === CR ? '.\r\n' : '\r\n.\r\n', 'latin1');
  }
}
