/** The face of the analysis of texts. */
export * from './contract.js';
export { foldText } from './fold.js';
export { detectLanguage } from './languages.js';
export { queryRuns } from './query-runs.js';
export { splitRuns } from './runs.js';
export { stemsOf } from './stems.js';
export { wordsOf } from './words.js';
