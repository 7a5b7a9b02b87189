/**
 * Limits that hold for the whole cluster: rates, concurrency, greylisting, bans. Counted in the store without a hot key: a node takes small lots of a
 * rate's allowance and spends them by itself; what is told about one address or sender meets only that one's keys.
 */
import type { KvReads } from '../kv/contract.js';

/**
 * At most `count` within any `periodSeconds` (1 to 31 days; whole milliseconds count). A period is counted in 24 buckets: uses are forgotten up to a twelfth of
 * the period later than they would have to be, so somebody who always takes what there is gets a good 90 % of `count` per period.
 */
export interface Rate {
  count: number;
  periodSeconds: number;
}

/** `limited`: to be tried again after so long (whole seconds, at least 1). */
export type RateVerdict = { isAllowed: true } | { isAllowed: false; retryAfterSeconds: number };

export interface RateLimiter {
  /**
   * Takes `amount` (a positive integer; default 1) from the allowance of `key` under the limit `name` ([a-z0-9.-]). Within any period the cluster lets at most
   * `count` through, as counted when each take was decided. Keys under another name or period are other keys; what was used under another `count` is
   * counted.
   *
   * - A node takes lots of at most an eighth of what is left, spends them without I/O within their bucket (a 24th of the period), and gives back what it did
   *   not need when it asks again. Without a next time, and when a node dies, the rest of the lot stays used for the period. Prefer long periods: 1,200 per
   *   60 s costs a node one transaction in seconds, 20 per second one for nearly each take.
   * - A refusal is remembered: a key at its limit costs each node one read per bucket (1 s to 30 s), whoever hammers at it.
   * - Clocks: exact while the nodes' clocks differ by less than a bucket. Beyond that a key lives by the most advanced clock that has used it, and the others
   *   follow it; each time a clock that is further ahead meets a key, what was used before may be forgotten too early: at most one allowance more. Records
   *   more than a day ahead are pulled back to the node's own time with all their uses.
   * - After an unknown commit a lot may be lost (too strict), never given twice.
   *
   * Throws RangeError, and KvError: the caller decides whether to be lenient (it should be, with a metric).
   */
  take(name: string, key: string, rate: Rate, amount?: number): Promise<RateVerdict>;
  /** Whether a take of 1 would be allowed. Takes nothing. Throws as `take`. */
  peek(name: string, key: string, rate: Rate): Promise<RateVerdict>;
  /**
   * Counts `amount` more uses (default 1) and answers those within the last period, on all nodes, approximate: up to a second old, up to a 24th of the
   * period too many. Apart from `take`: the same name and key are not the same uses. What a node counted in its last second dies with it. Throws as `take`.
   */
  count(name: string, key: string, periodSeconds: number, amount?: number): Promise<number>;
}

/**
 * Something of which only so many may be at once in the whole cluster. What a dead node held is free when its fence is broken, seconds after its death; until
 * then it counts. A node needs its own fence (`cluster/membership`), or the others do not count what it holds.
 */
export interface ConcurrencyLimiter {
  /**
   * Undefined when there are `max` already. The slot is given back by calling the answer (harmless to call again). Where there are plenty a node keeps some
   * in advance, at most as many as it has and an eighth of what is left, and gives them back a second after their use. Throws KvError: nothing is held then.
   */
  acquire(name: string, key: string, max: number): Promise<(() => void) | undefined>;
}

export interface GreylistRule {
  /** First attempts are put off for so long. */
  delaySeconds: number;
  /** A second attempt must come within this. */
  windowSeconds: number;
  /** Who has passed, and whoever is with him in the same network, passes for so long, renewed by use. */
  lifetimeSeconds: number;
}

export interface Greylist {
  /**
   * `network`: the client's /24 or /64 (`networkOf`). Answers whether it may pass now, else after how long. Times are wall clock: where clocks differ somebody
   * waits up to one more delay, or passes earlier. Throws KvError.
   */
  check(triplet: { network: string; sender: string; recipient: string }, rule: GreylistRule): Promise<RateVerdict>;
}

export type BanReason = 'login' | 'abuse' | 'spam-trap' | 'errors' | 'operator' | 'dnsbl' | (string & {});

export interface Ban {
  /** An address or a network in CIDR notation. */
  network: string;
  reason: BanReason;
  /** Sentence for operators. */
  note: string;
  bannedAtMs: number;
  /** Absent: until somebody lifts it. */
  untilMs?: number;
}

/**
 * Bans by address, held in memory on every node and found without waiting. Members' own addresses, trusted proxies and loopback are banned by operators only,
 * also inside a wider network. Ends are compared with each node's own clock. Throws KvError where it says nothing else.
 */
export interface Bans {
  /** Loads them, and looks for changes every 30 s; the bus is faster. */
  start(): Promise<void>;
  stop(): Promise<void>;
  /** At accept: synchronous, well under a microsecond for IPv4. The ban of the smallest network around the address that holds. */
  find(address: string): Ban | undefined;
  /**
   * Holds here at once, elsewhere when it has got around. A ban by others does not shorten one that lasts longer, and does not touch an operator's. Nothing
   * happens (but a line in the log and a metric) when the address is exempt or there are 200,000 bans. Throws RangeError with a sentence for what is no
   * network, is wider than /8 (IPv6: /16), or has too long a note.
   */
  add(ban: Omit<Ban, 'bannedAtMs'>): Promise<void>;
  /** Of exactly this network. Answers whether there was one. Throws RangeError for what is no network. */
  lift(network: string): Promise<boolean>;
  /** Those that hold now, from the store. */
  list(): Promise<Ban[]>;
  /** For the bus (`GenerationSource` named `bans`). */
  readGeneration(reads: KvReads): Promise<string>;
  reload(): Promise<void>;
  /** Told after each change that was made here. */
  onChanged(listener: () => void): () => void;
  /** Forgets those that are over. In the job `purge`. */
  forgetExpired(): Promise<void>;
}

/**
 * What wrong passwords cost: by address and by (address, login), never by login alone (TRAPS 35: a victim can't be locked out by a stranger). Never throws:
 * when the store can't be asked it lets everybody try, slowly.
 */
export interface LoginGuard {
  /** Before a password is checked: how long to wait first, or that this address may not try now (then `delayMs` is 0). */
  admit(attempt: LoginAttempt): Promise<{ isAdmitted: boolean; delayMs: number }>;
  /** What came of an attempt that was admitted and checked; not to be called when the check itself failed. May end in a ban of the address. */
  record(attempt: LoginAttempt, isGood: boolean): Promise<void>;
}

export interface LoginAttempt {
  remoteAddress: string;
  /** As the directory knows it when it does, else as it was given. */
  login: string;
  protocol: string;
  /** No such account, for `record` (when absent the guard asks the directory): guessing names counts more. Never to be seen from outside. */
  isUnknownLogin?: boolean;
}
