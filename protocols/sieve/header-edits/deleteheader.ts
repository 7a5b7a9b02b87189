/** RFC 5293 5 `deleteheader`. */
import { decodeHeaderText } from '../../message/index.js';
import type { Arguments, CommandDefinition, CompileContext, MaybePromise, Run } from '../contract.js';
import { type Comparison, comparisonOf, comparisonTags } from '../matching/index.js';
import { after } from '../maybe.js';
import { fieldNameOf } from './field-texts.js';

/** RFC 5293 6: attempts to delete these are ignored. They tell where a message has been, and who has answered whom. */
const keptFields = new Set(['received', 'auto-submitted']);
const charsPerStep = 100;
/** All fields are looked through, and their index is made again. */
const fieldsPerStep = 10;

export const deleteheader: CommandDefinition = {
  name: 'deleteheader',
  tags: {
    ...comparisonTags,
    index: { value: 'number' },
    last: {},
  },
  positional: [
    { name: 'field-name', type: 'string' },
    { name: 'value-patterns', type: 'strings', isOptional: true },
  ],
  compile(arguments_, context) {
    const nameOf = fieldNameOf(arguments_.text('field-name')!, context);
    const index = checkedIndex(arguments_, context);
    const fromEnd = arguments_.hasTag('last');
    const comparison = valueComparison(arguments_, context);
    return (run) => {
      const name = nameOf(run).toLowerCase();
      const values = run.header.values(name);
      if (keptFields.has(name) || values.length === 0) return undefined;
      run.spend(1 + Math.ceil((run.input.message?.fields.length ?? 0) / fieldsPerStep));
      if (!comparison) {
        run.header.remove(name, { index, fromEnd });
        return undefined;
      }
      // RFC 5293 5: counting comes before matching.
      const wanted = index === undefined ? values : values.slice(...sliceOf(index, fromEnd, values.length));
      return after(matching(run, wanted, comparison), (matches) => {
        run.header.remove(name, { index, fromEnd, matches: (value) => matches.has(value) });
        return undefined;
      });
    };
  },
};

function checkedIndex(arguments_: Arguments, context: CompileContext): number | undefined {
  const index = arguments_.number('index');
  if (index === undefined && arguments_.hasTag('last')) context.fail("':last' needs ':index'", arguments_.tagAt('last'));
  if (index !== undefined && index < 1) context.fail("':index' counts from 1", arguments_.tagAt('index'));
  return index;
}

function sliceOf(index: number, fromEnd: boolean, length: number): [number, number] {
  const at = fromEnd ? length - index : index - 1;
  return at < 0 ? [0, 0] : [at, at + 1];
}

/** RFC 5293 5: without patterns, comparator and match type are ignored. Commands set no match variables (RFC 5229 3.2). */
function valueComparison(arguments_: Arguments, context: CompileContext): Comparison | undefined {
  if (!arguments_.texts('value-patterns')) return undefined;
  return comparisonOf(arguments_, context, { keys: 'value-patterns', setsMatches: false, without: ['count'] });
}

/** Those of the raw values that one of the patterns matches. */
function matching(
  run: Run,
  values: readonly string[],
  comparison: Comparison,
  start = 0,
  found = new Set<string>(),
): MaybePromise<Set<string>> {
  for (let i = start; i < values.length; i++) {
    const value = values[i]!;
    run.spend(1 + Math.floor(value.length / charsPerStep));
    const holds = comparison.holds(run, [decodeHeaderText(value)]);
    if (typeof holds !== 'boolean') {
      return holds.then((answer) => matching(run, values, comparison, i + 1, answer ? found.add(value) : found));
    }
    if (holds) found.add(value);
  }
  return found;
}
