/** RFC 5228 5.5 `exists`, with `:mime` (RFC 5703 4.3). */
import type { TestDefinition } from '../contract.js';
import { mimeTags } from '../matching/index.js';
import { after } from '../maybe.js';
import { fieldSource } from './fields.js';

export const exists: TestDefinition = {
  name: 'exists',
  tags: mimeTags,
  positional: [{ name: 'header-names', type: 'strings' }],
  compile(arguments_, context) {
    const names = arguments_.texts('header-names')!;
    const source = fieldSource(arguments_, context, 'header-names');
    return (run) =>
      after(source(run), (fields) => {
        const found = new Set(fields.map(({ name }) => name));
        return names.every((name) => found.has(name.of(run).toLowerCase()));
      });
  },
};
