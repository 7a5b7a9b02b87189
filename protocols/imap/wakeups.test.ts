import { Duplex } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { defaultImapLimits, type ImapServices, ImapSession } from './index.js';

/** Sends the next of `commands` in the very turn in which something was said, before the session can wait for it. */
class HastyClient extends Duplex {
  said = '';

  constructor(private readonly commands: string[]) {
    super();
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.said += chunk.toString('latin1');
    done();
    const next = this.commands.shift();
    if (next !== undefined) void Promise.resolve().then(() => this.push(next, 'latin1'));
  }
}

describe('a session that looks for news between commands', () => {
  it('hears what comes in just then', async () => {
    const socket = new HastyClient(['a1 CAPABILITY\r\n', 'a2 NOOP\r\n', 'a3 LOGOUT\r\n']);
    // Nobody logs in, so no store is asked.
    const services = {
      sasl: {},
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
      limits: defaultImapLimits,
      serverName: 'x',
    };
    const connection = { socket, remoteAddress: '127.0.0.1', remotePort: 1, secure: true };
    const session = new ImapSession(connection, services as unknown as ImapServices);
    const over = session.run();
    await over;
    expect(socket.said.split('\r\n').filter((line) => /^a\d/.test(line))).toEqual([
      expect.stringMatching(/^a1 OK/),
      expect.stringMatching(/^a2 OK/),
      expect.stringMatching(/^a3 OK/),
    ]);
    socket.destroy();
  });
});
