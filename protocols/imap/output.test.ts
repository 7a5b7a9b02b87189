import { Duplex } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { Output } from './output.js';
import { ManualClock } from './testing/manual-clock.js';

const limits = { maxBufferedOutputBytes: 262_144, writeTimeoutMs: 300_000 };

/** A client that takes what it is sent when it is told to, and never closes its side. */
function slowClient() {
  const taken: string[] = [];
  let take = () => {};
  const socket = new Duplex({
    allowHalfOpen: true,
    read() {},
    write(chunk: Buffer, _encoding, done) {
      take = () => {
        taken.push(chunk.toString('latin1'));
        done();
      };
    },
  });
  return { socket, taken, take: () => take() };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('the end of a connection', () => {
  it('waits for a slow client to take what it is owed, and then not long for its end', async () => {
    const clock = new ManualClock();
    const { socket, taken, take } = slowClient();
    const output = new Output(socket, clock, limits);
    output.bytes(Buffer.alloc(100_000, 0x61));
    output.write('+OK Bye\r\n');
    output.end();
    clock.advance(200_000);
    expect(socket.destroyed).toBe(false);
    take();
    await turn();
    take();
    await turn();
    expect(taken.at(-1)).toBe('+OK Bye\r\n');
    expect(socket.destroyed).toBe(false);
    clock.advance(5_000);
    expect(socket.destroyed).toBe(true);
  });

  it('cuts off who takes nothing', () => {
    const clock = new ManualClock();
    const { socket } = slowClient();
    const output = new Output(socket, clock, limits);
    output.write('+OK Bye\r\n');
    output.end();
    clock.advance(limits.writeTimeoutMs);
    expect(socket.destroyed).toBe(true);
  });
});
