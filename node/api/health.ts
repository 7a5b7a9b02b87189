/**
 * What load balancers and Prometheus ask: is the process alive, can this node serve, what are its numbers. Readiness asks the
 * store, but no more than once a second however many ask us, and never twice at a time.
 */
import type { Registry } from 'prom-client';
import {
  type Clock,
  gauge,
  type Logger,
  registry as nodeRegistry,
  silentLogger,
  systemClock,
} from '../../ops/telemetry/index.js';
import { HttpError, type HttpRequest, jsonResponse, type RouteOptions, type RouteRegistry } from '../../protocols/http/index.js';

/** As the last question found it; a node that nobody asks keeps its last answer. */
const nodeReady = gauge('starling_ready', 'Whether the last readiness probe found this node ready (1) or not (0).');

export interface Readiness {
  ready: boolean;
  /** Why not; one sentence each. */
  reasons: string[];
}

export interface HealthOptions {
  /** Asks what readiness depends on, above all the store. May hang or throw: then the node is not ready. */
  probe(): Promise<Readiness>;
  /** True from the beginning of a drain: unready at once, without asking. */
  isDraining(): boolean;
  clock?: Clock;
  /** Told of every change: an operator wants to know afterwards why a balancer turned away. */
  logger?: Logger;
  /** How long `probe` may take. Default 2 000. */
  deadlineMs?: number;
  /** How long an answer is used again. Default 1 000. */
  cacheMs?: number;
}

/** Balancers probe by address or under names of their own; probes must not go through any limit or certificate's name. */
const routeOptions: RouteOptions = { anyHost: true, maxBodyBytes: 0, timeoutMs: 10_000 };
const headers = { 'cache-control': 'no-store' };
const retryAfterSeconds = '5';

/** `GET /health/live`: the process answers. `GET /health/ready`: 200, or 503 with `reasons`. */
export function registerHealth(routes: RouteRegistry, options: HealthOptions): void {
  const readiness = new ReadinessProbe(options);
  const { logger = silentLogger } = options;
  let wasReady = false;
  routes.route('GET', '/health/live', () => jsonResponse(200, { status: 'live' }, headers), routeOptions);
  routes.route(
    'GET',
    '/health/ready',
    async () => {
      const { ready, reasons } = await readiness.ask();
      nodeReady.set(ready ? 1 : 0);
      if (ready !== wasReady && !options.isDraining()) {
        if (ready) logger.info('this node is ready');
        else logger.warn({ reasons }, 'this node is not ready');
        wasReady = ready;
      }
      if (ready) return jsonResponse(200, { status: 'ready', reasons: [] }, headers);
      const later = { ...headers, 'retry-after': retryAfterSeconds };
      return jsonResponse(503, { status: options.isDraining() ? 'draining' : 'not ready', reasons }, later);
    },
    routeOptions,
  );
}

export interface MetricsOptions {
  registry?: Registry;
  /** Who may read; everybody by default. */
  mayRead?(request: HttpRequest): boolean;
}

/** `GET /metrics` in the text format of Prometheus. */
export function registerMetrics(routes: RouteRegistry, options: MetricsOptions = {}): void {
  const registry = options.registry ?? nodeRegistry;
  routes.route(
    'GET',
    '/metrics',
    async (request) => {
      if (options.mayRead && !options.mayRead(request)) throw new HttpError(403, 'Metrics are not for this client.');
      return { status: 200, headers: { 'content-type': registry.contentType, ...headers }, body: await registry.metrics() };
    },
    routeOptions,
  );
}

class ReadinessProbe {
  readonly #options: HealthOptions;
  readonly #clock: Clock;
  readonly #deadlineMs: number;
  #last: { atMs: number; readiness: Readiness } | undefined;
  /** The question under way, shared by all who ask; it settles by the deadline. */
  #asking: Promise<Readiness> | undefined;
  /** The probe itself has not come back: a second one is not started beside it, however long it hangs. */
  #hanging = false;

  constructor(options: HealthOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#deadlineMs = options.deadlineMs ?? 2_000;
  }

  async ask(): Promise<Readiness> {
    if (this.#options.isDraining()) return { ready: false, reasons: ['The node is draining.'] };
    const { cacheMs = 1_000 } = this.#options;
    if (this.#last && this.#clock.monotonicMs() - this.#last.atMs < cacheMs) return this.#last.readiness;
    if (this.#hanging && !this.#asking) return this.#late();
    this.#asking ??= this.#probe();
    return this.#asking;
  }

  async #probe(): Promise<Readiness> {
    this.#hanging = true;
    const answer = this.#answer();
    const readiness = await new Promise<Readiness>((resolve) => {
      const timer = this.#clock.setTimer(this.#deadlineMs, () => resolve(this.#late()), { background: true });
      void answer.then((found) => {
        timer.cancel();
        resolve(found);
      });
    });
    this.#asking = undefined;
    return readiness;
  }

  /** Never rejects. An answer that comes after the deadline still counts for those who ask next. */
  async #answer(): Promise<Readiness> {
    let readiness: Readiness;
    try {
      readiness = await this.#options.probe();
    } catch (error) {
      readiness = {
        ready: false,
        reasons: [`The readiness probe failed: ${error instanceof Error ? error.message : String(error)}`],
      };
    }
    this.#hanging = false;
    this.#last = { atMs: this.#clock.monotonicMs(), readiness };
    return readiness;
  }

  #late(): Readiness {
    return { ready: false, reasons: [`The readiness probe has not come back within ${this.#deadlineMs} ms.`] };
  }
}
