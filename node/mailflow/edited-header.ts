/** A client's header taken apart and put together again, as a script has edited it (RFC 5293): what was not touched stays byte for byte. */
import { type HeaderField, headerFields } from '../../protocols/message/index.js';
import type { RawField, SieveOutcome } from '../../protocols/sieve/index.js';

export interface ClientHeader {
  bytes: Buffer;
  /** As scripts see them. */
  fields: readonly RawField[];
  /** Where they are in `bytes`. */
  ranges: readonly HeaderField[];
}

type EditedFields = NonNullable<SieveOutcome['editedFields']>;

/** @param bytes without the empty line behind it. */
export function readHeader(bytes: Buffer): ClientHeader {
  const ranges = headerFields(bytes, { headerStart: 0, headerEnd: bytes.length });
  const fields = ranges.map(({ start, valueStart, end }) => ({
    name: bytes.toString('latin1', start, valueStart - 1).trimEnd(),
    value: bytes.toString('latin1', valueStart, end).replace(/\r?\n/g, '').trim(),
  }));
  return { bytes, fields, ranges };
}

/** The header's bytes after the edit. Lines that are no field stay where they were among the fields. */
export function writeHeader({ bytes, ranges }: ClientHeader, edited: EditedFields): Buffer {
  const pieces: Buffer[] = [];
  const put = (piece: Buffer) => {
    if (piece.length === 0) return;
    const last = pieces.at(-1);
    // The end of a message without a body need not be the end of a line.
    if (last && last.at(-1) !== lineFeed) pieces.push(lineEnd);
    pieces.push(piece);
  };
  let gaps = 0;
  /** What lies in front of the field of this number, and was not put yet. */
  const putGaps = (upTo: number) => {
    for (; gaps <= upTo; gaps++) put(bytes.subarray(ranges[gaps - 1]?.end ?? 0, ranges[gaps]?.start ?? bytes.length));
  };
  const last = edited.findLastIndex((one) => 'original' in one);
  for (const [place, one] of edited.entries()) {
    if ('added' in one) {
      put(Buffer.from(formatField(one.added), 'latin1'));
      continue;
    }
    putGaps(one.original);
    const { start, end } = ranges[one.original]!;
    put(bytes.subarray(start, end));
    // What is added behind all fields is behind all lines.
    if (place === last) putGaps(ranges.length);
  }
  putGaps(ranges.length);
  return Buffer.concat(pieces);
}

const lineFeed = 0x0a;
const lineEnd = Buffer.from('\r\n');

/** RFC 5322 2.1.1, without the line end: what lines should have, and what they must not exceed. */
const [foldCharacters, maxLineCharacters] = [78, 998];

/** One field with its line end, folded at its blanks. Line ends within the value would begin another field: they become blanks. */
export function formatField({ name, value }: RawField): string {
  const head = `${name}: `;
  // So many blanks in a row say nothing, and could fill a line.
  const text = value.replace(/[\r\n\0]+/g, ' ').replace(/[ \t]{100,}/g, ' ');
  let rest = head + text.trim();
  /** Where something other than blanks begins: a line must not be all blanks. */
  let start = head.length;
  let lines = '';
  while (rest.length > foldCharacters) {
    const before = rest.lastIndexOf(' ', foldCharacters);
    const at = before > start ? before : rest.indexOf(' ', start + 1);
    const isFolded = at > 0 && at <= maxLineCharacters;
    if (!isFolded && rest.length <= maxLineCharacters) break;
    // A word that no line could hold is cut.
    const end = isFolded ? at : maxLineCharacters;
    lines += `${rest.slice(0, end)}\r\n`;
    rest = isFolded ? rest.slice(end) : ` ${rest.slice(end)}`;
    start = rest.search(/[^ \t]/);
  }
  return `${lines}${rest}\r\n`;
}
