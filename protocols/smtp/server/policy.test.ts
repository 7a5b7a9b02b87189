/** What the handler decides about a session: when it is asked, what it changes, and the wait before refusals. */
import { describe, expect, it } from 'vitest';
import { type Clock, registry, silentLogger, systemClock } from '../../../ops/telemetry/index.js';
import { MemorySocket } from '../testing/memory-socket.js';
import { startTestServer, TestHandler, testScram } from '../testing/server.js';
import { Wire } from '../testing/wire.js';
import type { SessionInfo, SessionPolicy, SmtpMode } from './handler.js';
import type { SmtpLimits } from './limits.js';
import { SmtpSession } from './session.js';

/** Time that stands still until it is moved. */
class ManualClock implements Clock {
  #nowMs = 1_000_000;
  #timers = new Set<{ atMs: number; callback: () => void }>();
  nowMs = () => this.#nowMs;
  monotonicMs = () => this.#nowMs;
  sleep = systemClock.sleep;

  setTimer(delayMs: number, callback: () => void) {
    const timer = { atMs: this.#nowMs + delayMs, callback };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  get timerCount(): number {
    return this.#timers.size;
  }

  advance(ms: number) {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      const next = [...this.#timers].filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (!next) break;
      this.#timers.delete(next);
      this.#nowMs = next.atMs;
      next.callback();
    }
    this.#nowMs = untilMs;
  }
}

interface Conversation {
  socket: MemorySocket;
  session: SmtpSession;
  handler: TestHandler;
  clock: ManualClock;
}

function converse(
  policy: TestHandler['policy'] | undefined,
  options: { mode?: SmtpMode; secure?: boolean; limits?: Partial<SmtpLimits> } = {},
): Conversation {
  const socket = new MemorySocket();
  const clock = new ManualClock();
  const handler = new TestHandler();
  if (policy) handler.policy = policy;
  const session = new SmtpSession({
    connection: { socket, remoteAddress: '192.0.2.1', remotePort: 1, localPort: 25, secure: options.secure ?? false },
    mode: options.mode ?? 'mx',
    handler,
    hostname: 'mx.test',
    listener: 'mx',
    logger: silentLogger,
    scram: testScram,
    clock,
    ...(options.limits ? { limits: options.limits } : {}),
  });
  session.start();
  return { socket, session, handler, clock };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));
const codes = (said: string) =>
  said
    .split('\r\n')
    .filter((line) => /^[0-9]{3} /.test(line))
    .map((line) => line.slice(0, 3))
    .join(' ');
const login = 'AUTH PLAIN AGFsaWNlQGV4YW1wbGUudGVzdAB3b25kZXIsIGxhbmQ9MQ==\r\n';

