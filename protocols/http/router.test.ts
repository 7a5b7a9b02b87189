import { describe, expect, it } from 'vitest';
import { HttpError } from './errors.js';
import { Router } from './router.js';

const answer = () => ({ status: 200 });

function routerWith(...routes: [method: string, pattern: string][]): Router {
  const router = new Router();
  for (const [method, pattern] of routes) router.route(method, pattern, answer);
  return router;
}

function errorOf(run: () => unknown): HttpError {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(HttpError);
    return error as HttpError;
  }
  throw new Error('nothing was thrown');
}

describe('Router', () => {
  it('prefers exact text to a name to the rest, and goes back when a branch leads nowhere', () => {
    const router = routerWith(['GET', '/a/b'], ['GET', '/a/:x/c'], ['GET', '/a/*'], ['GET', '/']);
    const at = (path: string) => router.match('GET', path);
    expect(at('/').route.pattern).toBe('/');
    expect(at('/a/b').route.pattern).toBe('/a/b');
    expect(at('/a/b/c')).toMatchObject({ route: { pattern: '/a/:x/c' }, params: { x: 'b' } });
    expect(at('/a/b/d/e')).toMatchObject({ route: { pattern: '/a/*' }, params: { '*': 'b/d/e' } });
    expect(at('/a/').params).toEqual({ '*': '' });
  });

  it('decodes parameters, and refuses what is not percent-encoding', () => {
    const router = routerWith(['GET', '/user/:name']);
    expect(router.match('GET', '/user/a%40b%2Fc').params).toEqual({ name: 'a@b/c' });
    expect(errorOf(() => router.match('GET', '/user/%zz')).status).toBe(400);
    expect(errorOf(() => router.match('GET', '/user/')).status).toBe(404);
  });

  it('keeps parameters out of the prototype', () => {
    const router = routerWith(['GET', '/:x/constructor']);
    expect(errorOf(() => router.match('GET', '/constructor')).status).toBe(404);
    expect(router.match('GET', '/toString/constructor').params).toEqual({ x: 'toString' });
  });

  it('says 404 and 405 with what is allowed, and lets GET answer HEAD', () => {
    const router = routerWith(['GET', '/x'], ['POST', '/x']);
    expect(errorOf(() => router.match('GET', '/y')).status).toBe(404);
    const wrong = errorOf(() => router.match('DELETE', '/x'));
    expect([wrong.status, wrong.headers['allow']]).toEqual([405, 'GET, HEAD, OPTIONS, POST']);
    expect(router.match('HEAD', '/x').route.method).toBe('GET');
    router.route('HEAD', '/x', answer);
    expect(router.match('HEAD', '/x').route.method).toBe('HEAD');
  });

  it('refuses patterns that collide or are malformed', () => {
    const router = routerWith(['GET', '/a/:x']);
    for (const [method, pattern] of [
      ['GET', '/a/:x'],
      ['POST', '/a/:y'],
      ['GET', 'a'],
      ['GET', '/*/a'],
      ['get', '/z'],
    ] as const) {
      expect(() => router.route(method, pattern, answer)).toThrow();
    }
  });
});
