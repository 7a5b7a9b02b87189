/** Words for searches by meaning. */
import { clusterCharacter } from './characters.js';
import { runLimits } from './contract.js';
import { addPairs, eachStretch } from './runs.js';

// Their words are found with a dictionary; those of Han and Kana depend on the context too much for that, so that pairs of characters find more.
const dictionaryScripts = /^[\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u;

/** Units that the segmenter gets at one time. */
const maxSegmentedChars = 2_000;

let segmenter: Intl.Segmenter | undefined;

/**
 * The words of a folded text in their order, with repetitions: stretches of letters, marks and digits (no longer than `maxRunChars`: others are no
 * words); of Thai, Lao, Khmer and Burmese what Unicode's segmentation finds; of other scripts without spaces pairs of neighbours, or the one character
 * that stands alone.
 */
export function wordsOf(folded: string): string[] {
  const words: string[] = [];
  eachStretch(folded, (kind, from, end) => {
    if (kind !== clusterCharacter) {
      if (end - from <= runLimits.maxRunChars) words.push(folded.slice(from, end));
    } else if (dictionaryScripts.test(folded.slice(from, from + 2))) addSegments(folded, from, end, words);
    else addNeighbours(folded, from, end, words);
  });
  return words;
}

function addSegments(folded: string, from: number, end: number, words: string[]): void {
  segmenter ??= new Intl.Segmenter('und', { granularity: 'word' });
  for (let at = from; at < end; at += maxSegmentedChars) {
    for (const { segment } of segmenter.segment(folded.slice(at, Math.min(end, at + maxSegmentedChars)))) words.push(segment);
  }
}

function addNeighbours(folded: string, from: number, end: number, words: string[]): void {
  const runs = new Set<string>();
  addPairs(folded, from, end, runs);
  const [first] = runs;
  if (runs.size === 1) {
    words.push(first!);
    return;
  }
  for (const run of runs) if (run.length > (run.codePointAt(0)! > 0xffff ? 2 : 1)) words.push(run);
}
