/**
 * The node's metrics registry. Each room declares its own counters at the top of the file that counts them, through
 * `counter`, `gauge` and `histogram`, named `starling_*`, with labels of bounded cardinality (never an address, an id, a domain).
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

export const registry = new Registry();

/** Seconds: from a memory read to an hour of retry. */
export const latencyBucketsSeconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

export function counter<L extends string = never>(name: string, help: string, labelNames: readonly L[] = []): Counter<L> {
  return new Counter<L>({ name, help, labelNames: [...labelNames], registers: [registry] });
}

export function gauge<L extends string = never>(
  name: string,
  help: string,
  labelNames: readonly L[] = [],
  collect?: (gauge: Gauge<L>) => void | Promise<void>,
): Gauge<L> {
  const options = { name, help, labelNames: [...labelNames], registers: [registry] };
  if (!collect) return new Gauge<L>(options);
  return new Gauge<L>({
    ...options,
    collect() {
      return collect(this);
    },
  });
}

export function histogram<L extends string = never>(
  name: string,
  help: string,
  labelNames: readonly L[] = [],
  buckets: readonly number[] = latencyBucketsSeconds,
): Histogram<L> {
  return new Histogram<L>({ name, help, labelNames: [...labelNames], buckets: [...buckets], registers: [registry] });
}

let processMetricsOn = false;

/** Process metrics (CPU, memory, event loop delay) under `starling_`; once per process. */
export function enableProcessMetrics(): void {
  if (processMetricsOn) return;
  processMetricsOn = true;
  collectDefaultMetrics({ register: registry, prefix: 'starling_' });
}
