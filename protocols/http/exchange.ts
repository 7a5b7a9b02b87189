/**
 * One request and its response. The single place that holds the engine's native response: after the end or an abort nothing
 * here touches it again, whatever the handler, a timer or a late chunk does.
 */
import type { Clock, Logger, Timer } from '../../ops/telemetry/index.js';
import { counter, gauge, histogram } from '../../ops/telemetry/index.js';
import { KvError } from '../../store/kv/contract.js';
import { RequestBody, tooLarge } from './body.js';
import { HttpError } from './errors.js';
import { type HttpRequest, type HttpResponse, problemResponse } from './messages.js';
import { dispose, ResponseWriter } from './response-writer.js';
import type { Route, Router } from './router.js';
import type { UwsRequest, UwsResponse } from './uws.js';

/** `route` is the pattern, or `unmatched`; `status` 499 = the client went away before the response had begun. */
const requestsTotal = counter('starling_http_requests_total', 'HTTP requests answered.', ['route', 'method', 'status']);
const requestSeconds = histogram('starling_http_request_seconds', 'Time from the request to the last byte of its response.', [
  'route',
  'method',
]);
const inFlight = gauge('starling_http_requests_in_flight', 'HTTP requests that are being worked on.', ['listener']);

const knownMethods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

/**
 * A body that nobody has read is dropped as it comes, so that the client can read our answer; one that is larger than this is not
 * waited for: the connection is closed after the answer.
 */
const maxDiscardBytes = 16 * 1024 * 1024;

/** RFC 9110 10.2.3: with every 503 of ours. */
const retryAfter = { 'retry-after': '5' };

/** What an exchange needs of its server. */
export interface ExchangeHost {
  readonly name: string;
  readonly secure: boolean;
  readonly router: Router;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly requestTimeoutMs: number;
  readonly maxBodyBytes: number;
  readonly draining: AbortSignal;
  clientAddress(res: UwsResponse): string;
  finished(exchange: Exchange): void;
}

export class Exchange {
  readonly #res: UwsResponse;
  #state: 'handling' | 'responding' | 'done' = 'handling';
  #begun = false;
  readonly #writer: ResponseWriter;
  #body: RequestBody | undefined;
  #timer: Timer | undefined;
  #abortController: AbortController | undefined;
  #abortReason: HttpError | undefined;
  readonly #startedMs: number;
  readonly #method: string;
  readonly #path: string;
  #route = 'unmatched';
  #status = 499;

