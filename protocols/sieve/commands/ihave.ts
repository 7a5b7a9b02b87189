/** RFC 5463: `ihave` asks for extensions instead of requiring them; `error` ends a run that can't go on. */
import { type CommandDefinition, SieveRunError, type TestDefinition } from '../contract.js';
import { always, never } from '../flow.js';

/** Its answer is known when the script is compiled. What it finds is usable from there on. */
export const ihave: TestDefinition = {
  name: 'ihave',
  positional: [{ name: 'capabilities', type: 'strings' }],
  compile(arguments_, context) {
    const names = arguments_
      .texts('capabilities')!
      .map(({ constant, at }) => constant ?? context.fail("what 'ihave' asks for must be a constant", at));
    if (!names.every((name) => context.isAvailable(name))) return never;
    for (const name of names) context.enable(name);
    return always;
  },
};

export const error: CommandDefinition = {
  name: 'error',
  positional: [{ name: 'message', type: 'string' }],
  compile(arguments_) {
    const message = arguments_.text('message')!;
    return (run) => {
      throw new SieveRunError(message.of(run), arguments_.at);
    };
  },
};
