/** The grammar of Sieve: from bytes to a tree of commands. */
export { type GrammarLimits, parseSieve } from './parser.js';
