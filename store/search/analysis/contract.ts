/**
 * What the analysis of texts gives to the index and to queries: runs for substring search (no language, no context, no false negatives), and words
 * with stems for searches by meaning. Pure functions, all on text that went through `foldText`.
 */

/** Languages (ISO 639-1) that have a stemmer here; `no` is Norwegian, Bokmål and Nynorsk alike. */
export const stemLanguages = [
  'ar',
  'da',
  'de',
  'el',
  'en',
  'es',
  'fi',
  'fr',
  'hu',
  'it',
  'nl',
  'no',
  'pt',
  'ro',
  'ru',
  'sv',
  'tr',
] as const;

export type StemLanguage = (typeof stemLanguages)[number];

/** Lengths are in UTF-16 units. */
export const runLimits = {
  /** No run is longer: longer ones are given in overlapping pieces. */
  maxRunChars: 64,
  /** Every substring of a long run that is at most so long lies within one piece. */
  maxContainedChars: 32,
  /** Runs that one query demands at most; fewer demands mean more candidates, never missed ones. */
  maxExactRuns: 64,
} as const;

/** What the runs of a text must have if the text contains the query. */
export interface QueryRuns {
  /** Each of these is a run of the text. */
  exact: readonly string[];
  /** Some run ends with this. */
  suffix?: string;
  /** Some run begins with this. */
  prefix?: string;
  /** Some run contains this anywhere. Only alone: `exact` is empty then, and neither `suffix` nor `prefix` is there. */
  contains?: string;
  /** The reverse is true as well: a text with such runs surely contains the query. Nothing is demanded and this false: only the text itself can tell. */
  isWhole: boolean;
}

/** Adds the runs of a folded text to `into`, and gives that back. */
export type SplitRuns = (folded: string, into?: Set<string>) => Set<string>;

export type RunsOfQuery = (folded: string) => QueryRuns;

/** Words of a folded text, in order, with repetitions. */
export type WordsOf = (folded: string) => string[];

/** The stems of one folded word in these languages, without repetitions; the word itself only where it is its own stem. */
export type StemsOf = (word: string, languages: readonly StemLanguage[]) => string[];

/** The language of a text, as far as it can be told and has a stemmer. The first call loads the detector (tens of megabytes): for the indexer only. */
export type DetectLanguage = (text: string) => Promise<StemLanguage | undefined>;
