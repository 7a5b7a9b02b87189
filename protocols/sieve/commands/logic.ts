/** RFC 5228 5.2, 5.3, 5.8, 5.9, 5.10: `allof`, `anyof`, `not`, `true`, `false`; and `stop` (3.3). */
import type { CommandDefinition, TestDefinition } from '../contract.js';
import { always, combination, never } from '../flow.js';
import { after } from '../maybe.js';

export const allof: TestDefinition = {
  name: 'allof',
  tests: 'list',
  decidedBy: false,
  compile(_arguments, _context, tests) {
    if (tests.includes(never)) return never;
    return tests.every((test) => test === always) ? always : combination(tests, false);
  },
};

export const anyof: TestDefinition = {
  name: 'anyof',
  tests: 'list',
  decidedBy: true,
  compile(_arguments, _context, tests) {
    if (tests.includes(always)) return always;
    return tests.every((test) => test === never) ? never : combination(tests, true);
  },
};

export const not: TestDefinition = {
  name: 'not',
  tests: 'one',
  compile(_arguments, _context, tests) {
    const test = tests[0]!;
    if (test === always) return never;
    if (test === never) return always;
    return (run) => after(test(run), (holds) => !holds);
  },
};

export const trueTest: TestDefinition = { name: 'true', compile: () => always };
export const falseTest: TestDefinition = { name: 'false', compile: () => never };

export const stop: CommandDefinition = { name: 'stop', compile: () => () => 'stop' };
