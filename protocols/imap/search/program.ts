/**
 * A SEARCH program made ready to run over the columns of a mailbox index: one test per key, each telling yes, no, or that the columns are not enough. All keys
 * that look at flags alone become one, decided once per combination of flags that occurs.
 */
import type { IndexView } from '../../../store/mail/contract.js';
import type { TermAnswer } from '../../../store/search/contract.js';
import { msPerDay } from '../grammar/dates.js';
import type { SearchKey } from '../grammar/search-keys.js';
import { inRanges, type Ranges } from '../grammar/sequence-set.js';

export const no = 0;
export const yes = 1;
/** More than the columns has to be looked at. */
export const unknown = 2;
export type Verdict = typeof no | typeof yes | typeof unknown;

/** Ranges of UIDs that the sets of the program name, resolved before the first message is looked at. */
export type ResolvedSets = ReadonlyMap<SearchKey, Ranges>;

/** What the full-text index says of the program's texts. */
export interface IndexAnswers {
  /** Number of the message at a position of the view in the answers, or -1. */
  documentAt(view: IndexView, at: number): number;
  /** The same for all positions of the view, if that is known without looking for each. */
  documentsOf(view: IndexView): Int32Array | undefined;
  of: ReadonlyMap<SearchKey, TermAnswer>;
}

export interface Surroundings {
  sets: ResolvedSets;
  nowMs: number;
  /** See `MailboxIndex`. */
  comparableModseq: (modseq: number) => number;
  answers?: IndexAnswers;
  /** The day that the sender of a message wrote, since the epoch; undefined where that is not known without a read. */
  sentDayOf?: (uid: number) => number | undefined;
}

/** `at` is a position in the present view, `uid` the message there. */
type Test = (at: number, uid: number) => Verdict;

/** Keys that look at flags alone. */
function isOfFlags(key: SearchKey): boolean {
  switch (key.kind) {
    case 'all':
    case 'none':
    case 'keyword':
    case 'deleted':
      return true;
    case 'and':
      return key.keys.every(isOfFlags);
    case 'or':
      return isOfFlags(key.left) && isOfFlags(key.right);
    case 'not':
      return isOfFlags(key.key);
    default:
      return false;
  }
}

function testFlags(key: SearchKey, keywords: readonly string[], isDeleted: boolean): boolean {
  switch (key.kind) {
    case 'all':
      return true;
    case 'keyword':
      return keywords.includes(key.keyword);
    case 'deleted':
      return isDeleted;
    case 'and':
      return key.keys.every((inner) => testFlags(inner, keywords, isDeleted));
    case 'or':
      return testFlags(key.left, keywords, isDeleted) || testFlags(key.right, keywords, isDeleted);
    case 'not':
      return !testFlags(key.key, keywords, isDeleted);
    default:
      return false;
  }
}

export class CompiledSearch {
  /** Tests that one message may cost, for whoever divides the work. */
  readonly cost: number;
  /** Only messages with UIDs in here can match; undefined for no bound. */
  readonly bounds: Ranges | undefined;
  readonly #key: SearchKey;
  readonly #test: Test;
  readonly #around: Surroundings;
  #tests = 0;
  #view!: IndexView;
  #forgetFlags: (() => void)[] = [];
  #documents: Int32Array | undefined;
  #documentAt = -1;
  #document = -1;

