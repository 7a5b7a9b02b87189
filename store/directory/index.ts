/**
 * The public face of the directory.
 */
export { type ParsedAddress, parseAddress, parseDomain, tryParseAddress, tryParseDomain } from './addresses.js';
export * from './contract.js';
export { createDirectory, type DirectoryOptions, type OpenDirectory } from './directory.js';
export { finishHmacMd5, hmacMd5StateBytes } from './hmac-md5-state.js';
export { digestHa1, digestRealm, digestText, type LegacyKeys, legacyKeys } from './legacy-secret.js';
export { readGeneration } from './memo.js';
export { scramIterations, scramSaltBytes } from './passwords.js';
