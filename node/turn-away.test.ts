import { connect } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../ops/telemetry/index.js';
import { testCertificate } from '../protocols/testing/certificate.js';
import { CertificateStore, TcpListener } from './listeners/index.js';
import { turnAway, unavailableLine } from './turn-away.js';

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
