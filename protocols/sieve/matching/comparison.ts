/** A comparison as a command asks for it (match type, comparator, keys), made once when the script is compiled. RFC 5228 2.7, 5231, 6134. */
import type { Arguments, CompileContext, MaybePromise, Run, Text } from '../contract.js';
import { SieveRunError } from '../contract.js';
import { type Comparator, comparatorNamed, defaultComparator } from './comparators.js';
import { type Captures, type MatchType, type Pattern, patternOf, Subject } from './patterns.js';
import { RegexError } from './regex.js';
import { type Relation, relationNamed } from './relations.js';

export interface ComparisonOptions {
  /** Name of the positional argument that has the keys: 'strings', or a single 'string'. */
  keys: string;
  /** Whether `${0}` … are set when it holds; default yes. RFC 5173 6: `body` never does. */
  setsMatches?: boolean;
  /** Match types that make no sense here and are refused: `count`, `list`. */
  without?: readonly string[];
}

export interface Comparison {
  /**
   * Whether one of the values matches one of the keys; values are Unicode. With `:count`, their number is compared. The first pair that matches sets
   * `${0}` …; the work is spent from the run's steps.
   * @throws SieveRunError for a key with variables that is no pattern, or when the steps are used up.
   */
  holds(run: Run, values: Iterable<string>): MaybePromise<boolean>;
  /** With `:count`, `holds` does not look at the values themselves. */
  readonly onlyCounts: boolean;
}

interface Rules {
  comparator: Comparator;
  keys: readonly Text[];
  setsMatches: boolean;
}

/** Use `...comparisonTags` in the signature. Refuses what does not go together (RFC 5228 2.7.3) and constants that are no patterns. */
export function comparisonOf(arguments_: Arguments, context: CompileContext, options: ComparisonOptions): Comparison {
  const type = arguments_.tagOf('match-type') ?? 'is';
  if (options.without?.includes(type)) context.fail(`':${type}' can't be used here`, arguments_.tagAt(type));
  const rules: Rules = {
    comparator: comparatorOf(arguments_, context),
    keys: arguments_.texts(options.keys) ?? [],
    setsMatches: options.setsMatches !== false && context.hasRequired('variables'),
  };
  if (type === 'list') return { holds: listComparison(rules), onlyCounts: false };
  if ((type === 'contains' || type === 'matches' || type === 'regex') && !rules.comparator.hasSubstrings) {
    context.fail(`'${rules.comparator.name}' knows no parts of texts, as ':${type}' needs them`, arguments_.tagAt(type));
  }
  const relation = type === 'value' || type === 'count' ? relationOf(type, arguments_, context) : undefined;
  const onlyCounts = type === 'count';
  const patterns = patternSource(onlyCounts ? 'value' : (type as MatchType), rules, relation, context);
  if (onlyCounts) return { holds: (run, values) => holds(run, [String(count(values))], patterns, rules), onlyCounts };
  return { holds: (run, values) => holds(run, values, patterns, rules), onlyCounts };
}

function comparatorOf(arguments_: Arguments, context: CompileContext): Comparator {
  const name = arguments_.text('comparator');
  if (!name) return defaultComparator;
  const comparator = name.constant === undefined ? undefined : comparatorNamed(name.constant);
  if (!comparator) return context.fail(`unknown comparator '${name.constant?.slice(0, 64) ?? ''}'`, name.at);
  if (comparator.requires !== undefined && !context.hasRequired(comparator.requires)) {
    context.fail(`'${comparator.name}' needs 'require "${comparator.requires}";' at the script's start`, name.at);
  }
  return comparator;
}

function relationOf(type: string, arguments_: Arguments, context: CompileContext): Relation {
  const name = arguments_.text(type);
  const relation = name?.constant === undefined ? undefined : relationNamed(name.constant);
  return relation ?? context.fail(`':${type}' needs one of "gt", "ge", "lt", "le", "eq", "ne"`, arguments_.tagAt(type));
}

function count(values: Iterable<string>): number {
  let number = 0;
  for (const _ of values) number++;
  return number;
}

/** The keys, ready. Constants are made when the script is compiled, others when they are first seen. */
type PatternSource = (run: Run) => readonly Pattern[];

function patternSource(
  type: MatchType,
  { keys, comparator }: Rules,
  relation: Relation | undefined,
  context: CompileContext,
): PatternSource {
  const constants = keys.map((key) => {
    if (key.constant === undefined) return undefined;
    if (type === 'regex') countRegex(key.constant, key, context);
    try {
      return patternOf(type, key.constant, comparator, relation);
    } catch (error) {
      if (error instanceof RegexError) context.fail(`not a regular expression: ${error.message}`, key.at);
      throw error;
    }
  });
  if (constants.every((pattern) => pattern !== undefined)) {
    const patterns = type === 'is' && keys.length > 4 ? [oneOf(keys, comparator)] : (constants as Pattern[]);
    return () => patterns;
  }
  const made = keyCache(type, comparator, relation);
  return (run) => keys.map((key, i) => constants[i] ?? made(run, key));
}

