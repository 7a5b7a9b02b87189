/** RFC 6134 2.7 `valid_ext_list`: whether all the names are names of lists here. */
import type { TestDefinition } from '../contract.js';

export const validExtList: TestDefinition = {
  name: 'valid_ext_list',
  requires: ['extlists'],
  positional: [{ name: 'list-names', type: 'strings' }],
  compile(arguments_) {
    const names = arguments_.texts('list-names')!;
    return async (run) => {
      const host = run.input.host;
      if (!host?.isListName) return false;
      for (const name of names) {
        run.spend(1);
        if (!(await host.isListName(name.of(run)))) return false;
      }
      return true;
    };
  },
};
