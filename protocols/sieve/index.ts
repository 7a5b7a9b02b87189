/** The room's public face: scripts compiled and run. */
export {
  type CompileOptions,
  type Position,
  type RawField,
  type SieveAction,
  type SieveEnvelope,
  SieveError,
  type SieveHost,
  type SieveInput,
  type SieveLimits,
  type SieveMessage,
  type SieveOutcome,
  SieveRunError,
  type SieveScript,
} from './contract.js';
export { defaultSieveLimits } from './limits.js';
export { compileSieve, sieveExtensions } from './script.js';
/** Names of our own items of the environment. */
export { spamPercentItem, spamScoreItem, timeZoneItem, virusScoreItem } from './tests/index.js';
