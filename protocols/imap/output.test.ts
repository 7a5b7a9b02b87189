import { Duplex } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { Output, SharedBytes } from './output.js';
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

describe('text that many are told', () => {
  it('is made into bytes once, as long as there are few such texts and they are short', () => {
    const shared = new SharedBytes();
    const bytes = shared.of('* 2 EXISTS\r\n');
    expect(bytes.toString('latin1')).toBe('* 2 EXISTS\r\n');
    expect(shared.of('* 2 EXISTS\r\n')).toBe(bytes);
    const long = 'x'.repeat(5_000);
    expect(shared.of(long)).not.toBe(shared.of(long));
    for (let n = 0; n < 100; n++) shared.of(`* ${n} EXISTS\r\n`);
    expect(shared.of('* 99 EXISTS\r\n')).not.toBe(shared.of('* 99 EXISTS\r\n'));
    expect(shared.of('* 99 EXISTS\r\n').toString('latin1')).toBe('* 99 EXISTS\r\n');
    expect(shared.of('\xe9').equals(Buffer.of(0xe9))).toBe(true);
  });
});
