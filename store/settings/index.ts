/** The public face of the cluster-wide settings. */
export * from './contract.js';
export { checkClusterKey, hasClusterKey } from './key-check.js';
export { getAt as valueAt, parsePath } from './paths.js';
export { isKnownPath, isSecretPath, type SchemaTree, sectionSchemas } from './schema.js';
export {
  createSealer,
  makeClusterKey,
  parseClusterKeys,
  SealError,
  type SealErrorCode,
  type Sealer,
  type SealPlace,
  sealOverheadBytes,
} from './seal.js';
export { checkFirstSettings, openSettings, type SettingsOptions } from './settings.js';
