/** What a session that waits for its client costs, beyond the socket that it waits on. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, it } from 'vitest';
import { silentLogger } from '../../../ops/telemetry/index.js';
import { MemorySocket } from '../testing/memory-socket.js';
import type { SmtpHandler } from './handler.js';
import { SmtpSession } from './session.js';

const maxIdleBytes = 12_000;
const count = 2000;

it('an idle session stays below 12 kB', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const limits = {};
  const handler: SmtpHandler = { mailFrom: () => undefined, rcptTo: () => undefined, data: () => ({ code: 451, text: 'no' }) };
  const kept: unknown[] = [];
  /** Octets of heap and buffers that each of `count` things keeps. */
  const measure = async (make: (socket: MemorySocket) => unknown) => {
    const used = () => {
      collect();
      const { heapUsed, arrayBuffers } = process.memoryUsage();
      return heapUsed + arrayBuffers;
    };
    make(new MemorySocket());
    await new Promise((resolve) => setImmediate(resolve));
    const before = used();
    for (let i = 0; i < count; i++) kept.push(make(new MemorySocket()));
    await new Promise((resolve) => setImmediate(resolve));
    return (used() - before) / count;
  };

  const socketBytes = await measure((socket) => socket.on('data', () => undefined));
  const sessionBytes = await measure((socket) => {
    const connection = { socket, remoteAddress: '192.0.2.1', remotePort: 1, localPort: 25, secure: false };
    const session = new SmtpSession({ connection, mode: 'mx', handler, hostname: 'mx.test', logger: silentLogger, limits });
    session.start();
    socket.feed('EHLO client.test\r\nNOOP\r\n');
    socket.said();
    return session;
  });
  expect(kept).toHaveLength(2 * count);
  expect(sessionBytes).toBeGreaterThan(socketBytes);
  expect(sessionBytes - socketBytes).toBeLessThan(maxIdleBytes);
  for (const session of kept.slice(count)) (session as SmtpSession).connection.socket.destroy();
});
