/**
 * Patterns with `*` (any text) and `?` (one character). Each star takes as little as it can, the last one what is left; no backtracking: at most
 * length of text × length of pattern comparisons.
 */

export interface Glob {
  /** The whole text, then what each `*` and `?` stood for, from left to right; undefined when the text doesn't match. */
  match(text: string): string[] | undefined;
}

export function compileGlob(pattern: string, ignoresCase = false): Glob {
  const segments = (ignoresCase ? pattern.toLowerCase() : pattern).split('*');
  return {
    match(original) {
      const lower = ignoresCase ? original.toLowerCase() : original;
      // Where lowering changes the length (İ), captures come from the lowered text: offsets must fit.
      const shown = lower.length === original.length ? original : lower;
      const ranges = matchSegments(segments, lower);
      return ranges && [original, ...ranges.map(([from, to]) => shown.slice(from, to))];
    },
  };
}

type Range = [from: number, to: number];

function matchSegments(segments: readonly string[], text: string): Range[] | undefined {
  const ranges: Range[] = [];
  const first = segments[0]!;
  if (segments.length === 1) {
    if (text.length !== first.length || !matchesAt(first, text, 0)) return undefined;
    pushMarks(first, 0, ranges);
    return ranges;
  }
  if (!matchesAt(first, text, 0)) return undefined;
  pushMarks(first, 0, ranges);
  let position = first.length;
  for (const segment of segments.slice(1, -1)) {
    const found = find(segment, text, position);
    if (found < 0) return undefined;
    ranges.push([position, found]);
    pushMarks(segment, found, ranges);
    position = found + segment.length;
  }
  const last = segments.at(-1)!;
  const end = text.length - last.length;
  if (end < position || !matchesAt(last, text, end)) return undefined;
  ranges.push([position, end]);
  pushMarks(last, end, ranges);
  return ranges;
}

function find(segment: string, text: string, from: number): number {
  if (!segment.includes('?')) return text.indexOf(segment, from);
  for (let at = from; at + segment.length <= text.length; at++) if (matchesAt(segment, text, at)) return at;
  return -1;
}

function matchesAt(segment: string, text: string, at: number): boolean {
  if (!segment.includes('?')) return text.startsWith(segment, at);
  if (at + segment.length > text.length) return false;
  for (let i = 0; i < segment.length; i++) if (segment[i] !== '?' && segment[i] !== text[at + i]) return false;
  return true;
}

function pushMarks(segment: string, at: number, ranges: Range[]): void {
  for (let i = segment.indexOf('?'); i >= 0; i = segment.indexOf('?', i + 1)) ranges.push([at + i, at + i + 1]);
}
