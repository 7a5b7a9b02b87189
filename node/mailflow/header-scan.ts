/** Watches a message's header go by: where it ends, how many Received fields it has, which fields it lacks. Nothing is changed. */

/** What was seen when the header was complete. */
export interface HeaderFacts {
  receivedFields: number;
  hasDate: boolean;
  hasMessageId: boolean;
  /** Value of the first Message-ID field, raw and unfolded, cut to what a name can be. */
  messageId?: string;
  /** Raw (latin1), unfolded values of all From fields. */
  from: string[];
  /** The first line is a continuation: it would become part of whatever is put in front. */
  startsFolded: boolean;
}

export type HeaderProgress = 'more' | 'complete' | 'too-large';

const crlfcrlf = Buffer.from('\r\n\r\n');
const interesting = /^(received|date|message-id|from)[ \t]*:/gim;

/** RFC 5322 2.1.1: the longest line. */
const maxMessageIdCharacters = 998;

/** Chunks that are shorter together are joined: a client that sends octet by octet must not cost a Buffer for each. */
const joinBytes = 4096;

/** Collects chunks until the empty line; the caller writes them on. */
export class HeaderScan {
  readonly chunks: Buffer[] = [];
  #bytes = 0;
  /** Bytes of the header without its empty line; known once complete. */
  #headerBytes = 0;

  constructor(readonly maxHeaderBytes: number) {}

  /** Takes the next chunk. After `complete` the chunks hold the header and what of the body came with it. */
  push(chunk: Buffer): HeaderProgress {
    const last = this.chunks.at(-1);
    const before = this.#bytes;
    this.chunks.push(chunk);
    this.#bytes += chunk.length;
    const end = this.#emptyLine(last, chunk, before);
    if (last && last.length + chunk.length <= joinBytes) this.chunks.splice(-2, 2, Buffer.concat([last, chunk]));
    if (end >= 0) {
      this.#headerBytes = end;
      return end > this.maxHeaderBytes ? 'too-large' : 'complete';
    }
    return this.#bytes > this.maxHeaderBytes ? 'too-large' : 'more';
  }

  /** The message ended without an empty line: all of it is header. */
  end(): void {
    this.#headerBytes = this.#bytes;
  }

  /** The header without its empty line. Only after `complete` or `end`. */
  header(): Buffer {
    const [first] = this.chunks;
    const whole = first && this.chunks.length === 1 ? first : Buffer.concat(this.chunks);
    return whole.subarray(0, this.#headerBytes);
  }

  /** Only after `complete` or `end`. */
  facts(): HeaderFacts {
    const text = this.header().toString('latin1');
    const facts: HeaderFacts = {
      receivedFields: 0,
      hasDate: false,
      hasMessageId: false,
      from: [],
      startsFolded: text.startsWith(' ') || text.startsWith('\t'),
    };
    for (const match of text.matchAll(interesting)) {
      switch (match[1]!.toLowerCase()) {
        case 'received':
          facts.receivedFields++;
          break;
        case 'date':
          facts.hasDate = true;
          break;
        case 'message-id':
          facts.hasMessageId = true;
          facts.messageId ??= unfoldedValue(text, match.index + match[0].length).slice(0, maxMessageIdCharacters);
          break;
        default:
          facts.from.push(unfoldedValue(text, match.index + match[0].length));
      }
    }
    return facts;
  }

  /** Offset of the header's end in the whole message when the empty line is complete with `chunk`, or -1. */
  #emptyLine(last: Buffer | undefined, chunk: Buffer, before: number): number {
    // A message that begins with its empty line has no header.
    if (before === 0 && chunk.length >= 2 && chunk[0] === 0x0d && chunk[1] === 0x0a) return 0;
    if (last && before < 4) return this.#shortStart();
    if (last) {
      // The empty line may lie across the edge: look at three bytes on either side.
      const tail = this.#tail(3);
      const seam = Buffer.concat([tail, chunk.subarray(0, 3)]);
      const across = seam.indexOf(crlfcrlf);
      if (across >= 0) return before - tail.length + across + 2;
    }
    const at = chunk.indexOf(crlfcrlf);
    return at < 0 ? -1 : before + at + 2;
  }

  /** The first chunks were tiny: look at them as one. */
  #shortStart(): number {
    const whole = Buffer.concat(this.chunks);
    if (whole.length >= 2 && whole[0] === 0x0d && whole[1] === 0x0a) return 0;
    const at = whole.indexOf(crlfcrlf);
    return at < 0 ? -1 : at + 2;
  }

  /** The last `count` bytes before the newest chunk. */
  #tail(count: number): Buffer {
    const pieces: Buffer[] = [];
    let missing = count;
    for (let i = this.chunks.length - 2; i >= 0 && missing > 0; i--) {
      const piece = this.chunks[i]!.subarray(Math.max(0, this.chunks[i]!.length - missing));
      pieces.unshift(piece);
      missing -= piece.length;
    }
    return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
  }
}

/** The value that begins at `start`, over its continuation lines, without line ends. */
function unfoldedValue(text: string, start: number): string {
  const rest = text.slice(start);
  const end = /\r?\n(?![ \t])/.exec(rest);
  return (end ? rest.slice(0, end.index) : rest).replace(/\r?\n/g, '').trim();
}
