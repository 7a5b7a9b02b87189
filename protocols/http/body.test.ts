import { execFile } from 'node:child_process';
import { request as httpRequest } from 'node:http';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterEach, describe, expect, it } from 'vitest';
import { jsonResponse, textResponse } from './index.js';
import { responseTo, server, stopAll, textOf, until, url } from './server-under-test.js';

const run = promisify(execFile);

afterEach(stopAll);

describe('bodies', () => {
  const total = 50 * 1024 * 1024;
  const block = Buffer.alloc(100_000, 'b');

  it('refuses too much with 413, declared or not', async () => {
    const http = server({ maxBodyBytes: 1000 });
    http.route('POST', '/', async (request) => textResponse(200, String((await request.body.read()).length)));
    await http.listen();
    expect(await (await fetch(url(http), { method: 'POST', body: 'x'.repeat(1000) })).text()).toBe('1000');
    expect((await fetch(url(http), { method: 'POST', body: 'x'.repeat(1001) })).status).toBe(413);
    expect((await fetch(url(http), { method: 'POST', body: 'x'.repeat(5_000_000) })).status).toBe(413);
    const chunked = httpRequest(url(http), { method: 'POST' });
    chunked.write('x'.repeat(600));
    chunked.write('x'.repeat(600));
    chunked.end();
    expect((await responseTo(chunked)).statusCode).toBe(413);
    const expecting = await run('curl', [
      '-s',
      '-w',
      '%{http_code}',
      '-o',
      '/dev/null',
      '-H',
      'Expect: 100-continue',
      '-d',
      block.toString(),
      url(http),
    ]);
    expect(expecting.stdout).toBe('413');
  });

  it('refuses JSON that is none', async () => {
    const http = server();
    http.route('POST', '/', async (request) => jsonResponse(200, await request.body.readJson()));
    await http.listen();
    expect((await fetch(url(http), { method: 'POST', body: '{' })).status).toBe(400);
    expect((await fetch(url(http), { method: 'POST', body: new Uint8Array([0x22, 0xff, 0x22]) })).status).toBe(400);
  });

  it('holds an uploading client back while the handler is busy', async () => {
    const http = server({ maxBodyBytes: total });
    let go!: () => void;
    const gate = new Promise<void>((resolve) => (go = resolve));
    http.route('PUT', '/', async (request) => {
      let bytes = 0;
      for await (const chunk of request.body) {
        bytes += chunk.length;
        await gate;
      }
      return textResponse(200, String(bytes));
    });
    await http.listen();
    let sent = 0;
    const upload = httpRequest(url(http), { method: 'PUT', headers: { 'content-length': total } });
    const source = Readable.from(
      (async function* () {
        for (; sent < total; sent += Math.min(block.length, total - sent)) yield block.subarray(0, total - sent);
      })(),
      { objectMode: false },
    );
    source.pipe(upload);
    // Stands still once the socket buffers of both sides are full.
    let before = -1;
    await until(async () => {
      if (sent > 0 && sent === before) return true;
      before = sent;
      await delay(100);
      return false;
    });
    expect(sent).toBeLessThan(total / 2);
    go();
    expect(await textOf(await responseTo(upload))).toBe(String(total));
  });

  for (const bodyBytes of [total, undefined]) {
    it(`sends 50 MB ${bodyBytes ? 'of known size' : 'in chunks'} only as fast as the client reads`, async () => {
      const http = server();
      let made = 0;
      http.route('GET', '/', () => ({
        status: 200,
        bodyBytes,
        body: (async function* () {
          for (; made < total; made += Math.min(block.length, total - made)) yield block.subarray(0, total - made);
        })(),
      }));
      await http.listen();
      const residentBefore = process.memoryUsage().rss;
      const request = httpRequest(url(http));
      request.end();
      const response = await responseTo(request);
      expect(response.headers['content-length']).toBe(bodyBytes && String(total));
      let before = -1;
      await until(async () => {
        if (made > 0 && made === before) return true;
        before = made;
        await delay(100);
        return false;
      });
      expect(made).toBeLessThan(total / 2);
      let read = 0;
      for await (const chunk of response) read += (chunk as Buffer).length;
      expect(read).toBe(total);
      expect(process.memoryUsage().rss - residentBefore).toBeLessThan(total);
    });
  }

  it('sends large buffers and strings whole', async () => {
    const http = server();
    http.route('GET', '/buffer', () => ({ status: 200, body: Buffer.alloc(3_000_000, 'z') }));
    http.route('GET', '/string', () => ({ status: 200, body: 'ü'.repeat(1_000_000) }));
    await http.listen();
    expect((await (await fetch(url(http, '/buffer'))).arrayBuffer()).byteLength).toBe(3_000_000);
    expect(await (await fetch(url(http, '/string'))).text()).toBe('ü'.repeat(1_000_000));
  });

  it('delivers the tail of a large chunk while the stream has nothing more to say', async () => {
    const http = server();
    let finish!: () => void;
    const quiet = new Promise<void>((resolve) => (finish = resolve));
    const chunk = Buffer.alloc(20_000_001, 'c');
    http.route('GET', '/', () => ({
      status: 200,
      body: (async function* () {
        yield chunk;
        await quiet;
      })(),
    }));
    await http.listen();
    const request = httpRequest(url(http));
    request.end();
    const response = await responseTo(request);
    await delay(100);
    let read = 0;
    for await (const bytes of response) {
      read += (bytes as Buffer).length;
      // Without the tail this loop would wait for a chunk that comes only after it.
      if (read === chunk.length) finish();
    }
    expect(read).toBe(chunk.length);
  });

  it('delivers a trickling stream chunk by chunk', async () => {
    const http = server();
    const release: (() => void)[] = [];
    http.route('GET', '/', () => ({
      status: 200,
      body: (async function* () {
        for (let n = 0; n < 3; n++) {
          yield `part ${n}\n`;
          await new Promise<void>((resolve) => release.push(resolve));
        }
      })(),
    }));
    await http.listen();
    const response = await fetch(url(http));
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    for (let n = 0; n < 3; n++) {
      expect((await reader.read()).value).toBe(`part ${n}\n`);
      await until(() => release.length === n + 1);
      release[n]!();
    }
    expect((await reader.read()).done).toBe(true);
  });
});
