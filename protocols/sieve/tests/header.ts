/** RFC 5228 5.7 `header`, with `:index` (RFC 5260 6) and `:mime` (RFC 5703 4.1). */
import { decodeHeaderText } from '../../message/index.js';
import type { TestDefinition } from '../contract.js';
import { comparisonOf, comparisonTags, indexTags, mimeOptionTags, mimeTags } from '../matching/index.js';
import { after } from '../maybe.js';
import { type Fields, fieldSource, spendReading } from './fields.js';
import { mimeValuesOf } from './mime-values.js';

export const header: TestDefinition = {
  name: 'header',
  tags: { ...comparisonTags, ...indexTags, ...mimeTags, ...mimeOptionTags },
  positional: [
    { name: 'header-names', type: 'strings' },
    { name: 'keys', type: 'strings' },
  ],
  compile(arguments_, context) {
    const source = fieldSource(arguments_, context, 'header-names');
    const comparison = comparisonOf(arguments_, context, { keys: 'keys' });
    const mimeValues = mimeValuesOf(arguments_, context, comparison.onlyCounts);
    return (run) =>
      after(source(run), (fields) => {
        spendReading(run, fields);
        if (mimeValues) return comparison.holds(run, mimeValues(run, fields));
        return comparison.holds(run, comparison.onlyCounts ? rawValues(fields) : decodedValues(fields));
      });
  },
};

function rawValues(fields: readonly Fields[]): readonly string[] {
  return fields.length === 1 ? fields[0]!.values : fields.flatMap(({ values }) => values);
}

/** By what the header gives for a name, which is the same until it is edited: scripts ask for few fields, many times. */
const decoded = new WeakMap<readonly string[], readonly string[]>();

function decodedValues(fields: readonly Fields[]): readonly string[] {
  return fields.length === 1 ? decodedOf(fields[0]!.values) : fields.flatMap(({ values }) => decodedOf(values));
}

function decodedOf(values: readonly string[]): readonly string[] {
  let texts = decoded.get(values);
  if (!texts) decoded.set(values, (texts = values.map(decodeHeaderText)));
  return texts;
}
