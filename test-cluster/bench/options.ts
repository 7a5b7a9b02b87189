/** What benchmarks can be told on the command line. */

export const benchStores = ['embedded', 'memory', 'postgres', 'foundationdb'] as const;

export interface BenchOptions {
  /** Default: what the benchmark says. */
  store?: (typeof benchStores)[number];
  /** On one shared store. */
  nodes?: number;
  /** How many messages, where a benchmark lets one choose. */
  messages?: number;
  /** How many connections, where a benchmark lets one choose. */
  connections?: number;
  /** How many clients at once, where a benchmark lets one choose. */
  clients?: number;
  /** Over how many users they are spread: with one, all are in the same account. */
  users?: number;
  /** One part of a benchmark that has parts. */
  only?: string;
}
