/** RFC 5260 4 `date`. */
import { type ParsedDate, parseDate } from '../../message/index.js';
import type { TestDefinition } from '../contract.js';
import { comparisonOf, comparisonTags, indexTags } from '../matching/index.js';
import { after } from '../maybe.js';
import { datePartOf } from './date-parts.js';
import { fieldSource, spendReading } from './fields.js';
import { zoneOf } from './zones.js';

export const date: TestDefinition = {
  name: 'date',
  requires: ['date'],
  tags: {
    ...comparisonTags,
    ...indexTags,
    zone: { group: 'zone', value: 'string' },
    originalzone: { group: 'zone' },
  },
  positional: [
    { name: 'header-name', type: 'string' },
    { name: 'date-part', type: 'string' },
    { name: 'keys', type: 'strings' },
  ],
  compile(arguments_, context) {
    const source = fieldSource(arguments_, context, 'header-name');
    const zone = zoneOf(arguments_, context);
    const part = datePartOf(arguments_.text('date-part')!, context);
    const comparison = comparisonOf(arguments_, context, { keys: 'keys' });
    return (run) =>
      after(source(run), (fields) => {
        // RFC 5260 4: without `:index` the first field only.
        const value = fields[0]?.values[0];
        if (value === undefined) return comparison.onlyCounts ? comparison.holds(run, []) : false;
        spendReading(run, fields);
        const parsed = dateIn(value);
        const text = parsed && part(run, parsed.epochMs, zone(run, parsed.epochMs, parsed.offsetMinutes));
        return comparison.holds(run, text === undefined ? [] : [text]);
      });
  },
};

/** RFC 5260 4: at the end, behind a semicolon (Received), or all of the field. */
function dateIn(value: string): ParsedDate | undefined {
  const semicolon = value.lastIndexOf(';');
  return (semicolon < 0 ? undefined : parseDate(value.slice(semicolon + 1))) ?? parseDate(value);
}
