/** RFC 5228 4.3 `keep`, with `:flags` (RFC 5232), and 4.4 `discard`. */
import type { CommandDefinition } from '../contract.js';
import { flagsTag, storedFlags } from './flags.js';

export const keep: CommandDefinition = {
  name: 'keep',
  tags: { flags: flagsTag },
  compile(arguments_, context) {
    const flags = storedFlags(arguments_, context);
    return (run) => {
      run.act(flags ? { kind: 'keep', flags: flags(run) } : { kind: 'keep' });
      run.isImplicitKeepCancelled = true;
    };
  },
};

export const discard: CommandDefinition = {
  name: 'discard',
  compile: () => (run) => {
    run.act({ kind: 'discard' });
    run.isImplicitKeepCancelled = true;
  },
};
