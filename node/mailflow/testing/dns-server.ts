/** A DNS server for tests: real packets over UDP, with names and records that a test can change. What it does not know does not exist. */
import { createSocket } from 'node:dgram';
import type { AddressInfo } from 'node:net';

const typeNumbers = { A: 1, TXT: 16 } as const;

export interface DnsServer {
  /** For `SystemResolver`'s `servers`. */
  readonly address: string;
  /** `NAME TYPE` (lower-case name) → texts of its records; `'silence'`: no answer at all, `'failure'`: SERVFAIL. */
  readonly records: Map<string, string[] | 'silence' | 'failure'>;
  /** `NAME TYPE` of each question. */
  readonly questions: string[];
  close(): Promise<void>;
}

export async function startDnsServer(): Promise<DnsServer> {
  const socket = createSocket('udp4');
  const records: DnsServer['records'] = new Map();
  const questions: string[] = [];
  socket.on('message', (packet, { port, address }) => {
    const question = questionOf(packet);
    questions.push(`${question.name} ${question.type}`);
    const found = records.get(`${question.name} ${question.type}`);
    if (found !== 'silence') socket.send(answerTo(packet, question, found), port, address);
  });
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  return {
    address: `127.0.0.1:${(socket.address() as AddressInfo).port}`,
    records,
    questions,
    close: () => new Promise((resolve) => socket.close(resolve)),
  };
}

interface Question {
  name: string;
  type: string;
  /** Of the question section. */
  end: number;
}

function questionOf(packet: Buffer): Question {
  const labels: string[] = [];
  let at = 12;
  for (; packet[at] !== 0; at += packet[at]! + 1) labels.push(packet.toString('latin1', at + 1, at + 1 + packet[at]!));
  const number = packet.readUInt16BE(at + 1);
  const type = Object.entries(typeNumbers).find(([, each]) => each === number)?.[0] ?? String(number);
  return { name: labels.join('.').toLowerCase(), type, end: at + 5 };
}

function answerTo(packet: Buffer, { type, end }: Question, found: string[] | 'failure' | undefined): Buffer {
  const texts = Array.isArray(found) ? found : [];
  const head = Buffer.from(packet.subarray(0, 12));
  // QR, AA, RD copied; RA; RCODE: 0, 2 (SERVFAIL) or 3 (NXDOMAIN).
  head[2] = 0x84 | (head[2]! & 1);
  head[3] = 0x80 | (found === 'failure' ? 2 : found === undefined ? 3 : 0);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(texts.length, 6);
  head.writeUInt32BE(0, 8);
  const answers = texts.map((text) => {
    const value = type === 'A' ? Buffer.from(text.split('.').map(Number)) : Buffer.from([text.length, ...Buffer.from(text)]);
    const fixed = Buffer.alloc(12);
    // The name is the one at offset 12; class IN, 60 s.
    fixed.writeUInt16BE(0xc00c, 0);
    fixed.writeUInt16BE(typeNumbers[type as keyof typeof typeNumbers], 2);
    fixed.writeUInt16BE(1, 4);
    fixed.writeUInt32BE(60, 6);
    fixed.writeUInt16BE(value.length, 10);
    return Buffer.concat([fixed, value]);
  });
  return Buffer.concat([head, packet.subarray(12, end), ...answers]);
}
