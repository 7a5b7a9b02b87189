/** The form in which texts are compared: one for searches, for what is looked through, and for the index. */

const outsideAscii = /[^\x00-\x7f]/;

/**
 * Lower case, then NFC: lower case may leave letters apart that have a composed form (`J` with caron). The final sigma is the plain one, because
 * whether a letter is the last depends on what a text was cut out of. Folding twice changes nothing.
 */
export function foldText(text: string): string {
  const lower = text.toLowerCase();
  return outsideAscii.test(lower) ? lower.replaceAll('ς', 'σ').normalize('NFC') : lower;
}