describe('policy', () => {
  it('is asked before the greeting, with each EHLO, after AUTH and after XCLIENT', async () => {
    const asked: string[] = [];
    const { socket } = converse(
      (session: SessionInfo) => {
        asked.push([session.listener, session.remoteAddress, session.greetingName, session.principal?.login ?? '-'].join(' '));
        return { isTrustedPeer: session.remoteAddress === session.peerAddress };
      },
      { mode: 'submission', secure: true },
    );
    expect(asked).toEqual(['mx 192.0.2.1  -']);
    socket.feed(`EHLO one.test\r\n${login}`);
    await turn();
    await turn();
    socket.feed('EHLO two.test\r\nEHLO banned.test\r\nXCLIENT ADDR=192.0.2.7 HELO=three.test\r\n');
    expect(asked.slice(1)).toEqual([
      'mx 192.0.2.1 one.test -',
      'mx 192.0.2.1 one.test alice@example.test',
      'mx 192.0.2.1 two.test alice@example.test',
      'mx 192.0.2.7  -',
      'mx 192.0.2.7 three.test -',
    ]);
    expect(codes(socket.said())).toBe('220 250 235 250 550 220');
  });

  it('holds until the next time, and does not add up', () => {
    const answers: (SessionPolicy | undefined)[] = [
      { limits: { maxMessageBytes: 100, maxRecipients: undefined as never } },
      { limits: { maxRecipients: 1 } },
      undefined,
    ];
    const { socket, session } = converse(() => answers.shift(), { limits: { maxMessageBytes: 500, maxRecipients: 7 } });
    const limits = () => [session.limits.maxMessageBytes, session.limits.maxRecipients];
    expect(limits()).toEqual([100, 7]);
    socket.feed('EHLO a.test\r\n');
    expect(limits()).toEqual([500, 1]);
    expect(socket.said()).toContain('250-SIZE 500\r\n');
    socket.feed('EHLO a.test\r\n');
    expect(limits()).toEqual([500, 7]);
  });

  it('shortens a timeout that runs already', () => {
    const { socket, clock, session } = converse(({ greetingName }) =>
      greetingName === '' ? undefined : { limits: { commandTimeoutMs: 1000 } },
    );
    socket.feed('EHLO a.test\r\n');
    socket.said();
    clock.advance(999);
    expect(socket.said()).toBe('');
    clock.advance(2);
    expect(socket.said()).toMatch(/^421 4\.4\.2 /);
    expect(session.isClosing).toBe(true);
  });

  it('may give a priority to who has asked for none, who is not told of it', () => {
    const { socket, session, handler } = converse(undefined);
    handler.mailFrom = (_session, mail) => {
      mail.parameters.mtPriority = -1;
    };
    socket.feed('EHLO a.test\r\n');
    socket.said();
    socket.feed('MAIL FROM:<a@b.test>\r\n');
    expect(socket.said()).toBe('250 2.1.0 Sender accepted\r\n');
    expect(session.mail?.parameters.mtPriority).toBe(-1);
    socket.feed('RSET\r\nMAIL FROM:<a@b.test> MT-PRIORITY=2\r\n');
    expect(socket.said()).toMatch(/^250 [^\r]*\r\n250 2\.3\.6 -1 is the new priority/);
  });

  it('fails the step that it was asked for, and no other', async () => {
    let isBroken = true;
    const atGreeting = converse(() => {
      throw new Error('the settings are away');
    });
    expect(atGreeting.socket.said()).toMatch(/^421 4\.3\.0 /);

    const atEhlo = converse(async ({ greetingName }) => {
      if (greetingName !== '' && isBroken) throw new Error('the settings are away');
      return undefined;
    });
    await turn();
    atEhlo.socket.feed('EHLO a.test\r\nMAIL FROM:<a@b.test>\r\n');
    await turn();
    expect(codes(atEhlo.socket.said())).toBe('220 451 503');
    isBroken = false;
    atEhlo.socket.feed('EHLO a.test\r\nMAIL FROM:<a@b.test>\r\n');
    await turn();
    expect(codes(atEhlo.socket.said())).toBe('250 250');

    const atAuth = converse(
      ({ principal }) => {
        if (principal) throw new Error('the settings are away');
        return undefined;
      },
      { mode: 'submission', secure: true },
    );
    atAuth.socket.feed(`EHLO a.test\r\n${login}`);
    await turn();
    await turn();
    atAuth.socket.feed('MAIL FROM:<a@b.test>\r\n');
    expect(codes(atAuth.socket.said())).toBe('220 250 454 530');
    expect(atAuth.session.principal).toBeUndefined();
  });

  it('starts over with XCLIENT, but errors are not forgiven', () => {
    const { socket, session } = converse(() => ({ isTrustedPeer: true }), { limits: { maxErrors: 3 } });
    socket.feed('FOO\r\nFOO\r\nXCLIENT ADDR=192.0.2.7\r\nFOO\r\nNOOP\r\n');
    expect(codes(socket.said())).toBe('220 500 500 220 500 421');
    expect(session.isClosing).toBe(true);
  });

  it('starts over with XCLIENT, and recipients refused are those of the client before', () => {
    const { socket, session } = converse(() => ({ isTrustedPeer: true }), { limits: { maxRefusedRecipients: 2 } });
    const guess = 'EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<unknown@example.test>\r\nRSET\r\n';
    socket.feed(`${guess}XCLIENT ADDR=192.0.2.7\r\n${guess}`);
    expect(codes(socket.said())).toBe('220 250 250 550 250 220 250 250 550 250');
    socket.feed(guess);
    expect(codes(socket.said())).toBe('250 250 550 421');
    expect(session.isClosing).toBe(true);
  });

  it('is not asked for a connection that was lost before it began', async () => {
    const socket = new MemorySocket();
    socket.destroy();
    const calls: string[] = [];
    const handler = new TestHandler();
    handler.policy = () => void calls.push('policy') as undefined;
    handler.greet = () => void calls.push('greet');
    handler.closed = () => void calls.push('closed');
    const connection = { socket, remoteAddress: '192.0.2.1', remotePort: 1, localPort: 25, secure: false };
    const session = new SmtpSession({ connection, mode: 'mx', handler, hostname: 'mx.test', logger: silentLogger });
    session.start();
    await session.closed();
    expect(calls).toEqual(['closed']);
  });

  it('is asked again over TLS', async () => {
    const handler = new TestHandler();
    const asked: boolean[] = [];
    handler.policy = ({ secure }) => {
      asked.push(secure);
      return { requiresTls: true };
    };
    const server = await startTestServer({ handler });
    const wire = await Wire.open(server.port);
    await wire.reply();
    wire.send('STARTTLS\r\n');
    await wire.reply();
    await wire.startTls();
    wire.send('EHLO a.test\r\n');
    await wire.reply();
    expect(asked).toEqual([false, true, true]);
    wire.destroy();
    await server.close();
  });
});

