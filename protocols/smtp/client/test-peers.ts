/** For tests of the client: messages, options, and peers that say what they are told to. */
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { SmtpClient } from './client.js';
import type { ConnectOptions, MessageBody, OutgoingMessage } from './contract.js';

export const bodyOf = (content: string | Buffer, more: Partial<MessageBody> = {}): MessageBody => {
  const bytes = Buffer.from(content as string, 'latin1');
  return {
    sizeBytes: bytes.length,
    eightBit: bytes.some((octet) => octet > 127),
    utf8: false,
    async *open() {
      for (let at = 0; at < bytes.length; at += 50_000) yield bytes.subarray(at, at + 50_000);
    },
    ...more,
  };
};

export const message = (content: string | Buffer, more: Partial<OutgoingMessage> = {}): OutgoingMessage => ({
  from: 'a@b.test',
  recipients: [{ address: 'bob@example.test' }],
  body: bodyOf(content),
  ...more,
});

export const options = (port: number, more: Partial<ConnectOptions> = {}): ConnectOptions => ({
  address: '127.0.0.1',
  port,
  hostname: 'mx.example.test',
  heloName: 'client.test',
  tls: { mode: 'none' },
  ...more,
});

/** Answers each line by `answer`; what it returns is sent as it is, `undefined` closes. */
export async function withPeer(
  answer: (line: string, lines: string[]) => string | undefined,
  run: (port: number, lines: string[], socket: () => Socket) => Promise<void>,
  greeting = '220 peer ESMTP\r\n',
): Promise<void> {
  const lines: string[] = [];
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
    socket.write(greeting);
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      for (let lf = text.indexOf('\n'); lf >= 0; lf = text.indexOf('\n')) {
        const line = text.slice(0, lf).replace(/\r$/, '');
        text = text.slice(lf + 1);
        lines.push(line);
        const said = answer(line, lines);
        if (said === undefined) socket.destroy();
        else if (said !== '') socket.write(said);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    await run((server.address() as AddressInfo).port, lines, () => sockets.at(-1)!);
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** A peer with the given extensions that takes everything, unless `special` says otherwise. */
export const peer = (extensions: string[], special: Record<string, string | undefined> = {}) => {
  let inData = false;
  return (line: string): string | undefined => {
    const verb = line.split(/[ :]/)[0]!.toUpperCase();
    if (verb === 'EHLO') inData = false;
    if (inData && line !== '.') return '';
    const key = inData ? '.' : verb;
    if (inData) inData = false;
    const own = Object.entries(special).find(
      ([start]) => start === key || (!inData && line.startsWith(start) && start.length > 4),
    );
    if (own) {
      if (own[1]?.startsWith('354')) inData = true;
      return own[1];
    }
    if (key === 'EHLO')
      return ['peer', ...extensions].map((text, index, all) => `250${index === all.length - 1 ? ' ' : '-'}${text}\r\n`).join('');
    if (key === 'DATA') {
      inData = true;
      return '354 go\r\n';
    }
    return '250 OK\r\n';
  };
};

export async function sendTo(port: number, outgoing: OutgoingMessage, more: Partial<ConnectOptions> = {}) {
  const client = await SmtpClient.connect(options(port, more));
  const result = await client.send(outgoing);
  await client.quit();
  return result;
}
