/**
 * What handlers see: the request with everything copied out of native memory, the response as a plain value.
 * RFC 9110 (semantics), RFC 9457 (problem details).
 */
import type { RequestBody } from './body.js';
import { reasonPhrase } from './errors.js';

/** A body: whole bytes, text (sent as UTF-8), or chunks that are asked for as fast as the peer reads. */
export type HttpBody = Uint8Array | string | AsyncIterable<Uint8Array | string>;

export interface HttpResponse {
  status: number;
  /** Lower-case names. `content-length`, `transfer-encoding` and `connection` are the server's own and are ignored here. */
  headers?: Readonly<Record<string, string | readonly string[] | undefined>>;
  body?: HttpBody;
  /**
   * Bytes that an iterable body will yield, where known: sent as Content-Length. Yielding another number cuts the connection,
   * so that the peer cannot take a truncated body for a whole one.
   */
  bodyBytes?: number;
}

export interface HttpRequest {
  /** As sent; methods are case-sensitive (RFC 9110 9.1). */
  readonly method: string;
  /** Still percent-encoded, without the query. */
  readonly path: string;
  readonly queryString: string;
  /** Parsed at first use. */
  readonly query: URLSearchParams;
  /** Lower-case names; repeated fields joined with a comma (cookies with a semicolon). */
  readonly headers: ReadonlyMap<string, string>;
  /** Percent-decoded parts of the path that the route's pattern names; the rest after `*` under `*`. */
  readonly params: Readonly<Record<string, string>>;
  /** The route's pattern, for logs. */
  readonly route: string;
  /** The client's address; behind a trusted proxy, the one that its PROXY v2 header names. */
  readonly remoteAddress: string;
  /** Whether the request came over TLS. */
  readonly secure: boolean;
  /** Host header without port, lower case; '' is never seen (the engine answers 400). */
  readonly host: string;
  readonly body: RequestBody;
  /** Fires when the client has gone, the request has run out of time, or the server closes; its reason is an `HttpError`. */
  readonly signal: AbortSignal;
  /** Fires when the server begins to drain: endless responses should end by themselves. */
  readonly draining: AbortSignal;
}

export type HttpHandler = (request: HttpRequest) => HttpResponse | Promise<HttpResponse>;

export function jsonResponse(status: number, value: unknown, headers: HttpResponse['headers'] = {}): HttpResponse {
  return { status, headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(value) };
}

export function textResponse(status: number, body: string, headers: HttpResponse['headers'] = {}): HttpResponse {
  return { status, headers: { 'content-type': 'text/plain; charset=utf-8', ...headers }, body };
}

/** RFC 9457 problem details; `extra` adds members such as `limit` or `reasons`. */
export function problemResponse(
  status: number,
  detail?: string,
  headers: HttpResponse['headers'] = {},
  extra: Readonly<Record<string, unknown>> = {},
): HttpResponse {
  const problem = { type: 'about:blank', title: reasonPhrase(status), status, ...(detail ? { detail } : {}), ...extra };
  return {
    status,
    headers: { 'content-type': 'application/problem+json', 'cache-control': 'no-store', ...headers },
    body: JSON.stringify(problem),
  };
}
