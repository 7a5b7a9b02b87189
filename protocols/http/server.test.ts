import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request as httpRequest } from 'node:http';
import { connect, type Socket } from 'node:net';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterEach, describe, expect, it } from 'vitest';
import { registry } from '../../ops/telemetry/index.js';
import { KvError } from '../../store/kv/contract.js';
import { HttpError, type HttpServer, jsonResponse, textResponse } from './index.js';
import { responseTo, server, stopAll, textOf, until, url } from './server-under-test.js';

const run = promisify(execFile);

async function rawConnection(of: HttpServer): Promise<Socket> {
  const socket = connect(of.address().port, '127.0.0.1');
  await once(socket, 'connect');
  socket.on('error', () => {});
  return socket;
}

async function metric(labels: Record<string, string>): Promise<number> {
  const found = await registry.getSingleMetric('starling_http_requests_total')!.get();
  const match = found.values.find((value) => Object.entries(labels).every(([name, text]) => value.labels[name] === text));
  return match?.value ?? 0;
}

afterEach(stopAll);

describe('requests', () => {
  it('hands over everything that a request says, copied', async () => {
    const http = server();
    http.route('POST', '/echo/:what', async (request) => {
      await delay(5);
      const { method, path, params, host, secure, remoteAddress, route } = request;
      return jsonResponse(200, {
        ...{ method, path, params, host, secure, remoteAddress, route },
        query: [...request.query],
        header: request.headers.get('x-thing'),
        body: await request.body.readJson(),
      });
    });
    await http.listen();
    const response = await fetch(url(http, '/echo/a%20b?q=1&q=%C3%A4'), {
      method: 'POST',
      headers: { 'X-Thing': 'Wert' },
      body: JSON.stringify({ n: 1 }),
    });
    expect(response.headers.get('content-type')).toBe('application/json');
    expect(await response.json()).toEqual({
      ...{ method: 'POST', path: '/echo/a%20b', params: { what: 'a b' }, host: '127.0.0.1', secure: false },
      ...{
        remoteAddress: '127.0.0.1',
        route: '/echo/:what',
        query: [
          ['q', '1'],
          ['q', 'ä'],
        ],
        header: 'Wert',
        body: { n: 1 },
      },
    });
  });

  it('answers HEAD, OPTIONS, 404 and 405 by itself', async () => {
    const http = server();
    http.route('GET', '/text', () => textResponse(200, 'grüße'));
    http.route('GET', '/stream', () => ({ status: 200, body: Readable.from(['never read']), bodyBytes: 10 }));
    http.route('GET', '/none', () => ({ status: 204 }));
    await http.listen();
    const head = await run('curl', ['-s', '-i', '-I', '--max-time', '5', url(http, '/text')]);
    expect(head.stdout).toMatch(/^HTTP\/1.1 200 OK\r\n/);
    expect(head.stdout).toMatch(/content-length: 7\r\n/i);
    const streamed = await fetch(url(http, '/stream'), { method: 'HEAD' });
    expect([streamed.status, streamed.headers.get('content-length'), await streamed.text()]).toEqual([200, '10', '']);
    expect((await fetch(url(http, '/none'))).status).toBe(204);
    const options = await fetch(url(http, '/text'), { method: 'OPTIONS' });
    expect([options.status, options.headers.get('allow')]).toEqual([204, 'GET, HEAD, OPTIONS']);
    const wrong = await fetch(url(http, '/text'), { method: 'DELETE' });
    expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'GET, HEAD, OPTIONS']);
    const nothing = await fetch(url(http, '/nothing'));
    expect([nothing.status, nothing.headers.get('content-type')]).toEqual([404, 'application/problem+json']);
    expect(await nothing.json()).toMatchObject({ title: 'Not Found', status: 404 });
  });

  it('keeps one connection for many answers, HEAD and unread bodies among them', async () => {
    const http = server({ maxBodyBytes: 4_000_000 });
    http.route('GET', '/', () => textResponse(200, 'x'));
    http.route('GET', '/chunks', () => ({ status: 200, body: Readable.from(['a', 'b']) }));
    http.route('GET', '/empty', () => ({ status: 200, body: Readable.from([]) }));
    http.route('POST', '/unread', async () => {
      await delay(20);
      return textResponse(200, 'not read');
    });
    await http.listen();
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const ports: number[] = [];
    for (const [method, path, body] of [
      ['GET', '/', ''],
      ['HEAD', '/', ''],
      ['POST', '/unread', 'y'.repeat(3_000_000)],
      ['GET', '/chunks', ''],
      ['HEAD', '/chunks', ''],
      ['GET', '/empty', ''],
      ['POST', '/unread', 'y'.repeat(5_000_000)],
      ['GET', '/nothing', ''],
      ['GET', '/', ''],
    ] as const) {
      const request = httpRequest(url(http, path), { method, agent });
      request.once('response', ({ socket }) => ports.push(socket.localPort!));
      request.end(body);
      await textOf(await responseTo(request));
    }
    expect(new Set(ports)).toEqual(new Set([ports[0]]));
    agent.destroy();
  });

  it('turns failures into problems, and goes on', async () => {
    const http = server();
    http.route('GET', '/throws', () => {
      throw new Error('secret detail');
    });
    http.route('GET', '/no-store', () => Promise.reject(new KvError('commit-unknown', 'injected')));
    http.route('GET', '/rejects', () => Promise.reject(new HttpError(429, 'Slower.', { 'retry-after': '3' })));
    http.route('GET', '/header', () => ({ status: 200, headers: { location: 'a\r\nx-injected: 1' } }));
    http.route('GET', '/stream', () => ({ status: 200, body: failing(0) }));
    http.route('GET', '/late', () => ({ status: 200, body: failing(1) }));
    http.route('GET', '/short', () => ({ status: 200, body: Readable.from(['12345']), bodyBytes: 6 }));
    await http.listen();
    for (const path of ['/throws', '/header', '/stream']) {
      const response = await fetch(url(http, path));
      expect([path, response.status, response.headers.get('x-injected')]).toEqual([path, 500, null]);
      expect(await response.text()).not.toContain('secret');
    }
    const limited = await fetch(url(http, '/rejects'));
    expect([limited.status, limited.headers.get('retry-after')]).toEqual([429, '3']);
    expect(await limited.json()).toMatchObject({ detail: 'Slower.' });
    await expect(fetch(url(http, '/late')).then((r) => r.text())).rejects.toThrow();
    await expect(fetch(url(http, '/short')).then((r) => r.text())).rejects.toThrow();
    expect((await fetch(url(http, '/throws'))).status).toBe(500);
    const unavailable = await fetch(url(http, '/no-store'));
    expect([unavailable.status, unavailable.headers.get('retry-after')]).toEqual([503, '5']);
    expect(http.requestsInFlight).toBe(0);
  });

  it('refuses header blocks beyond the limit, and takes large ones below it', async () => {
    const http = server();
    http.route('GET', '/', (request) => textResponse(200, String(request.headers.get('authorization')?.length)));
    await http.listen();
    const small = await fetch(url(http), { headers: { authorization: 'x'.repeat(12_000) } });
    expect(await small.text()).toBe('12000');
    const large = await run('curl', ['-s', '-o', '/dev/null', '-w', '%{http_code}', '-H', `a: ${'x'.repeat(20_000)}`, url(http)]);
    expect(large.stdout).toBe('431');
  });

  it('counts by pattern, method and status', async () => {
    const http = server();
    http.route('GET', '/counted/:id', () => textResponse(200, ''));
    await http.listen();
    for (const id of [1, 2, 3]) await (await fetch(url(http, `/counted/${id}`))).text();
    expect(await metric({ route: '/counted/:id', method: 'GET', status: '200' })).toBe(3);
  });

  it('answers 503 when a handler takes too long, and ignores what it says afterwards', async () => {
    const http = server({ requestTimeoutMs: 30 });
    let aborted: unknown;
    let finish: (() => void) | undefined;
    http.route('GET', '/slow', async ({ signal }) => {
      signal.addEventListener('abort', () => (aborted = signal.reason));
      await new Promise<void>((resolve) => (finish = resolve));
      return textResponse(200, 'too late');
    });
    await http.listen();
    const response = await fetch(url(http, '/slow'));
    expect(response.status).toBe(503);
    expect(aborted).toBeInstanceOf(HttpError);
    finish!();
    await delay(5);
    expect((await fetch(url(http, '/nothing'))).status).toBe(404);
  });
});

