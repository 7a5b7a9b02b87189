/** A script as it is kept: compiled once, run by any number of messages. */
import { compileCommands } from './compile.js';
import type { Action, CompileOptions, SieveInput, SieveLimits, SieveOutcome, SieveScript } from './contract.js';
import { sieveRegistry } from './extensions.js';
import { parseSieve } from './grammar/index.js';
import { defaultSieveLimits } from './limits.js';
import { SieveRun } from './run.js';

/** Compiled scripts that one script has included, kept with it. */
const maxKeptIncludes = 32;

/**
 * Compiles a script.
 * @param script UTF-8
 * @throws SieveError: the first thing that is wrong in it, with its place. Nothing else is thrown.
 */
export function compileSieve(script: Buffer | string, options: CompileOptions): SieveScript {
  const limits: SieveLimits = { ...defaultSieveLimits, ...options.limits };
  const { main, required } = compileText(script, options, limits);
  const included = new Map<string, Action>();
  const compileIncluded = (text: string): Action => {
    const known = included.get(text);
    if (known) return known;
    const action = compileText(text, options, limits).main;
    if (included.size >= maxKeptIncludes) included.delete(included.keys().next().value!);
    included.set(text, action);
    return action;
  };
  return {
    required,
    async run(input: SieveInput): Promise<SieveOutcome> {
      return await new SieveRun(input, limits, compileIncluded).complete(main);
    },
  };
}

function compileText(script: Buffer | string, options: CompileOptions, limits: SieveLimits) {
  return compileCommands(parseSieve(script, limits), sieveRegistry, options);
}

/** All extensions that a script may be allowed to require, in alphabetical order: for `CompileOptions.extensions` and ManageSieve's SIEVE. */
export function sieveExtensions(): readonly string[] {
  return sieveRegistry.names;
}