/** Making regular expressions is dear: some ten microseconds a character. */
const maxRegexCharsOfScript = 32_768;
const regexChars = new WeakMap<CompileContext, number>();

function countRegex(pattern: string, { at }: Text, context: CompileContext): void {
  const chars = (regexChars.get(context) ?? 0) + pattern.length;
  if (chars > maxRegexCharsOfScript)
    context.fail(`the regular expressions of a script have at most ${maxRegexCharsOfScript} characters`, at);
  regexChars.set(context, chars);
}

/** Many constants are looked up at once. */
function oneOf(keys: readonly Text[], comparator: Comparator): Pattern {
  const known = new Set(keys.map((key) => comparator.keyOf(key.constant!)));
  return { testCost: comparator.keyCost, test: (subject) => known.has(subject.key) };
}

const maxCachedKeys = 32;
const maxCachedKeyChars = 2048;
const stepsPerRegexChar = 10;
const stepsPerKeyChar = 0.02;

function keyCache(type: MatchType, comparator: Comparator, relation: Relation | undefined): (run: Run, key: Text) => Pattern {
  const cache = new Map<string, Pattern>();
  return (run, text) => {
    const key = text.of(run);
    const known = cache.get(key);
    if (known) return known;
    run.spend(Math.ceil(key.length * (type === 'regex' ? stepsPerRegexChar : stepsPerKeyChar)));
    const pattern = madeOf(type, key, comparator, relation, text);
    if (cache.size >= maxCachedKeys) cache.clear();
    if (key.length <= maxCachedKeyChars) cache.set(key, pattern);
    return pattern;
  };
}

function madeOf(type: MatchType, key: string, comparator: Comparator, relation: Relation | undefined, text: Text): Pattern {
  try {
    return patternOf(type, key, comparator, relation);
  } catch (error) {
    if (error instanceof RegexError) throw new SieveRunError(`not a regular expression: ${error.message}`, text.at);
    throw error;
  }
}

/** RFC 5228 2.7: a step is about a hundred characters compared; taking up a comparison costs some of them. */
const charsPerStep = 100;
const charsPerComparison = 40;

function holds(run: Run, values: Iterable<string>, source: PatternSource, { comparator, setsMatches }: Rules): boolean {
  let patterns: readonly Pattern[] | undefined;
  // What was not spent yet, in characters: most comparisons are less than a step.
  let due = 0;
  for (const value of values) {
    patterns ??= source(run);
    const subject = new Subject(value, comparator);
    for (const pattern of patterns) {
      due += charsPerComparison + value.length * pattern.testCost;
      if (due >= charsPerStep) due = spend(run, due);
      if (setsMatches && pattern.captures ? captured(run, pattern, pattern.captures, subject) : pattern.test(subject))
        return true;
    }
  }
  return false;
}

/** The match, with `${0}` … set when there is one. */
function captured(run: Run, pattern: Pattern, { cost, match }: Captures, subject: Subject): boolean {
  if (cost > 0) {
    // Most texts match nothing, and that is known much sooner.
    if (!pattern.test(subject)) return false;
    spend(run, subject.text.length * cost);
  }
  const captures = match(subject);
  if (!captures) return false;
  run.setMatches(captures);
  return true;
}

/** Spends whole steps; gives what is left. */
function spend(run: Run, chars: number): number {
  const steps = Math.floor(chars / charsPerStep);
  if (steps > 0) run.spend(steps);
  return chars - steps * charsPerStep;
}

/** RFC 6134 2.2: the keys are names of lists that somebody else keeps, by whose rules a value is in one. */
function listComparison({ keys, setsMatches }: Rules): Comparison['holds'] {
  return async (run, values) => {
    const all = [...values];
    const host = run.input.host;
    if (!host?.isInList || all.length === 0) return false;
    for (const key of keys) {
      const list = key.of(run);
      run.spend(1 + all.length);
      if (!(await host.isInList(list, all))) continue;
      if (setsMatches) run.setMatches([await firstIn(run, list, all)]);
      return true;
    }
    return false;
  };
}

async function firstIn(run: Run, list: string, values: readonly string[]): Promise<string> {
  for (const value of values.slice(0, -1)) if (await run.input.host!.isInList!(list, [value])) return value;
  return values[values.length - 1]!;
}
