/** The public face of the key-value store. */

export { describeStoreAddress, parseStoreAddress, type StoreAddress } from './address.js';
export {
  type Committed,
  type KeyValue,
  KvError,
  type KvErrorCode,
  type KvReads,
  type KvStore,
  type KvTransaction,
  type KvView,
  type KvWatch,
  keyAfter,
  kvLimits,
  prefixEnd,
  type RangeOptions,
  type TransactOptions,
  type UnavailableReason,
} from './contract.js';
export { type EmbeddedStoreOptions, openEmbeddedStore, openEmbeddedView } from './embedded/store.js';
export { MemoryDatabase } from './memory/database.js';
export { type MemoryFaultOptions, MemoryFaults, type MemoryOperation } from './memory/faults.js';
export { type MemoryStore, type MemoryStoreOptions, openMemoryStore } from './memory/store.js';
