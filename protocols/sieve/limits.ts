/** What a script may cost: the limits that hold where nobody has set others. */
import type { SieveLimits } from './contract.js';

export const defaultSieveLimits: Readonly<SieveLimits> = {
  maxScriptBytes: 1_048_576,
  maxNesting: 32,
  maxCommands: 10_000,
  maxTextBytes: 262_144,
  maxListItems: 4096,
  // Tens of milliseconds of one core as a rule; a fifth of a second for what is dearest a step (wildcards, a header of ten thousand fields).
  maxSteps: 100_000,
  maxVariables: 128,
  maxVariableBytes: 16_384,
  // RFC 6609 3: at least three levels.
  maxIncludes: 32,
  maxIncludeDepth: 10,
  maxRedirects: 8,
  maxActions: 32,
  maxAddedFields: 32,
  maxMessageBytes: 16_777_216,
};

/** What a question to the host costs of a run's steps: it may be a read of the store. */
export const stepsPerQuestion = 100;

/** Whatever is asked for: compiling a script recurses this deep at most, which any stack holds. */
export const nestingCeiling = 200;