  constructor(
    private readonly host: ExchangeHost,
    res: UwsResponse,
    req: UwsRequest,
  ) {
    this.#res = res;
    this.#startedMs = host.clock.monotonicMs();
    this.#method = req.getCaseSensitiveMethod();
    this.#path = req.getUrl();
    const exchange = this;
    this.#writer = new ResponseWriter(res, {
      get live() {
        return exchange.#state !== 'done';
      },
      begun: () => {
        this.#begun = true;
        this.#timer?.cancel();
      },
      ending: () => this.#body?.release(),
      ended: () => this.#finish(),
    });
    inFlight.inc({ listener: host.name });
    res.onAborted(() => this.#abort(new HttpError(499, 'The client closed the connection.')));
  }

  /**
   * Runs the request. Must be called in the engine's own request callback: there the request is readable, and a body must find
   * its reader attached.
   * @param isOurHost whether the Host header belongs to the certificate that the client has been shown.
   */
  start(req: UwsRequest, isOurHost: (host: string) => boolean): void {
    let request: HttpRequest;
    let route: Route;
    try {
      const matched = this.host.router.match(this.#method, this.#path);
      route = matched.route;
      this.#route = route.pattern;
      const host = hostName(req.getHeader('host'));
      if (!route.options.anyHost && !isOurHost(host)) {
        throw new HttpError(421, `This connection was opened for another name than ${host}.`);
      }
      this.#attachBody(req, route);
      request = this.#request(req, host, matched.params);
    } catch (error) {
      this.#refuse(error);
      return;
    }
    const timeoutMs = route.options.timeoutMs ?? this.host.requestTimeoutMs;
    if (timeoutMs > 0) this.#timer = this.host.clock.setTimer(timeoutMs, () => this.#timeOut(timeoutMs), { background: true });
    try {
      const answer = route.handler(request);
      if (answer instanceof Promise)
        answer.then(
          (response) => this.#send(response),
          (error) => this.#fail(error),
        );
      else this.#send(answer);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Cuts the connection; the handler's signal fires with `reason`. */
  destroy(reason: HttpError): void {
    if (this.#state === 'done') return;
    this.#abortReason = reason;
    this.#res.close();
  }

  #refuse(error: unknown): void {
    if (error instanceof HttpError && error.status === 405 && this.#method === 'OPTIONS') {
      // RFC 9110 9.3.7: what is possible here.
      this.#send({ status: 204, headers: error.headers });
      return;
    }
    this.#fail(error);
  }

  #attachBody(req: UwsRequest, route: Route): void {
    const maxBytes = route.options.maxBodyBytes ?? this.host.maxBodyBytes;
    const declared = req.getHeader('content-length');
    const declaredBytes = req.getHeader('transfer-encoding') ? undefined : Number(declared || 0);
    const body = new RequestBody(declaredBytes, maxBytes, {
      pause: () => this.#state !== 'done' && this.#res.pause(),
      resume: () => this.#state !== 'done' && this.#res.resume(),
    });
    this.#body = body;
    if (declaredBytes === 0) return;
    if (declaredBytes !== undefined && declaredBytes > maxBytes) throw tooLarge(maxBytes);
    this.#res.onData((chunk, isLast) => {
      // After the response the engine still delivers what the client sends: dropped, not kept.
      if (this.#state !== 'done') body.push(chunk, isLast);
    });
  }

  #request(req: UwsRequest, host: string, params: Record<string, string>): HttpRequest {
    const headers = new Map<string, string>();
    req.forEach((name, value) => {
      const before = headers.get(name);
      headers.set(name, before === undefined ? value : `${before}${name === 'cookie' ? '; ' : ', '}${value}`);
    });
    const queryString = req.getQuery() ?? '';
    const exchange = this;
    let query: URLSearchParams | undefined;
    return {
      method: this.#method,
      path: this.#path,
      queryString,
      get query() {
        return (query ??= new URLSearchParams(queryString));
      },
      headers,
      params,
      route: this.#route,
      remoteAddress: this.host.clientAddress(this.#res),
      secure: this.host.secure,
      host,
      body: this.#body!,
      get signal() {
        return exchange.#signal();
      },
      draining: this.host.draining,
    };
  }

  /** Made at first use: most handlers never ask. */
  #signal(): AbortSignal {
    if (!this.#abortController) {
      this.#abortController = new AbortController();
      if (this.#abortReason) this.#abortController.abort(this.#abortReason);
    }
    return this.#abortController.signal;
  }

  #send(response: HttpResponse): void {
    if (this.#state !== 'handling') {
      dispose(response?.body);
      return;
    }
    this.#state = 'responding';
    try {
      const closeConnection = this.host.draining.aborted || (this.#body?.outstandingBytes ?? 0) > maxDiscardBytes;
      this.#status = response.status;
      const sending = this.#writer.write(response, { withoutBody: this.#method === 'HEAD', closeConnection });
      sending?.catch((error) => this.#broken(error));
    } catch (error) {
      dispose(response?.body);
      this.#broken(error);
    }
  }

  /** Sending failed: with a proper error where nothing has been sent, else by cutting the connection. */
  #broken(error: unknown): void {
    if (this.#state === 'done') return;
    if (!this.#begun) {
      this.#state = 'handling';
      this.#fail(error);
      return;
    }
    this.host.logger.error({ err: error, route: this.#route, method: this.#method }, 'HTTP response broke off');
    this.destroy(new HttpError(500, 'The response could not be completed.', {}, { cause: error }));
  }

  #fail(error: unknown): void {
    if (this.#state !== 'handling') return;
    if (error instanceof HttpError && error.status !== 499) {
      if (error.status >= 500)
        this.host.logger.warn({ err: error, route: this.#route, method: this.#method }, 'HTTP request refused');
      this.#send(problemResponse(error.status, error.detail, error.headers));
      return;
    }
    if (error instanceof KvError && error.code !== 'too-large') {
      this.host.logger.warn(
        { err: error, route: this.#route, method: this.#method },
        'HTTP request refused: the store is unavailable',
      );
      this.#send(problemResponse(503, 'The store is unavailable, try again later.', retryAfter));
      return;
    }
    this.host.logger.error({ err: error, route: this.#route, method: this.#method }, 'HTTP handler failed');
    this.#send(problemResponse(500, 'The server could not answer this request.'));
  }

  #timeOut(timeoutMs: number): void {
    if (this.#begun || this.#state === 'done') return;
    const reason = new HttpError(503, `No answer within ${timeoutMs} ms.`, retryAfter);
    this.#state = 'handling';
    this.#abortReason = reason;
    // The answer first: a handler may react to the signal at once, with an answer of its own.
    this.#fail(reason);
    this.#body?.fail(reason);
    this.#writer.abort(reason);
    this.#abortController?.abort(reason);
  }

  #abort(reason: HttpError): void {
    if (this.#state === 'done') return;
    this.#abortReason ??= reason;
    if (!this.#begun) this.#status = 499;
    this.#finish();
    this.#writer.abort(this.#abortReason);
    this.#abortController?.abort(this.#abortReason);
  }

  #finish(): void {
    if (this.#state === 'done') return;
    this.#state = 'done';
    this.#timer?.cancel();
    this.#body?.fail(this.#abortReason ?? new HttpError(499, 'The response has ended.'));
    const method = knownMethods.has(this.#method) ? this.#method : 'OTHER';
    requestsTotal.inc({ route: this.#route, method, status: String(this.#status) });
    requestSeconds.observe({ route: this.#route, method }, (this.host.clock.monotonicMs() - this.#startedMs) / 1000);
    inFlight.dec({ listener: this.host.name });
    this.host.finished(this);
  }
}

/** `Example.test:443` → `example.test`; `[::1]:443` → `::1`. */
export function hostName(hostHeader: string): string {
  const bracketed = /^\[([^\]]*)\]/.exec(hostHeader);
  if (bracketed) return bracketed[1]!.toLowerCase();
  return hostHeader.replace(/:\d*$/, '').replace(/\.$/, '').toLowerCase();
}
