import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assignJobs } from './assignment.js';

const names = (prefix: string, max: number) =>
  fc.uniqueArray(fc.integer({ min: 0, max: 999 }), { maxLength: max }).map((all) => all.map((n) => `${prefix}${n}`));

describe('the assignment of jobs to members', () => {
  it('is even, complete, and the same in whatever order it is asked', () => {
    fc.assert(
      fc.property(names('job', 20), names('node', 12), (jobs, members) => {
        const assigned = assignJobs(jobs, members);
        expect(new Map(assignJobs([...jobs].reverse(), [...members].reverse()))).toEqual(assigned);
        expect([...assigned.keys()].sort()).toEqual(members.length > 0 ? [...jobs].sort() : []);
        if (members.length === 0) return;
        const counts = members.map((member) => [...assigned.values()].filter((one) => one === member).length);
        expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
      }),
    );
  });

  it('does not always favour the same member', () => {
    const members = ['a', 'b', 'c', 'd'];
    const chosen = new Set(Array.from({ length: 40 }, (_, n) => assignJobs([`job${n}`], members).get(`job${n}`)));
    expect([...chosen].sort()).toEqual(members);
  });
});
