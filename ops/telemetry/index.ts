export { type Clock, type Random, sleepOn, systemClock, systemRandom, type Timer } from './clock.js';
export { createLogger, type Logger, silentLogger } from './logger.js';
export { counter, enableProcessMetrics, gauge, histogram, latencyBucketsSeconds, registry } from './metrics.js';