describe('clients that misbehave', () => {
  it('fires the signal, fails the body and lets go of the stream when the client goes away', async () => {
    const http = server();
    const seen: Record<string, unknown> = {};
    http.route('GET', '/wait', async ({ signal }) => {
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      seen['wait'] = signal.reason;
      await delay(1);
      return textResponse(200, 'to nobody');
    });
    http.route('POST', '/upload', async (request) => {
      await request.body.read().catch((error) => (seen['upload'] = error));
      return textResponse(200, 'to nobody');
    });
    http.route('GET', '/stream', () => ({
      status: 200,
      body: (async function* () {
        try {
          for (;;) {
            yield block;
            await delay(1);
          }
        } finally {
          seen['stream'] = 'let go';
        }
      })(),
    }));
    const block = Buffer.alloc(10_000);
    await http.listen();
    for (const head of [
      'GET /wait HTTP/1.1\r\nHost: x\r\n\r\n',
      'POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc',
      'GET /stream HTTP/1.1\r\nHost: x\r\n\r\n',
    ]) {
      const socket = await rawConnection(http);
      socket.write(head);
      await until(() => http.requestsInFlight === 1);
      socket.resetAndDestroy();
      await until(() => http.requestsInFlight === 0);
    }
    await until(() => Object.keys(seen).length === 3);
    expect(seen).toEqual({ wait: expect.any(HttpError), upload: expect.any(HttpError), stream: 'let go' });
    expect(await metric({ route: '/wait', status: '499' })).toBe(1);
    await until(() => http.connections === 0);
  });

  it('treats a half-closed connection as gone, without harm', async () => {
    const http = server();
    let aborted = false;
    http.route('GET', '/', async ({ signal }) => {
      await new Promise<void>((resolve) => {
        signal.addEventListener('abort', () => resolve());
      });
      aborted = true;
      return textResponse(200, 'x');
    });
    await http.listen();
    const socket = await rawConnection(http);
    socket.end('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(socket, 'close');
    await until(() => aborted);
    expect(http.requestsInFlight).toBe(0);
  });

  it('refuses connections beyond the limit, and from addresses that are not admitted', async () => {
    let banned = false;
    const http = server({ maxConnections: 2, admit: (address) => address === '127.0.0.1' && !banned });
    http.route('GET', '/', () => textResponse(200, 'x'));
    await http.listen();
    const first = await rawConnection(http);
    const second = await rawConnection(http);
    await until(() => http.connections === 2);
    await expect(fetch(url(http))).rejects.toThrow();
    first.destroy();
    second.destroy();
    await until(() => http.connections === 0);
    expect((await fetch(url(http))).status).toBe(200);
    banned = true;
    await expect(run('curl', ['-s', url(http)])).rejects.toThrow();
  });
});

describe('listening and stopping', () => {
  it('never shares its port', async () => {
    const first = server();
    await first.listen();
    const second = server({ port: first.address().port });
    await expect(second.listen()).rejects.toThrow(/cannot listen on 127\.0\.0\.1/);
  });

  it('lets running requests finish, closes kept connections, and takes no new ones', async () => {
    const http = server();
    let finish: (() => void) | undefined;
    let drained = false;
    http.route('GET', '/slow', async ({ draining }) => {
      draining.addEventListener('abort', () => (drained = true));
      await new Promise<void>((resolve) => (finish = resolve));
      return textResponse(200, 'finished');
    });
    http.route('GET', '/', () => textResponse(200, 'x'));
    await http.listen();
    const agent = new Agent({ keepAlive: true });
    const request = httpRequest(url(http), { agent }).end();
    await textOf(await responseTo(request));
    const slow = fetch(url(http, '/slow'));
    await until(() => finish !== undefined);
    const stopped = http.stop(5000);
    expect(drained).toBe(true);
    await expect(fetch(url(http))).rejects.toThrow();
    const onKept = await responseTo(httpRequest(url(http), { agent }).end());
    expect([onKept.statusCode, onKept.headers.connection]).toEqual([200, 'close']);
    onKept.resume();
    finish!();
    const answer = await slow;
    expect([await answer.text(), answer.headers.get('connection')]).toEqual(['finished', 'close']);
    await stopped;
    await until(() => http.connections === 0);
    agent.destroy();
  });

  it('cuts what does not finish by the deadline', async () => {
    const http = server();
    let reason: unknown;
    http.route('GET', '/', async ({ signal }) => {
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      reason = signal.reason;
      return textResponse(200, 'x');
    });
    await http.listen();
    const hanging = fetch(url(http)).catch((error) => error);
    await until(() => http.requestsInFlight === 1);
    await http.stop(20);
    expect(await hanging).toBeInstanceOf(Error);
    expect(reason).toMatchObject({ status: 503 });
  });
});

async function* failing(after: number): AsyncGenerator<string> {
  for (let n = 0; n < after; n++) yield 'data';
  throw new Error('secret detail');
}
