/**
 * i;unicode-casemap (RFC 5051 2): every character is put into title case by its simple mapping, then decomposed (canonical and compatibility).
 */

const beyondAscii = /[^\x00-\x7f]/;

/** The text as it is compared. Parts of it are those of its characters, in order. */
export function unicodeCasemapKey(text: string): string {
  if (!beyondAscii.test(text)) return text.toUpperCase();
  let key = '';
  for (const character of text) key += decomposed(character);
  return key;
}

function decomposed(character: string): string {
  const code = character.codePointAt(0)!;
  if (code < 0x80) return character.toUpperCase();
  return titleCase(character, code).normalize('NFKD');
}

/** Simple title case. JavaScript has the full upper case only, so the characters for which the two differ are named here. */
function titleCase(character: string, code: number): string {
  // Digraphs have a title case of their own.
  if (code >= 0x1c4 && code <= 0x1cc) return code <= 0x1c6 ? '\u01c5' : code <= 0x1c9 ? '\u01c8' : '\u01cb';
  if (code >= 0x1f1 && code <= 0x1f3) return '\u01f2';
  // Georgian letters are their own title case.
  if (code >= 0x10d0 && code <= 0x10ff) return character;
  if (code >= 0x1f80 && code <= 0x1ffc) return greekTitleCase(character, code);
  const upper = character.toUpperCase();
  // What becomes several characters (ß, ﬁ) has no simple mapping.
  return upper.length === character.length ? upper : character;
}

/** Letters with iota subscript: upper case takes two characters, title case keeps one. */
function greekTitleCase(character: string, code: number): string {
  if (code < 0x1fb0) return (code & 0x8) === 0 ? String.fromCharCode(code + 8) : character;
  if (code === 0x1fb3 || code === 0x1fc3 || code === 0x1ff3) return String.fromCharCode(code + 9);
  const upper = character.toUpperCase();
  return upper.length === 1 ? upper : character;
}

/** A text that is compared, and where each of its code points came from. */
export interface MappedText {
  codePoints: Uint32Array;
  /** Index into the text, in UTF-16 units, at which the character begins that a code point stands for; one more for the end. */
  starts: Uint32Array;
}

/** A base character with the marks on it; putting marks in order takes the square of their number, so there is an end to them. */
const cluster = /\P{M}?\p{M}{0,30}/suy;

/**
 * The key as code points, composed again per base character and its marks, so that `?` stands for é however it was written.
 * Texts that are equal stay equal.
 */
export function unicodeCasemapCodePoints(text: string): MappedText {
  if (!beyondAscii.test(text)) {
    return {
      codePoints: Uint32Array.from(Buffer.from(text.toUpperCase(), 'latin1')),
      starts: Uint32Array.from({ length: text.length + 1 }, (_, i) => i),
    };
  }
  const codePoints: number[] = [];
  const starts: number[] = [];
  for (let at = 0; at < text.length; ) {
    cluster.lastIndex = at;
    const piece = cluster.exec(text)?.[0] || text[at]!;
    for (const character of unicodeCasemapKey(piece).normalize('NFC')) {
      codePoints.push(character.codePointAt(0)!);
      starts.push(at);
    }
    at += piece.length;
  }
  starts.push(text.length);
  return { codePoints: Uint32Array.from(codePoints), starts: Uint32Array.from(starts) };
}
