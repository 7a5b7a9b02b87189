/**
 * i;unicode-casemap (RFC 5051): texts are equal, and ordered, as the UTF-8 of their title case, decomposed. RFC 5256 section 7 asks for it in SORT and THREAD.
 */

/** Letters whose title case is neither themselves nor their upper case: digraphs. Their decomposition makes the rest. */
const titleCased = new Map<number, string>();
for (const [from, to, title] of [
  [0x1c4, 0x1c6, 0x1c5],
  [0x1c7, 0x1c9, 0x1c8],
  [0x1ca, 0x1cc, 0x1cb],
  [0x1f1, 0x1f3, 0x1f2],
] as const) {
  for (let code = from; code <= to; code++) titleCased.set(code, String.fromCodePoint(title));
}
// Greek with iota below: the simple mapping is the capital letter with the iota beside it.
for (const first of [0x1f80, 0x1f90, 0x1fa0])
  for (let i = 0; i < 8; i++) titleCased.set(first + i, String.fromCodePoint(first + i + 8));
for (const [code, title] of [
  [0x1fb3, 0x1fbc],
  [0x1fc3, 0x1fcc],
  [0x1ff3, 0x1ffc],
] as const)
  titleCased.set(code, String.fromCodePoint(title));

const firstGeorgian = 0x10d0;
const lastGeorgian = 0x10ff;

function titleCase(char: string): string {
  const code = char.codePointAt(0)!;
  const special = titleCased.get(code);
  if (special !== undefined) return special;
  // Georgian letters have capitals, but no title case.
  if (code >= firstGeorgian && code <= lastGeorgian) return char;
  const upper = char.toUpperCase();
  // Only simple mappings: where the upper case is several characters (ß), the letter stays.
  return upper.length <= 2 && String.fromCodePoint(upper.codePointAt(0)!) === upper ? upper : char;
}

/** The text as it is compared; apply `Buffer.compare` to its UTF-8 for the order. */
export function casemap(text: string): string {
  if (!/[^\x00-\x7f]/.test(text)) return text.toUpperCase();
  return text.replace(/[a-z]+|[^\x00-\x7f]/gu, titleOf).normalize('NFKD');
}

function titleOf(piece: string): string {
  return piece.charCodeAt(0) < 0x80 ? piece.toUpperCase() : titleCase(piece);
}
