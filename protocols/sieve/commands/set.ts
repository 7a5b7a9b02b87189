/** RFC 5229 4: `set`. */
import type { CommandDefinition } from '../contract.js';
import { modifierOf, modifierTags } from './modifiers.js';

export const set: CommandDefinition = {
  name: 'set',
  tags: modifierTags,
  positional: [
    { name: 'name', type: 'string' },
    { name: 'value', type: 'string' },
  ],
  compile(arguments_, context) {
    const name = context.variableName(arguments_.text('name')!);
    const value = arguments_.text('value')!;
    const modify = modifierOf(arguments_);
    return (run) => {
      const text = value.of(run);
      run.setVariable(name, modify ? modify(text) : text);
    };
  },
};
