import { afterEach, describe, expect, it } from 'vitest';
import { counter, type Logger, registry, silentLogger } from '../../ops/telemetry/index.js';
import { HttpServer } from '../../protocols/http/index.js';
import { type HealthOptions, type Readiness, registerHealth, registerMetrics } from './health.js';

const servers: HttpServer[] = [];
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.stop(100)));
});

async function serve(register: (server: HttpServer) => void): Promise<(path: string, init?: RequestInit) => Promise<Response>> {
  const server = new HttpServer({ name: 'health', host: '127.0.0.1', port: 0, logger: silentLogger });
  servers.push(server);
  register(server);
  await server.listen();
  return (path, init) => fetch(`http://127.0.0.1:${server.address().port}${path}`, init);
}

const health = (options: Partial<HealthOptions>) =>
  serve((server) =>
    registerHealth(server, { probe: async () => ({ ready: true, reasons: [] }), isDraining: () => false, ...options }),
  );

describe('health', () => {
  it('is live while the process answers, whatever the store does', async () => {
    const get = await health({ probe: () => new Promise(() => {}) });
    const response = await get('/health/live');
    expect([response.status, await response.json()]).toEqual([200, { status: 'live' }]);
    expect((await get('/health/live', { method: 'HEAD' })).status).toBe(200);
    expect((await get('/health/live', { method: 'POST' })).status).toBe(405);
  });

  it('is ready when the probe says so, and says why not', async () => {
    let answer: Readiness = { ready: true, reasons: [] };
    const get = await health({ probe: async () => answer, cacheMs: 0 });
    expect((await get('/health/ready')).status).toBe(200);
    answer = { ready: false, reasons: ['The store does not commit.'] };
    const response = await get('/health/ready');
    expect([response.status, await response.json()]).toEqual([503, { status: 'not ready', ...{ reasons: answer.reasons } }]);
    const ready = await registry.getSingleMetric('starling_ready')!.get();
    expect(ready.values[0]!.value).toBe(0);
    answer = { ready: true, reasons: [] };
    expect((await get('/health/ready')).status).toBe(200);
  });

  it('logs when it changes, once each time, with the reasons', async () => {
    let answer: Readiness = { ready: true, reasons: [] };
    const lines: unknown[] = [];
    const logger = {
      ...silentLogger,
      info: (...line: unknown[]) => lines.push(line),
      warn: (...line: unknown[]) => lines.push(line),
    } as unknown as Logger;
    const get = await health({ probe: async () => answer, cacheMs: 0, logger });
    await get('/health/ready');
    await get('/health/ready');
    answer = { ready: false, reasons: ['The store does not commit.'] };
    await get('/health/ready');
    await get('/health/ready');
    answer = { ready: true, reasons: [] };
    await get('/health/ready');
    const unready = [{ reasons: ['The store does not commit.'] }, 'this node is not ready'];
    expect(lines).toEqual([['this node is ready'], unready, ['this node is ready']]);
  });

  it('is unready at once when it drains, without asking', async () => {
    let asked = 0;
    const get = await health({ isDraining: () => true, probe: async () => ({ ready: ++asked > 0, reasons: [] }) });
    const response = await get('/health/ready');
    expect([response.status, (await response.json()) as object]).toMatchObject([503, { status: 'draining' }]);
    expect(asked).toBe(0);
  });

  it('asks once for a flood, and again when the answer is old', async () => {
    let asked = 0;
    let now = 0;
    const clock = { nowMs: () => now, monotonicMs: () => now, setTimer: () => ({ cancel() {} }), sleep: async () => {} };
    const get = await health({
      clock,
      probe: async () => {
        asked++;
        await new Promise((resolve) => setImmediate(resolve));
        return { ready: true, reasons: [] };
      },
    });
    const flood = () => Promise.all(Array.from({ length: 50 }, async () => (await get('/health/ready')).status));
    expect(new Set(await flood())).toEqual(new Set([200]));
    expect(asked).toBe(1);
    now = 999;
    await flood();
    expect(asked).toBe(1);
    now = 1000;
    await flood();
    expect(asked).toBe(2);
  });

  it('does not wait for a probe that hangs, nor start another beside it, and believes it when it comes back', async () => {
    let asked = 0;
    let comeBack!: (answer: Readiness) => void;
    const get = await health({
      deadlineMs: 20,
      cacheMs: 60_000,
      probe: () => {
        asked++;
        return new Promise((resolve) => (comeBack = resolve));
      },
    });
    for (let n = 0; n < 3; n++) {
      const response = await get('/health/ready');
      expect([response.status, await response.json()]).toMatchObject([503, { reasons: [expect.stringMatching(/within 20 ms/)] }]);
    }
    expect(asked).toBe(1);
    comeBack({ ready: true, reasons: [] });
    expect((await get('/health/ready')).status).toBe(200);
    expect(asked).toBe(1);
  });

  it('takes a failing probe for unready', async () => {
    const get = await health({ probe: () => Promise.reject(new Error('no cluster file')) });
    expect(await (await get('/health/ready')).json()).toMatchObject({ reasons: ['The readiness probe failed: no cluster file'] });
    const throwing = await health({
      probe: () => {
        throw new Error('at once');
      },
    });
    expect((await throwing('/health/ready')).status).toBe(503);
  });
});

describe('metrics', () => {
  const tries = counter('starling_test_health_tries_total', 'For this test.', ['kind']);

  it('are in the format that Prometheus reads', async () => {
    tries.inc({ kind: 'a "quoted" one' }, 3);
    const get = await serve((server) => registerMetrics(server));
    await (await get('/nothing')).text();
    const response = await get('/metrics');
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8']);
    const lines = (await response.text()).split('\n');
    for (const line of lines) {
      expect(line).toMatch(/^$|^# (HELP|TYPE) \w+ .*$|^\w+(\{(\w+="([^"\\]|\\.)*",?)*\})? (-?[\d.e+-]+|[+-]Inf|NaN)$/);
    }
    expect(lines).toContain('starling_test_health_tries_total{kind="a \\"quoted\\" one"} 3');
    expect(lines).toContain('starling_http_requests_total{route="unmatched",method="GET",status="404"} 1');
    expect(lines).toContain('starling_http_requests_in_flight{listener="health"} 1');
  });

  it('can be kept from strangers', async () => {
    const get = await serve((server) =>
      registerMetrics(server, { mayRead: ({ headers }) => headers.get('authorization') === 'Bearer x' }),
    );
    expect((await get('/metrics')).status).toBe(403);
    expect((await get('/metrics', { headers: { authorization: 'Bearer x' } })).status).toBe(200);
  });
});
