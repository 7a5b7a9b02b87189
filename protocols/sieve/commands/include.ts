/** RFC 6609: `include`, `return`, `global`. */
import { type CommandDefinition, SieveRunError } from '../contract.js';
import { stepsPerQuestion } from '../limits.js';
import { after } from '../maybe.js';
import type { IncludingRun } from '../scope.js';

/** RFC 6609 3.2 leaves names to the server; these no server has (RFC 5804 1.6). */
const wrongName = /[\x00-\x1f\x7f\u2028\u2029]/;
const maxNameBytes = 512;

export const include: CommandDefinition = {
  name: 'include',
  tags: {
    personal: { group: 'location' },
    global: { group: 'location' },
    once: {},
    optional: {},
  },
  positional: [{ name: 'script', type: 'string' }],
  compile(arguments_, context) {
    const script = arguments_.text('script')!;
    const name = script.constant ?? context.fail('the name of an included script must be a constant', script.at);
    if (name === '' || wrongName.test(name) || Buffer.byteLength(name) > maxNameBytes) {
      context.fail('this is no name of a script', script.at);
    }
    const location = arguments_.hasTag('global') ? 'global' : 'personal';
    const isOnce = arguments_.hasTag('once');
    const isOptional = arguments_.hasTag('optional');
    const key = location === 'global' ? `:global ${name}` : name;
    return (given) => {
      const run = given as IncludingRun;
      if (isOnce && run.wasIncluded(key)) return undefined;
      run.spend(stepsPerQuestion);
      return after(run.input.host?.include?.(name, location), (text) => {
        if (text !== undefined) return run.include(key, text);
        if (!isOptional) throw new SieveRunError(`there is no ${location} script '${name}' to include`, script.at);
        return undefined;
      });
    };
  },
};

/** RFC 6609 3.3: without an including script it is as good as `stop`. */
export const returnCommand: CommandDefinition = { name: 'return', compile: () => () => 'return' };

export const global: CommandDefinition = {
  name: 'global',
  positional: [{ name: 'names', type: 'strings' }],
  compile(arguments_, context) {
    if (!context.hasRequired('variables')) {
      context.fail(`'global' needs 'require "variables";' at the script's start`, arguments_.at);
    }
    const names = arguments_.texts('names')!.map((text) => {
      const name = context.variableName(text);
      if (name.includes('.')) context.fail("the name of a global variable has no '.'", text.at);
      return name;
    });
    return (run) => {
      (run as IncludingRun).declareGlobal(names);
    };
  },
};
