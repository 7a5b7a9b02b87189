/** RFC 5173 `body`. */
import type { TestDefinition, Text } from '../contract.js';
import { comparisonOf, comparisonTags } from '../matching/index.js';
import { after } from '../maybe.js';
import { type BodyTransform, bodyTexts } from './body-texts.js';

export const body: TestDefinition = {
  name: 'body',
  requires: ['body'],
  tags: {
    ...comparisonTags,
    raw: { group: 'body-transform' },
    content: { group: 'body-transform', value: 'strings' },
    text: { group: 'body-transform' },
  },
  positional: [{ name: 'keys', type: 'strings' }],
  compile(arguments_, context) {
    // RFC 5173 6: wildcards set no match variables here.
    const comparison = comparisonOf(arguments_, context, { keys: 'keys', setsMatches: false });
    const kind = arguments_.tagOf('body-transform') ?? 'text';
    const types: readonly Text[] = arguments_.texts('content') ?? [];
    return (run) =>
      after(run.structure(), (message) => {
        if (!message) return comparison.onlyCounts ? comparison.holds(run, []) : false;
        const transform: BodyTransform =
          kind === 'content' ? { kind, types: types.map((type) => type.of(run)) } : { kind: kind === 'raw' ? 'raw' : 'text' };
        return comparison.holds(run, bodyTexts(run, message, transform));
      });
  },
};
