/** RFC 5229 5: `string` compares texts with variables in them. */
import type { TestDefinition } from '../contract.js';
import { comparisonOf, comparisonTags } from '../matching/index.js';

export const stringTest: TestDefinition = {
  name: 'string',
  tags: comparisonTags,
  positional: [
    { name: 'source', type: 'strings' },
    { name: 'keys', type: 'strings' },
  ],
  compile(arguments_, context) {
    const comparison = comparisonOf(arguments_, context, { keys: 'keys' });
    const source = arguments_.texts('source')!;
    // RFC 5229 5: empty texts are not counted.
    const isCount = arguments_.tagOf('match-type') === 'count';
    return (run) => {
      const values = source.map((text) => text.of(run));
      return comparison.holds(run, isCount ? values.filter((value) => value !== '') : values);
    };
  },
};
