/**
 * Look-up lists that operators keep in the store and expressions ask (`key_exists('blocked-senders', sender)`). Keys are lower case: what is given is
 * lowered. Names, keys and values are text in UTF-8.
 */
import type { KvTransaction } from '../kv/contract.js';

export interface LookupEntry {
  key: string;
  value: string;
  /** Absent: until it is removed. */
  expiresAtMs?: number;
}

/** All throw KvError, and RangeError (with a sentence) for what is no name of a list. */
export interface Lookups {
  /** Undefined when absent, over, or longer than a key can be. Answers of at most a second's age. */
  get(list: string, key: string): Promise<string | undefined>;
  /**
   * Adds or replaces. Some hundred entries at a time become visible together, not all of a long list. Throws RangeError, with nothing written, for entries
   * beyond the limits.
   */
  set(list: string, entries: readonly LookupEntry[]): Promise<void>;
  /** Answers how many there were. */
  remove(list: string, keys: readonly string[]): Promise<number>;
  /** In the order of their keys' bytes, without those that are over. Resumes after `afterKey`. Default: 1,000, at most 10,000. */
  entries(list: string, options?: { afterKey?: string; limit?: number }): Promise<LookupEntry[]>;
  /** Lists with at least one entry (one that is over and not yet purged included). */
  lists(): Promise<string[]>;
  /** In the job `purge`: removes what is over, six hours later (clocks differ). `assert` is called in each transaction, and may throw. */
  forgetExpired(nowMs: number, assert?: (tx: KvTransaction) => Promise<void>): Promise<void>;
}

export const lookupLimits = {
  /** [a-z0-9-]. */
  maxListNameBytes: 64,
  maxKeyBytes: 512,
  maxValueBytes: 4_096,
  maxEntriesPerCall: 10_000,
} as const;
