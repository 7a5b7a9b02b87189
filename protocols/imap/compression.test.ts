import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { constants, createDeflateRaw, createInflateRaw, deflateRawSync } from 'node:zlib';
import { afterEach, describe, expect, it } from 'vitest';
import { DeflateConnection } from './compression.js';

const open: { destroy(): void }[] = [];
afterEach(() => {
  for (const each of open.splice(0)) each.destroy();
});

/** Both ends of a connection; the near one compressed. */
async function pair(unread: Buffer[] = []): Promise<{ near: DeflateConnection; far: Socket }> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const far = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true });
  const [socket] = (await once(server, 'connection')) as [Socket];
  server.close();
  open.push(far, socket);
  return { near: new DeflateConnection(socket, unread), far };
}

const flushed = { finishFlush: constants.Z_SYNC_FLUSH };

describe('DeflateConnection', () => {
  it('sends each write at once, and its end', async () => {
    const { near, far } = await pair();
    const inflate = createInflateRaw();
    far.pipe(inflate);
    for (const text of ['* OK first\r\n', '* OK second\r\n']) {
      near.write(text);
      const [bytes] = await once(inflate, 'data');
      expect(String(bytes)).toBe(text);
    }
    near.end('* BYE\r\n');
    const [last] = await once(inflate, 'data');
    expect(String(last)).toBe('* BYE\r\n');
    await once(far, 'end');
  });

  it('reads what came before it, in pieces of any size', async () => {
    const bytes = deflateRawSync('a NOOP\r\nb NOOP\r\n', flushed);
    const { near, far } = await pair([bytes.subarray(0, 3), bytes.subarray(3, 5)]);
    let heard = '';
    near.on('data', (chunk: Buffer) => {
      heard += chunk.toString();
    });
    for (const byte of bytes.subarray(5)) far.write(Buffer.of(byte));
    far.end();
    await once(near, 'end');
    expect(heard).toBe('a NOOP\r\nb NOOP\r\n');
  });

  it('unpacks a bomb no faster than it is read', async () => {
    const { near, far } = await pair();
    // 256 MB in a quarter of a megabyte.
    const deflate = createDeflateRaw({ level: 9 });
    deflate.pipe(far);
    const zeros = Buffer.alloc(1_048_576);
    void (async () => {
      for (let i = 0; i < 256 && !far.destroyed; i++) if (!deflate.write(zeros)) await once(deflate, 'drain');
    })().catch(() => {});
    await once(near, 'readable');
    for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(near.readableLength).toBeLessThan(65_536);
    let read = 0;
    for (let chunk = near.read() as Buffer | null; read < 1_000_000; chunk = near.read() as Buffer | null) {
      if (chunk) read += chunk.length;
      else await once(near, 'readable');
      expect(near.readableLength).toBeLessThan(65_536);
    }
  });

  it('ends at bytes that are no DEFLATE', async () => {
    const { near, far } = await pair();
    const failed = once(near, 'error');
    near.resume();
    far.write(Buffer.alloc(64, 0xff));
    await failed.catch(() => {});
    if (!near.closed) await once(near, 'close');
    expect(near.destroyed).toBe(true);
  });

  it('waits for a peer that takes nothing', async () => {
    const { near, far } = await pair();
    far.pause();
    // What doesn't compress.
    let state = 1;
    const noise = Buffer.alloc(65_536);
    for (let i = 0; i < noise.length; i++) {
      state = (state * 1_103_515_245 + 12_345) & 0x7fff_ffff;
      noise[i] = state >> 16;
    }
    for (let i = 0; i < 400; i++) near.write(noise);
    for (let i = 0; i < 200; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(near.writableLength).toBeGreaterThan(1_000_000);
    let received = 0;
    const inflate = createInflateRaw();
    far.pipe(inflate);
    inflate.on('data', (chunk: Buffer) => {
      received += chunk.length;
    });
    near.end();
    await once(inflate, 'end');
    expect(received).toBe(400 * noise.length);
  });
});
