/** The public face of the search store. */
export type { StemLanguage } from './analysis/contract.js';
export type { SearchAnalysis } from './build.js';
export {
  type Breathe,
  type SearchDocument,
  SearchError,
  type SearchErrorCode,
  type SearchField,
  type SearchStore,
  type SearchTerm,
  type SearchView,
  searchFields,
  type TermAnswer,
} from './contract.js';
export { createSearchStore, type SearchStoreOptions } from './store.js';
