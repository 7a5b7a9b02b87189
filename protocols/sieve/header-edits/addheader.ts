/** RFC 5293 4 `addheader`. */
import type { CommandDefinition } from '../contract.js';
import { fieldNameOf, fieldValueOf } from './field-texts.js';

export const addheader: CommandDefinition = {
  name: 'addheader',
  tags: { last: {} },
  positional: [
    { name: 'field-name', type: 'string' },
    { name: 'value', type: 'string' },
  ],
  compile(arguments_, context) {
    const isLast = arguments_.hasTag('last');
    const nameOf = fieldNameOf(arguments_.text('field-name')!, context);
    const rawValueOf = fieldValueOf(arguments_.text('value')!, context);
    return (run) => {
      const name = nameOf(run);
      run.header.add({ name, value: rawValueOf(run, name) }, isLast);
    };
  },
};
