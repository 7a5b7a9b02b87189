/** Operations on the cluster-wide settings. Secrets come in through `flags.secret`, read from files by the command line, and never go out. */
import type { Operation } from './operation.js';
import type { settingsRuns } from './settings-runs.js';

const changeFlags = '[--comment TEXT] [--expected-version N]';

/** What it does is loaded when it is done: a command for a running node never needs it. */
function operation(name: keyof typeof settingsRuns, usage: string, summary: string): Operation {
  return { usage, summary, run: async (context, args) => (await import('./settings-runs.js')).settingsRuns[name](context, args) };
}

/** By name, two words each. */
export const settingsOperations: Record<string, Operation> = {
  'settings show': operation('show', '[PATH] [--changed] [--version N]', 'settings of the cluster: all, or only what was set'),
  'settings set': operation(
    'set',
    `[PATH=VALUE ...] [--secret-file PATH=FILE ...] ${changeFlags}`,
    'change settings; values in TOML or JSON',
  ),
  'settings unset': operation('unset', `PATH ${changeFlags}`, 'back to the default'),
  'settings apply': operation('apply', `FILE ${changeFlags}`, 'replace the sections that a TOML file names'),
  'settings history': operation('history', '[--limit N]', 'versions, newest first'),
  'settings rollback': operation('rollback', `VERSION ${changeFlags}`, 'bring back the contents of an old version'),
  'settings reseal': operation('reseal', '', 'seal all secrets with the newest cluster key'),
  'settings schema': { ...operation('schema', '', 'what can be set, as JSON Schema'), isOffline: true },
};
