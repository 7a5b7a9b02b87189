/**
 * The public face of the directory.
 */
export { type ParsedAddress, parseAddress, parseDomain, tryParseAddress, tryParseDomain } from './addresses.js';
export * from './contract.js';
export { createDirectory, type DirectoryOptions, type OpenDirectory } from './directory.js';
export { readGeneration } from './memo.js';
export { scramIterations, scramSaltBytes } from './passwords.js';
