/** Scripts judged when they are saved, and compiled once for all the settings that hold them. */
import { compileSieve, SieveError, type SieveScript } from '../../protocols/sieve/index.js';
import type { ScriptStage } from '../mailflow/stages/contract.js';
import { defaultMaxSteps, scriptOptions } from '../mailflow/stages/script-rules.js';

/** By stage, limit and text. As many as the scripts of one section at all of their stages, and some of the version before. */
const compiled = new Map<string, SieveScript>();
const maxKept = 256;

/** For this stage, or as far as it can be told without one. Throws SieveError. */
export function compileScript(text: string, stage?: ScriptStage, maxSteps = defaultMaxSteps): SieveScript {
  const key = `${stage ?? ''} ${maxSteps} ${text}`;
  const known = compiled.get(key);
  if (known) return known;
  const script = compileSieve(text, scriptOptions(stage, maxSteps));
  if (compiled.size >= maxKept) compiled.delete(compiled.keys().next().value!);
  compiled.set(key, script);
  return script;
}

/** What is wrong with a script, as a sentence with its place; undefined: nothing. */
export function scriptProblem(name: string, text: string, stage?: ScriptStage): string | undefined {
  try {
    compileScript(text, stage);
    return undefined;
  } catch (error) {
    if (!(error instanceof SieveError)) throw error;
    const { line, column } = error.at;
    const where = stage === undefined ? '' : ` can't run at ${stage}`;
    return `the script ${name}${where}: line ${line}, column ${column}: ${error.message}`;
  }
}