  constructor(key: SearchKey, around: Surroundings) {
    this.#key = key;
    this.#around = around;
    this.#test = this.#compile(key);
    this.cost = Math.max(1, this.#tests);
    this.bounds = boundsOf(key, around.sets);
  }

  /** To be called with each new view: what is known of an older one does not hold for it. */
  use(view: IndexView): void {
    this.#view = view;
    this.#documents = this.#around.answers?.documentsOf(view);
    this.#documentAt = -1;
    for (const forget of this.#forgetFlags) forget();
  }

  test(at: number, uid: number): Verdict {
    return this.#test(at, uid);
  }

  /** The positions that match among the first `count` of the view in use; undefined where more than flags is asked for. */
  matchingFlags(count: number): Uint32Array | undefined {
    if (!isOfFlags(this.#key)) return undefined;
    const flags = this.#view.allFlags();
    const positions = new Uint32Array(count);
    let found = 0;
    // By flags number: 1 where they match, 0 where not, 2 as long as that is not known.
    let verdicts = new Uint8Array(64).fill(2);
    for (let at = 0; at < count; at++) {
      const number = flags[at]!;
      let verdict = number < verdicts.length ? verdicts[number]! : 2;
      if (verdict === 2) {
        if (number >= verdicts.length) verdicts = widened(verdicts, number, 2);
        verdict = testFlags(this.#key, this.#view.keywordsOf(number), this.#view.isDeletedOf(number)) ? 1 : 0;
        verdicts[number] = verdict;
      }
      // Written in any case, and kept where it matches: cheaper than to decide.
      positions[found] = at;
      found += verdict;
    }
    return positions.slice(0, found);
  }

  /**
   * Decides about the first positions of the view in use, as many as there are verdicts, all at once. False, with nothing decided, for programs of which
   * each message has to be tested.
   */
  testAll(verdicts: Uint8Array): boolean {
    const key = this.#key;
    if (key.kind !== 'field' && key.kind !== 'text' && key.kind !== 'body') return false;
    if (key.text === '') return false;
    const { answers } = this.#around;
    const answer = answers?.of.get(key);
    const documents = answer && answers!.documentsOf(this.#view);
    if (answer && !documents) return false;
    if (!answer) verdicts.fill(unknown);
    else answer.tell(documents!.subarray(0, verdicts.length), verdicts);
    return true;
  }

  #compile(key: SearchKey): Test {
    this.#tests++;
    if (key.kind === 'all') return () => yes;
    if (key.kind === 'none') return () => no;
    if (isOfFlags(key)) return this.#compileFlags(key);
    switch (key.kind) {
      case 'and':
        return this.#compileAnd(key.keys);
      case 'or': {
        const [left, right] = [this.#compile(key.left), this.#compile(key.right)];
        return (at, uid) => {
          const one = left(at, uid);
          if (one === yes) return yes;
          const other = right(at, uid);
          return other === no ? one : other;
        };
      }
      case 'not': {
        const inner = this.#compile(key.key);
        return (at, uid) => {
          const verdict = inner(at, uid);
          return verdict === unknown ? unknown : verdict === yes ? no : yes;
        };
      }
      default:
        return this.#compileLeaf(key);
    }
  }

  #compileAnd(keys: readonly SearchKey[]): Test {
    const ofFlags = keys.filter(isOfFlags);
    const others = keys.filter((key) => !isOfFlags(key)).map((key) => this.#compile(key));
    if (ofFlags.length > 0) others.unshift(this.#compileFlags({ kind: 'and', keys: ofFlags }));
    if (others.length === 1) return others[0]!;
    return (at, uid) => {
      let verdict: Verdict = yes;
      for (const test of others) {
        const one = test(at, uid);
        if (one === no) return no;
        if (one === unknown) verdict = unknown;
      }
      return verdict;
    };
  }

  #compileFlags(key: SearchKey): Test {
    // By flags number: 0 not asked yet, else the verdict + 1.
    let known = new Uint8Array(64);
    this.#forgetFlags.push(() => known.fill(0));
    return (at) => {
      const flags = this.#view.flagsAt(at);
      if (flags >= known.length) known = widened(known, flags, 0);
      const before = known[flags]!;
      if (before !== 0) return (before - 1) as Verdict;
      const verdict = testFlags(key, this.#view.keywordsOf(flags), this.#view.isDeletedOf(flags)) ? yes : no;
      known[flags] = verdict + 1;
      return verdict;
    };
  }

  #compileLeaf(key: SearchKey): Test {
    switch (key.kind) {
      case 'sequence':
      case 'uid':
      case 'recent':
        return testOfRanges(this.#around.sets.get(key) ?? []);
      case 'larger':
        return (at) => (this.#view.sizeBytesAt(at) > key.bytes ? yes : no);
      case 'smaller':
        return (at) => (this.#view.sizeBytesAt(at) < key.bytes ? yes : no);
      case 'within': {
        const limitMs = this.#around.nowMs - key.seconds * 1000;
        // RFC 5032: YOUNGER is at most, OLDER at least so many seconds old.
        if (key.relation === 'older') return (at) => (this.#view.receivedAtMsAt(at) <= limitMs ? yes : no);
        return (at) => (this.#view.receivedAtMsAt(at) >= limitMs ? yes : no);
      }
      case 'modseq': {
        const above = this.#around.comparableModseq(key.atLeast - 1);
        return (at) => (this.#view.modseqAt(at) > above ? yes : no);
      }
      case 'emailid':
        return (at) => (this.#view.emailIdAt(at) === key.id ? yes : no);
      case 'date':
        return key.of === 'sent' ? this.#compileSentDate(key) : this.#compileDate(key);
      case 'field':
      case 'body':
      case 'text':
        return this.#compileText(key, yes);
      case 'header':
        // The index knows that the text stands in some field, not in which.
        return this.#compileText(key, unknown);
      default:
        return () => unknown;
    }
  }

  #compileDate({ of, relation, day }: Extract<SearchKey, { kind: 'date' }>): Test {
    const fromMs = day * msPerDay;
    const ms = of === 'saved' ? (at: number) => this.#view.savedAtMsAt(at) : (at: number) => this.#view.receivedAtMsAt(at);
    if (relation === 'before') return (at) => (ms(at) < fromMs ? yes : no);
    if (relation === 'since') return (at) => (ms(at) >= fromMs ? yes : no);
    return (at) => (Math.floor(ms(at) / msPerDay) === day ? yes : no);
  }

  #compileSentDate({ relation, day }: Extract<SearchKey, { kind: 'date' }>): Test {
    const { sentDayOf } = this.#around;
    if (!sentDayOf) return () => unknown;
    return (_, uid) => {
      const its = sentDayOf(uid);
      if (its === undefined) return unknown;
      return (relation === 'before' ? its < day : relation === 'on' ? its === day : its >= day) ? yes : no;
    };
  }

  #compileText(key: SearchKey & { text: string }, whenFound: Verdict): Test {
    if (key.text === '' && key.kind !== 'header') return () => yes;
    const answer = this.#around.answers?.of.get(key);
    if (!answer) return () => unknown;
    return (at) => {
      const document = this.#documentOf(at);
      if (document < 0) return unknown;
      if (answer.has(document)) return whenFound;
      return answer.mayHave(document) ? unknown : no;
    };
  }

  #documentOf(at: number): number {
    if (at !== this.#documentAt) {
      this.#document = this.#documents ? this.#documents[at]! : this.#around.answers!.documentAt(this.#view, at);
      this.#documentAt = at;
    }
    return this.#document;
  }
}

/** The same table with room for a further number. */
function widened(table: Uint8Array, number: number, empty: number): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(Math.max(number + 1, table.length * 4)).fill(empty);
  larger.set(table);
  return larger;
}

/** Whether some key asks when a message was sent. */
export function asksForSentDate(key: SearchKey): boolean {
  if (key.kind === 'date') return key.of === 'sent';
  if (key.kind === 'and') return key.keys.some(asksForSentDate);
  if (key.kind === 'or') return asksForSentDate(key.left) || asksForSentDate(key.right);
  return key.kind === 'not' && asksForSentDate(key.key);
}

function testOfRanges(ranges: Ranges): Test {
  if (ranges.length === 0) return () => no;
  if (ranges.length > 2) return (_, uid) => (inRanges(ranges, uid) ? yes : no);
  const [from, to] = [ranges[0]!, ranges[1]!];
  return (_, uid) => (uid >= from && uid <= to ? yes : no);
}

function boundsOf(key: SearchKey, sets: ResolvedSets): Ranges | undefined {
  if (key.kind === 'sequence' || key.kind === 'uid' || key.kind === 'recent') return sets.get(key);
  if (key.kind !== 'and') return undefined;
  let least: Ranges | undefined;
  let leastSpan = Number.POSITIVE_INFINITY;
  for (const inner of key.keys) {
    const bounds = boundsOf(inner, sets);
    if (!bounds) continue;
    let span = 0;
    for (let i = 0; i < bounds.length; i += 2) span += bounds[i + 1]! - bounds[i]! + 1;
    if (span < leastSpan) {
      leastSpan = span;
      least = bounds;
    }
  }
  return least;
}
