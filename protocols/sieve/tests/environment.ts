/** RFC 5183 `environment`. */
import type { TestDefinition } from '../contract.js';
import { comparisonOf, comparisonTags } from '../matching/index.js';

export const environment: TestDefinition = {
  name: 'environment',
  tags: comparisonTags,
  positional: [
    { name: 'name', type: 'string' },
    { name: 'keys', type: 'strings' },
  ],
  compile(arguments_, context) {
    const name = arguments_.text('name')!;
    const comparison = comparisonOf(arguments_, context, { keys: 'keys' });
    return (run) => {
      const item = name.of(run).toLowerCase();
      // RFC 5183 4: what does not exist matches nothing, and is no error.
      if (!Object.hasOwn(run.input.environment, item)) return false;
      const value = run.input.environment[item]!;
      return comparison.holds(run, comparison.onlyCounts && value === '' ? [] : [value]);
    };
  },
};
