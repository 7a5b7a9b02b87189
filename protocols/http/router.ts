/**
 * From method and path to route. A tree of path segments: exact text wins over `:name`, which wins over a trailing `*`. One
 * router may serve several servers (plain and TLS), and routes may be added while they run.
 */
import { HttpError } from './errors.js';
import type { HttpHandler } from './messages.js';

export interface RouteOptions {
  /** Larger request bodies get 413. Default: the server's. */
  maxBodyBytes?: number;
  /** Until the response must have begun, milliseconds; 0 = no limit. Default: the server's. */
  timeoutMs?: number;
  /** Answer under any Host, also one that no certificate names: for probes of load balancers. */
  anyHost?: boolean;
}

export interface Route {
  method: string;
  pattern: string;
  handler: HttpHandler;
  options: RouteOptions;
}

export interface RouteMatch {
  route: Route;
  params: Record<string, string>;
}

/** Where routes are registered: a `Router`, or a server that has one. */
export interface RouteRegistry {
  /**
   * @param method upper case; GET answers HEAD as well unless HEAD has a route of its own.
   * @param pattern `/a/:name/b`, `/files/*`
   * @throws Error when the pattern is malformed or taken for this method.
   */
  route(method: string, pattern: string, handler: HttpHandler, options?: RouteOptions): void;
}

interface Node {
  exact: Map<string, Node>;
  named?: Node;
  /** Routes of a pattern that ends in `*` here. */
  rest?: Endpoint;
  here?: Endpoint;
}

interface Endpoint {
  pattern: string;
  parameterNames: string[];
  methods: Map<string, Route>;
}

export class Router implements RouteRegistry {
  readonly #root: Node = { exact: new Map() };

  route(method: string, pattern: string, handler: HttpHandler, options: RouteOptions = {}): void {
    if (!/^[A-Z]+$/.test(method)) throw new Error(`Not a method: ${method}`);
    if (!pattern.startsWith('/')) throw new Error(`A route begins with "/": ${pattern}`);
    const segments = pattern.slice(1).split('/');
    const parameterNames: string[] = [];
    let node = this.#root;
    let isRest = false;
    segments.forEach((segment, index) => {
      if (segment === '*') {
        if (index !== segments.length - 1) throw new Error(`"*" stands only at the end of a route: ${pattern}`);
        isRest = true;
        parameterNames.push('*');
      } else if (segment.startsWith(':')) {
        parameterNames.push(segment.slice(1));
        node = node.named ??= { exact: new Map() };
      } else {
        let next = node.exact.get(segment);
        if (!next) node.exact.set(segment, (next = { exact: new Map() }));
        node = next;
      }
    });
    const slot = isRest ? 'rest' : 'here';
    const endpoint = (node[slot] ??= { pattern, parameterNames, methods: new Map() });
    if (endpoint.pattern !== pattern) throw new Error(`${pattern} stands where ${endpoint.pattern} already is`);
    if (endpoint.methods.has(method)) throw new Error(`${method} ${pattern} is already registered`);
    endpoint.methods.set(method, { method, pattern, handler, options });
  }

  /**
   * Finds the route, or says why there is none.
   * @throws HttpError 404, 405 with Allow, 400 for a path that is not valid percent-encoding.
   */
  match(method: string, path: string): RouteMatch {
    const found = this.#find(path);
    if (!found) throw new HttpError(404, 'There is nothing at this address.');
    const { endpoint, values } = found;
    const route = endpoint.methods.get(method) ?? (method === 'HEAD' ? endpoint.methods.get('GET') : undefined);
    if (!route) throw new HttpError(405, `${method} is not possible here.`, { allow: allowed(endpoint) });
    const params: Record<string, string> = {};
    for (const [index, name] of endpoint.parameterNames.entries()) params[name] = decode(values[index]!);
    return { route, params };
  }

  /** The methods at `path` for an Allow header; undefined when nothing is there. */
  allowedAt(path: string): string | undefined {
    const found = this.#find(path);
    return found && allowed(found.endpoint);
  }

  #find(path: string): { endpoint: Endpoint; values: string[] } | undefined {
    if (!path.startsWith('/')) return undefined;
    const segments = path.slice(1).split('/');
    const values: string[] = [];
    const endpoint = descend(this.#root, segments, 0, values);
    return endpoint && { endpoint, values };
  }
}

/** Depth-first with backtracking: at most three branches a segment and as deep as the deepest pattern, whatever the path's length. */
function descend(node: Node, segments: readonly string[], depth: number, values: string[]): Endpoint | undefined {
  if (depth === segments.length) return node.here;
  const segment = segments[depth]!;
  const exact = node.exact.get(segment);
  if (exact) {
    const endpoint = descend(exact, segments, depth + 1, values);
    if (endpoint) return endpoint;
  }
  if (node.named && segment !== '') {
    const before = values.length;
    values.push(segment);
    const endpoint = descend(node.named, segments, depth + 1, values);
    if (endpoint) return endpoint;
    values.length = before;
  }
  if (node.rest) {
    values.push(segments.slice(depth).join('/'));
    return node.rest;
  }
  return undefined;
}

function allowed(endpoint: Endpoint): string {
  const methods = new Set(endpoint.methods.keys());
  if (methods.has('GET')) methods.add('HEAD');
  methods.add('OPTIONS');
  return [...methods].sort().join(', ');
}

function decode(segment: string): string {
  if (!segment.includes('%')) return segment;
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new HttpError(400, 'The path is not valid percent-encoding.');
  }
}