describe('tarpit', () => {
  const slow = { tarpitMs: 5000 };

  it('delays refusals and what follows them, in order, and nothing else', async () => {
    const { socket, clock, session } = converse(() => slow);
    socket.feed('EHLO a.test\r\nMAIL FROM:<a@refused.test>\r\nNOOP\r\nFOO\r\nMAIL FROM:<a@b.test>\r\nHELP\r\n');
    await turn();
    expect(codes(socket.said())).toBe('220 250');
    clock.advance(4999);
    await turn();
    expect(socket.said()).toBe('');
    clock.advance(1);
    await turn();
    expect(codes(socket.said())).toBe('550 250');
    clock.advance(5000);
    await turn();
    expect(codes(socket.said())).toBe('500 250 214');
    expect(session.mail?.address).toBe('a@b.test');
  });

  it('delays the refusal of a message once, however many recipients it has', () => {
    const { socket, clock } = converse(() => slow, { mode: 'lmtp' });
    socket.feed('LHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bob@c.test>\r\nRCPT TO:<carl@c.test>\r\n');
    socket.said();
    socket.feed('DATA\r\na\nb\r\n.\r\nNOOP\r\n');
    clock.advance(5000);
    expect(codes(socket.said())).toBe('354 550 550 250');
  });

  it('is bounded', () => {
    const { socket, clock } = converse(() => ({ tarpitMs: 1e12 }), { limits: { maxTarpitMs: 2000 } });
    socket.said();
    socket.feed('FOO\r\n');
    clock.advance(2000);
    expect(codes(socket.said())).toBe('500');
  });

  it('does not keep a session longer than its time', () => {
    const { socket, clock } = converse(() => ({ ...slow, limits: { sessionTimeoutMs: 12_000 } }));
    socket.feed('FOO\r\n'.repeat(10));
    clock.advance(300_000);
    expect(codes(socket.said())).toBe('220 500 500 500 421');
  });

  it('ends with the session: too many errors, drain, stop, a lost connection', async () => {
    const errors = converse(() => slow, { limits: { maxErrors: 1 } });
    errors.socket.feed('FOO\r\nNOOP\r\n');
    errors.clock.advance(5000);
    expect(codes(errors.socket.said())).toBe('220 500 421');

    const drained = converse(() => slow);
    drained.socket.feed('FOO\r\nFOO\r\n');
    void drained.session.drain();
    await turn();
    expect(codes(drained.socket.said())).toBe('220 500 421');

    const stopped = converse(() => slow);
    stopped.socket.feed('FOO\r\nFOO\r\n');
    stopped.session.stop();
    expect(codes(stopped.socket.said())).toBe('220 500 421');

    const lost = converse(() => slow);
    lost.socket.feed('FOO\r\n');
    lost.socket.destroy();
    await lost.session.closed();
    expect(lost.clock.timerCount).toBe(0);
  });

  it('leaves no timer behind, nor does a greeting that nobody waits for any more', async () => {
    for (const octets of ['', 'EHLO a.test\r\n']) {
      const { socket, session, handler, clock } = converse(() => slow, { limits: { greetingDelayMs: 10_000 } });
      let greetings = 0;
      handler.greet = () => void greetings++;
      if (octets !== '') socket.feed(octets);
      socket.destroy();
      await session.closed();
      expect(clock.timerCount).toBe(0);
      expect(greetings).toBe(0);
    }
  });

  it('delays the refusal of a connection, too', async () => {
    const handler = new TestHandler();
    handler.greet = () => ({ code: 554, enhanced: '5.7.1', text: 'No' });
    handler.policy = () => ({ tarpitMs: 30 });
    const server = await startTestServer({ handler });
    const wire = await Wire.open(server.port);
    expect(await wire.rest()).toBe('554 5.7.1 No\r\n');
    wire.destroy();
    await server.close();
    expect(await registry.metrics()).toMatch(/starling_smtp_tarpit_total\{mode="mx"\} [1-9]/);
  });
});
