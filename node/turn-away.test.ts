import { connect } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterEach, describe, expect, it } from 'vitest';
import type { Standing } from '../cluster/membership/contract.js';
import { silentLogger } from '../ops/telemetry/index.js';
import { ManualClock } from '../protocols/imap/testing/manual-clock.js';
import { testCertificate } from '../protocols/testing/certificate.js';
import { CertificateStore, TcpListener } from './listeners/index.js';
import { type DrainableSession, OpenSessions } from './sessions.js';
import { turnAway, turnAwayWhileStoreless, unavailableLine } from './turn-away.js';

let listener: TcpListener | undefined;
afterEach(() => listener?.close());

async function listen(tls: 'none' | 'implicit', protocol: 'smtp' | 'imap'): Promise<number> {
  const certificates = new CertificateStore({ logger: silentLogger });
  const { cert, key } = testCertificate();
  certificates.replace([{ certificateChainPem: cert, privateKeyPem: key, names: ['mx.example.test'] }]);
  listener = new TcpListener({
    name: 'test',
    host: '127.0.0.1',
    port: 0,
    tls,
    certificates,
    maxConnections: 10,
    maxConnectionsPerAddress: 10,
    logger: silentLogger,
    onConnection: (connection) => turnAway(connection, unavailableLine(protocol, 'mx.example.test')),
  });
  await listener.listen();
  return listener.address().port;
}

async function textOf(socket: ReturnType<typeof connect>): Promise<string> {
  let text = '';
  for await (const chunk of socket) text += String(chunk);
  return text;
}

describe('a node that can do nothing now', () => {
  it('tells SMTP clients, and hangs up even on those that talk on', async () => {
    const port = await listen('none', 'smtp');
    const socket = connect({ host: '127.0.0.1', port });
    socket.write('EHLO x\r\nMAIL FROM:<>\r\n');
    expect(await textOf(socket)).toBe('421 4.3.2 mx.example.test Service not available, please try again later\r\n');
    while (listener!.connections > 0) await new Promise((resolve) => setImmediate(resolve));
  });

  it('tells IMAP clients after the handshake', async () => {
    const port = await listen('implicit', 'imap');
    const text = await textOf(connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false }));
    expect(text).toBe('* BYE [UNAVAILABLE] The server can not serve you now, please try again later\r\n');
  });
});

describe('sessions that are open on a node without a store', () => {
  let standing: Standing = 'joined';
  let judge: (standing: Standing) => void;
  const clock = new ManualClock();

  /** Sessions that say what they were told, `count` of a protocol that is turned away, and one of another. */
  function openSessions(count: number) {
    const sessions = new OpenSessions();
    const told: string[] = [];
    const never = new Promise<void>(() => {});
    for (let at = 0; at < count; at++) {
      const session: DrainableSession = {
        drain: () => never,
        turnAway: () => void told.push(`turn away ${at}`),
        stop: () => void told.push(`stop ${at}`),
      };
      sessions.add(session, never);
    }
    sessions.add({ drain: () => never, stop: () => void told.push('stop other') }, never);
    standing = 'joined';
    const membership = {
      get standing() {
        return standing;
      },
      onStanding(listener: (standing: Standing) => void) {
        judge = (next) => {
          standing = next;
          listener(next);
        };
        return () => {};
      },
    };
    turnAwayWhileStoreless({ membership, sessions, clock, logger: silentLogger });
    return { sessions, told };
  }
  const turn = () => new Promise((resolve) => setImmediate(resolve));

  it('are turned away when the node has judged itself, and then cut off', () => {
    const { told } = openSessions(2);
    clock.advance(60_000);
    expect(told).toEqual([]);
    judge('storeless');
    expect(told).toEqual(['turn away 0', 'turn away 1']);
    clock.advance(60_000);
    expect(told.slice(2)).toEqual(['stop 0', 'stop 1']);
  });

  it('stay if the store comes back meanwhile', async () => {
    const { told } = openSessions(1_000);
    judge('storeless');
    const before = told.length;
    expect(before).toBeLessThan(1_000);
    judge('joined');
    await turn();
    clock.advance(60_000);
    expect(told).toHaveLength(before);
  });

  it('are told in slices, so that others get turns', async () => {
    const { told } = openSessions(1_000);
    judge('storeless');
    const counts: number[] = [];
    for (; told.length < 1_000; await turn()) counts.push(told.length);
    expect(counts.length).toBeGreaterThan(2);
  });
});
