import fc from 'fast-check';
import { describe, it } from 'vitest';
import { raceOnce } from './race.suite.js';

describe('links, unlinks and purges on several nodes, with conflicts and unknown commits', () => {
  it('never lose a linked blob and leave nothing behind', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer(), (seed) => raceOnce(seed)),
      { numRuns: 25 },
    );
  });
});
