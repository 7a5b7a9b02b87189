/**
 * Pigeonhole as a second opinion on matching: the same texts, the same answers, the same match variables. Not asked: `?` and escapes in wildcards, where it
 * goes wrong or gives up; its default comparator of `string`; the underscore's place among letters (RFC 4790 9.2 compares upper case); numbers that are empty.
 */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hasPigeonhole, Pigeonhole } from '../test-pigeonhole.js';
import { messageOf, runScript } from './test-conditions.js';

interface Question {
  /** `:matches`, `:regex`, … with its comparator. */
  how: string;
  value: string;
  key: string;
  /** How many match variables are looked at. */
  variables: number;
}

const message = 'From: ann@a.example\n\n';
const quoted = (text: string) => `"${text.replace(/["\\]/g, '\\$&')}"`;

/** Each answer is a file of its own: `+` and the match variables, or `-`. */
function scriptOf(questions: readonly Question[]): string {
  const asks = questions.map(({ how, value, key, variables }, i) => {
    const seen = [...Array(variables).keys()].map((number) => `<\${${number}}>`).join('');
    return `if string ${how} ${quoted(value)} ${quoted(key)} { fileinto "${i}+${seen}"; } else { fileinto "${i}-"; }`;
  });
  return `require ["variables", "fileinto", "regex", "relational", "comparator-i;ascii-numeric"];\n${asks.join('\n')}`;
}

/** As many as one run may store. */
const questionsAtOnce = 30;

describe.skipIf(!hasPigeonhole())('matching decides as Pigeonhole does', () => {
  let pigeonhole: Pigeonhole;
  beforeAll(() => {
    pigeonhole = new Pigeonhole();
  });
  afterAll(() => pigeonhole.close());

  async function compare(question: fc.Arbitrary<Question>, numRuns: number): Promise<void> {
    const questions = fc.array(question, { minLength: questionsAtOnce, maxLength: questionsAtOnce });
    await fc.assert(
      fc.asyncProperty(questions, async (asked) => {
        const script = scriptOf(asked);
        const { actions } = await runScript(script, { message: messageOf(message) });
        const ours = actions.map((action) => (action.kind === 'fileinto' ? `store ${action.mailbox}` : action.kind)).sort();
        expect(ours).toEqual(pigeonhole.decide(script, message));
      }),
      { numRuns },
    );
  }
  const text = (alphabet: string, maxLength: number, minLength = 0) =>
    fc.string({ unit: fc.constantFrom(...alphabet), minLength, maxLength });

  it('wildcards, with what they took', async () => {
    await compare(
      fc.record({
        how: fc.constantFrom(':matches :comparator "i;ascii-casemap"', ':matches :comparator "i;octet"'),
        value: text('abAB*', 10),
        key: text('abA*', 8),
        variables: fc.constant(5),
      }),
      12,
    );
  });

  it('regular expressions, with what was matched', async () => {
    const piece = fc.constantFrom(
      'a',
      'b',
      'B',
      '.',
      '[ab]',
      '[^a]',
      '(a|b)',
      '(ab|a)',
      '(b*)',
      'a*',
      'b?',
      '[[:upper:]]',
      'a{2}',
      '(a{1,2})',
      '$',
    );
    await compare(
      fc.record({
        how: fc.constantFrom(':regex :comparator "i;ascii-casemap"', ':regex :comparator "i;octet"'),
        value: text('abABc', 10),
        key: fc
          .tuple(fc.constantFrom('', '^'), fc.array(piece, { minLength: 1, maxLength: 4 }))
          .map(([start, pieces]) => start + pieces.join('')),
        variables: fc.constant(1),
      }),
      12,
    );
  });

  it('equality, parts, order and numbers', async () => {
    const relation = fc.constantFrom('gt', 'ge', 'lt', 'le', 'eq', 'ne').map((name) => `:value "${name}"`);
    const comparator = fc.constantFrom(' :comparator "i;ascii-casemap"', ' :comparator "i;octet"');
    const plain = fc
      .tuple(fc.oneof(fc.constantFrom(':is', ':contains'), relation), comparator)
      .map(([type, name]) => type + name);
    const numeric = fc.oneof(fc.constant(':is'), relation).map((type) => `${type} :comparator "i;ascii-numeric"`);
    const question = (how: fc.Arbitrary<string>, of: fc.Arbitrary<string>) =>
      fc.record({ how, value: of, key: of, variables: fc.constant(0) });
    await compare(fc.oneof(question(plain, text('abAä', 3)), question(numeric, text('012x', 4, 1))), 12);
  });
});
