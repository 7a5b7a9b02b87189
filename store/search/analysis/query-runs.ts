/** What a text must have if it contains a query: the query's inner runs as they are, its outer ones as the ends of longer ones. */
import { clusterCharacter, isHighSurrogate, isLowSurrogate } from './characters.js';
import { type QueryRuns, runLimits } from './contract.js';
import { addPairs, addPieces, behind, eachStretch, wholePiece } from './runs.js';

const { maxRunChars, maxContainedChars, maxExactRuns } = runLimits;

interface Demands {
  exact: Set<string>;
  suffix?: string;
  prefix?: string;
  contains?: string;
  isWhole: boolean;
}

/** The demands of a folded query. A text that contains it meets them all; one that meets them may still not contain it unless `isWhole`. */
export function queryRuns(folded: string): QueryRuns {
  const demands: Demands = { exact: new Set(), isWhole: false };
  const query = withoutHalves(folded);
  eachStretch(query, (kind, from, end) => {
    if (kind === clusterCharacter) demandCluster(demands, query, from, end);
    else demandWord(demands, query, from, end);
  });
  const { exact, isWhole, ...others } = demands;
  return { exact: mostTelling(exact), ...others, isWhole: isWhole && query === folded };
}

/** Half a character at an end would stand within a whole one in the text. */
function withoutHalves(text: string): string {
  let [from, end] = [0, text.length];
  if (isLowSurrogate(text.charCodeAt(from))) from++;
  if (end > from && isHighSurrogate(text.charCodeAt(end - 1))) end--;
  return text.slice(from, end);
}

function demandWord(demands: Demands, query: string, from: number, end: number): void {
  const length = end - from;
  const isOpenLeft = from === 0;
  const isOpenRight = end === query.length;
  if (isOpenLeft && isOpenRight) {
    demands.isWhole = length <= maxContainedChars;
    demands.contains = demands.isWhole ? query : cutWell(query, maxContainedChars);
  } else if (length > maxRunChars) {
    // The text's stretch is at least as long: it comes in pieces, and those at the query's closed ends are known.
    if (isOpenLeft) demands.exact.add(wholePiece(query, end - maxRunChars, end));
    else if (isOpenRight) demands.exact.add(wholePiece(query, from, from + maxRunChars));
    else addPieces(query, from, end, demands.exact);
  } else if (isOpenLeft) demands.suffix = query.slice(from, end);
  else if (isOpenRight) demands.prefix = query.slice(from, end);
  else demands.exact.add(query.slice(from, end));
}

function demandCluster(demands: Demands, query: string, from: number, end: number): void {
  const isOpenLeft = from === 0;
  const isOpenRight = end === query.length;
  if (!isOpenRight) {
    addPairs(query, from, end, demands.exact);
    return;
  }
  const second = behind(query, from);
  if (second >= end) {
    demands.prefix = query.slice(from, end);
    demands.isWhole = isOpenLeft;
    return;
  }
  const pairs = new Set<string>();
  addPairs(query, from, end, pairs);
  // The last character goes on in the text, perhaps: only its pairs are sure.
  let last = second;
  while (behind(query, last) < end) last = behind(query, last);
  pairs.delete(query.slice(last, end));
  for (const pair of pairs) demands.exact.add(pair);
  demands.isWhole = isOpenLeft && behind(query, second) >= end;
}

/** The first `length` units, less by one where that would cut a character in halves. */
function cutWell(text: string, length: number): string {
  return text.slice(0, isHighSurrogate(text.charCodeAt(length - 1)) ? length - 1 : length);
}

/** The longest are the rarest. */
function mostTelling(runs: Set<string>): string[] {
  if (runs.size <= maxExactRuns) return [...runs];
  return [...runs].sort((a, b) => b.length - a.length).slice(0, maxExactRuns);
}
