/**
 * `:matches` (RFC 5228 2.7.1): `*` takes any row of characters, `?` one, a backslash makes the next character stand for itself. Each piece
 * between two stars is put at the first place where it fits, the last one at the end: that is the shortest for every star from left to right
 * (RFC 5229 3.2), and no place is looked at twice.
 */
import type { Comparator } from './comparators.js';
import { any, pieceOf, textSearch } from './search.js';
import { unicodeCasemapCodePoints } from './unicode-casemap.js';

/** How many texts a match gives to `${0}` … at most; the others are empty. */
export const maxCaptures = 100;

/** What a key says: pieces between stars, each a row of characters; `any` is told by `undefined`. */
type Pieces = readonly (readonly (string | undefined)[])[];

export interface Wildcard {
  /** Work for one character of the text, in characters compared; at least 1. */
  readonly cost: number;
  /** The whole text and what each wildcard took, in their order; undefined: the text does not match. */
  match(text: string): string[] | undefined;
}

/** Any key is a pattern. */
export function compileWildcard(key: string, comparator: Comparator): Wildcard {
  const pieces = piecesOf(key);
  const hasMarks = pieces.some((piece) => piece.includes(undefined));
  if (!hasMarks && comparator.character === 'octet') return textWildcard(pieces, comparator);
  return unitWildcard(pieces, comparator);
}

function piecesOf(key: string): Pieces {
  const pieces: (string | undefined)[][] = [[]];
  const characters = [...key];
  for (let i = 0; i < characters.length; i++) {
    const character = characters[i]!;
    const last = pieces[pieces.length - 1]!;
    if (character === '*') pieces.push([]);
    else if (character === '?') last.push(undefined);
    else last.push(character === '\\' ? (characters[++i] ?? '\\') : character);
  }
  // `**` takes what `*` does, the second one nothing: the pieces between them are empty.
  return pieces;
}

interface Placed {
  length: number;
  wildcards: readonly number[];
}

/** What the wildcards took, from the places of the pieces. `slice` takes places in units. */
function capturesOf(
  text: string,
  pieces: readonly Placed[],
  starts: readonly number[],
  slice: (from: number, to: number) => string,
): string[] {
  const captures = [text];
  for (let i = 0; i < pieces.length; i++) {
    const start = starts[i]!;
    if (i > 0) captures.push(slice(starts[i - 1]! + pieces[i - 1]!.length, start));
    for (const wildcard of pieces[i]!.wildcards) {
      if (captures.length >= maxCaptures) break;
      captures.push(slice(start + wildcard, start + wildcard + 1));
    }
    if (captures.length >= maxCaptures) break;
  }
  return captures;
}

/** Where the pieces stand in a text of `length` units. */
function placesOf(
  pieces: readonly { length: number }[],
  length: number,
  isAt: (piece: number, at: number) => boolean,
  find: (piece: number, from: number, end: number) => number,
): number[] | undefined {
  const last = pieces.length - 1;
  const first = pieces[0]!;
  if (last === 0) return first.length === length && isAt(0, 0) ? [0] : undefined;
  const tail = length - pieces[last]!.length;
  if (tail < first.length || !isAt(0, 0) || !isAt(last, tail)) return undefined;
  const places = [0];
  let at = first.length;
  for (let i = 1; i < last; i++) {
    const place = find(i, at, tail);
    if (place < 0) return undefined;
    places.push(place);
    at = place + pieces[i]!.length;
  }
  places.push(tail);
  return places;
}

/** Without `?`, octets are never split: the engine's own search does it, on strings. */
function textWildcard(pieces: Pieces, comparator: Comparator): Wildcard {
  const texts = pieces.map((piece) => comparator.keyOf(piece.join('')));
  const searches = texts.map((text) => textSearch(text));
  const placed = texts.map((text) => ({ length: text.length, wildcards: [] }));
  return {
    cost: comparator.keyCost,
    match(text) {
      const key = comparator.keyOf(text);
      const places = placesOf(
        placed,
        key.length,
        (piece, at) => key.startsWith(texts[piece]!, at),
        (piece, from, end) => {
          const place = searches[piece]!(key, from);
          return place >= 0 && place + texts[piece]!.length <= end ? place : -1;
        },
      );
      return places && capturesOf(text, placed, places, (from, to) => text.slice(from, to));
    },
  };
}

/** With `?`: units are octets of UTF-8, or what i;unicode-casemap takes for characters. */
function unitWildcard(pieces: Pieces, comparator: Comparator): Wildcard {
  const placed = pieces.map((piece) => pieceOf(unitsOf(piece, comparator)));
  return {
    // Two copies as numbers go before the search.
    cost: 2 * comparator.keyCost + Math.max(...placed.map(({ cost }) => cost)),
    match(text) {
      const { units, slice } = comparator.character === 'octet' ? octetsOf(text, comparator) : codePointsOf(text);
      const places = placesOf(
        placed,
        units.length,
        (piece, at) => placed[piece]!.isAt(units, at),
        (piece, from, end) => placed[piece]!.find(units, from, end),
      );
      return places && capturesOf(text, placed, places, slice);
    },
  };
}

function unitsOf(piece: Pieces[number], comparator: Comparator): number[] {
  const units: number[] = [];
  let row = '';
  // Whole rows: a mark belongs to the character in front of it.
  const endRow = () => {
    if (row !== '') for (const unit of keyUnits(row, comparator)) units.push(unit);
    row = '';
  };
  for (const character of piece) {
    if (character !== undefined) {
      row += character;
      continue;
    }
    endRow();
    units.push(any);
  }
  endRow();
  return units;
}

function keyUnits(text: string, comparator: Comparator): Iterable<number> {
  return comparator.character === 'octet'
    ? Buffer.from(comparator.keyOf(text), 'utf8')
    : unicodeCasemapCodePoints(text).codePoints;
}

interface Units {
  units: Uint32Array;
  slice: (from: number, to: number) => string;
}

/** Half of a character that `?` took is told as U+FFFD: texts hold whole characters. */
function octetsOf(text: string, comparator: Comparator): Units {
  const octets = Buffer.from(text, 'utf8');
  return {
    units: Uint32Array.from(Buffer.from(comparator.keyOf(text), 'utf8')),
    slice: (from, to) => octets.toString('utf8', from, to),
  };
}

function codePointsOf(text: string): Units {
  const { codePoints, starts } = unicodeCasemapCodePoints(text);
  return { units: codePoints, slice: (from, to) => text.slice(starts[from], starts[to]) };
}
