/** RFC 5260 5 `currentdate`: the same moment for all tests of a run. */
import type { TestDefinition } from '../contract.js';
import { comparisonOf, comparisonTags } from '../matching/index.js';
import { datePartOf } from './date-parts.js';
import { zoneOf } from './zones.js';

export const currentdate: TestDefinition = {
  name: 'currentdate',
  requires: ['date'],
  tags: { ...comparisonTags, zone: { value: 'string' } },
  positional: [
    { name: 'date-part', type: 'string' },
    { name: 'keys', type: 'strings' },
  ],
  compile(arguments_, context) {
    const zone = zoneOf(arguments_, context);
    const part = datePartOf(arguments_.text('date-part')!, context);
    const comparison = comparisonOf(arguments_, context, { keys: 'keys' });
    return (run) => {
      const { nowMs } = run.input;
      const text = part(run, nowMs, zone(run, nowMs, 0));
      return comparison.holds(run, text === undefined ? [] : [text]);
    };
  },
};
