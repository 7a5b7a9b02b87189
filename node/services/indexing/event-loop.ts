/** How much this process has to do. */
import { performance } from 'node:perf_hooks';

/** Answers, each time, which part of the time since it was last asked the event loop was at work (0 to 1). */
export function eventLoopLoad(): () => number {
  let last = performance.eventLoopUtilization();
  return () => {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, last);
    last = now;
    return Number.isFinite(utilization) ? utilization : 0;
  };
}
