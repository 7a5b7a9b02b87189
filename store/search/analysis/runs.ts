/**
 * Divides texts into runs for substring search. What a run is depends on its own characters and its neighbours' kinds alone, so whatever
 * `queryRuns` demands is there in every text that contains the query.
 */
import { clusterCharacter, endOfKind, isHighSurrogate, isLowSurrogate, kindAt, separator } from './characters.js';
import { runLimits } from './contract.js';

const { maxRunChars, maxContainedChars } = runLimits;

/**
 * The runs of a folded text, each once, added to `into`:
 * - stretches of letters, marks and digits. Longer than `maxRunChars` (encoded data, mostly) they are given in overlapping pieces: all begin a step
 *   apart, and the last one ends where the stretch ends;
 * - of scripts without spaces, and of pictographs, all pairs of neighbours and the last one alone, so that each character begins a run.
 */
export function splitRuns(folded: string, into: Set<string> = new Set()): Set<string> {
  // The engine's own search for stretches takes half the time of any loop here.
  const isAscii = !outsideAscii.test(folded);
  for (const stretch of folded.match(maybeRuns) ?? []) {
    if (!isAscii && outsideAscii.test(stretch)) splitMixed(stretch, into);
    else if (stretch.length <= maxRunChars) into.add(stretch);
    else addPieces(stretch, 0, stretch.length, into);
  }
  return into;
}

const outsideAscii = /[^\x00-\x7f]/;
/** Between ASCII characters that separate. */
const maybeRuns = /[0-9A-Za-z\x80-\uffff]+/g;

function splitMixed(stretch: string, into: Set<string>): void {
  eachStretch(stretch, (kind, from, end) => {
    if (kind === clusterCharacter) addPairs(stretch, from, end, into);
    else if (end - from <= maxRunChars) into.add(stretch.slice(from, end));
    else addPieces(stretch, from, end, into);
  });
}

/** Calls `onStretch` for each stretch of one kind other than separators. */
export function eachStretch(folded: string, onStretch: (kind: number, from: number, end: number) => void): void {
  let at = 0;
  while (at < folded.length) {
    const kind = kindAt(folded, at);
    const end = endOfKind(folded, at, kind);
    // A lone surrogate in front of a character that is none separates, too: each step goes on by one at least.
    if (kind !== separator) onStretch(kind, at, end);
    at = Math.max(end, at + 1);
  }
}

/** The pieces of a stretch that is too long for one run. Half a character at an end of one is replaced: as UTF-8 all halves are one and the same. */
export function addPieces(folded: string, from: number, end: number, into: Set<string>): void {
  const step = maxRunChars - maxContainedChars;
  for (let at = from; at + maxRunChars < end; at += step) into.add(wholePiece(folded, at, at + maxRunChars));
  into.add(wholePiece(folded, end - maxRunChars, end));
}

const replacement = '\ufffd';

/** [from, end) of a text, half a character at either end replaced. */
export function wholePiece(text: string, from: number, end: number): string {
  const isCutLeft = isLowSurrogate(text.charCodeAt(from));
  const isCutRight = isHighSurrogate(text.charCodeAt(end - 1));
  if (!isCutLeft && !isCutRight) return text.slice(from, end);
  const whole = text.slice(isCutLeft ? from + 1 : from, isCutRight ? end - 1 : end);
  return `${isCutLeft ? replacement : ''}${whole}${isCutRight ? replacement : ''}`;
}

/** Pairs of neighbours, and the last character alone. */
export function addPairs(folded: string, from: number, end: number, into: Set<string>): void {
  let at = from;
  let next = behind(folded, at);
  while (next < end) {
    const last = behind(folded, next);
    into.add(folded.slice(at, last));
    at = next;
    next = last;
  }
  into.add(folded.slice(at, end));
}

/** Index behind the character at `at`. */
export function behind(text: string, at: number): number {
  return isHighSurrogate(text.charCodeAt(at)) ? at + 2 : at + 1;
}
