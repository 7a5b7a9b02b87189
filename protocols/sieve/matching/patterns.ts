/** One key, made ready to be compared with any number of texts. */
import type { Comparator } from './comparators.js';
import { compileRegex } from './regex.js';
import type { Relation } from './relations.js';
import { textSearch } from './search.js';
import { compileWildcard } from './wildcard.js';

/** A text that is compared with one key after the other: what the comparator makes of it is made once. */
export class Subject {
  #key: string | undefined;

  constructor(
    readonly text: string,
    private readonly comparator: Comparator,
  ) {}

  get key(): string {
    return (this.#key ??= this.comparator.keyOf(this.text));
  }
}

export interface Pattern {
  /** Work for one character of the text, in characters compared. */
  readonly testCost: number;
  test(subject: Subject): boolean;
  /** Absent: such a match sets no match variables (RFC 5229 3.2). */
  readonly captures?: Captures;
}

export interface Captures {
  /** Work for one character of the text; 0: it is that of `test`, which need not be called before. */
  readonly cost: number;
  /** What `${0}` … become; undefined: the text does not match. */
  match(subject: Subject): string[] | undefined;
}

export type MatchType = 'is' | 'contains' | 'matches' | 'regex' | 'value';

/** @throws RegexError for a key that is no regular expression. */
export function patternOf(type: MatchType, key: string, comparator: Comparator, relation?: Relation): Pattern {
  switch (type) {
    case 'is':
      return equality(comparator.keyOf(key), comparator);
    case 'contains':
      return part(comparator.keyOf(key), comparator);
    case 'value':
      return order(comparator.keyOf(key), comparator, relation!);
    case 'matches': {
      const { cost, match } = compileWildcard(key, comparator);
      const matches = ({ text }: Subject) => match(text);
      return { testCost: cost, test: (subject) => matches(subject) !== undefined, captures: { cost: 0, match: matches } };
    }
    case 'regex': {
      const { testCost, matchCost, test, match } = compileRegex(key, comparator.ignoresCase);
      const captures: Captures = { cost: matchCost, match: ({ text }) => match(text) };
      return { testCost, test: ({ text }) => test(text), captures };
    }
  }
}

function equality(key: string, { keyCost }: Comparator): Pattern {
  return { testCost: keyCost, test: (subject) => subject.key === key };
}

function part(key: string, { keyCost }: Comparator): Pattern {
  const find = textSearch(key);
  return { testCost: keyCost, test: (subject) => find(subject.key, 0) >= 0 };
}

function order(key: string, comparator: Comparator, relation: Relation): Pattern {
  return { testCost: 3 + comparator.keyCost, test: (subject) => relation(comparator.order(subject.key, key)) };
}
