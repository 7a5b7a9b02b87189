/** To which kind of run a character belongs. Decided for each character alone, so that a piece of a text is divided as the whole text is. */

/** What separates runs: white space, punctuation, symbols, controls, lone surrogates. */
export const separator = 0;
/** Letters, marks and digits of scripts that put spaces between words. */
export const wordCharacter = 1;
/** Scripts without spaces, and pictographs: each character may be a word or a part of one. */
export const clusterCharacter = 2;

const wordPattern = /[\p{L}\p{M}\p{N}]/u;
// U+30FC and U+FF70, which make Kana long, belong to no script.
const clusterPattern =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Bopomofo}\p{Script=Yi}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}\p{Script=Tai_Tham}\p{Script=Javanese}\p{Script=Balinese}\u30fc\uff70\p{Extended_Pictographic}\p{Regional_Indicator}]/u;

function look(codePoint: number): number {
  if (codePoint >= 0xd800 && codePoint <= 0xdfff) return separator;
  const text = String.fromCodePoint(codePoint);
  if (codePoint > 0x7f && clusterPattern.test(text)) return clusterCharacter;
  return wordPattern.test(text) ? wordCharacter : separator;
}

/** Kinds of the characters below U+20000 (U+20000 and above are looked at each time: rare ideographs), filled in by blocks of 256. */
const kinds = new Uint8Array(0x20000);
const knownBlocks = new Uint8Array(0x200);

function fillBlock(block: number): void {
  for (let codePoint = block << 8; codePoint < (block + 1) << 8; codePoint++) kinds[codePoint] = look(codePoint);
  knownBlocks[block] = 1;
}
fillBlock(0);

const latinKinds = kinds.subarray(0, 0x100);

/** The kind of a character: `separator`, `wordCharacter` or `clusterCharacter`. */
export function kindOf(codePoint: number): number {
  if (codePoint >= kinds.length) return look(codePoint);
  if (knownBlocks[codePoint >> 8] === 0) fillBlock(codePoint >> 8);
  return kinds[codePoint]!;
}

/** Index behind the longest stretch of characters of this kind that begins at `from`. */
export function endOfKind(text: string, from: number, kind: number): number {
  let at = from;
  while (at < text.length) {
    const unit = text.charCodeAt(at);
    if (unit < 0x100) {
      if (latinKinds[unit] !== kind) break;
      at++;
    } else if (unit < 0xd800 || unit > 0xdbff) {
      if (kindOf(unit) !== kind) break;
      at++;
    } else {
      const codePoint = text.codePointAt(at)!;
      if (kindOf(codePoint) !== kind) break;
      at += codePoint > 0xffff ? 2 : 1;
    }
  }
  return at;
}

/** The kind of the character that begins at `at`. */
export function kindAt(text: string, at: number): number {
  const unit = text.charCodeAt(at);
  return unit < 0x100 ? latinKinds[unit]! : kindOf(unit < 0xd800 || unit > 0xdbff ? unit : text.codePointAt(at)!);
}

export function isHighSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdbff;
}

export function isLowSurrogate(unit: number): boolean {
  return unit >= 0xdc00 && unit <= 0xdfff;
}
