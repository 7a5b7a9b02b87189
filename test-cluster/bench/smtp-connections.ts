/**
 * What connections cost: resident memory of each of 5,000 idle SMTP sessions, beside the same number of sockets in a bare Node process; and how many sessions a
 * second are brought up to EHLO over STARTTLS, beside a Postfix with the same kind of certificate, in turns.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { machineHas } from '../harness/needs.js';
import { basePorts, NodeProcess } from '../harness/node-process.js';
import { freePortOffset } from '../harness/ports.js';
import { Postfix } from '../harness/postfix.js';
import { median, residentBytes, round } from './figures.js';

const idleSessions = 5_000;
const openedAtOnce = 100;
const tlsSessions = 600;
const tlsAtOnce = 20;
const rounds = 3;
/** Of this file as a process of its own: a server that does nothing but hold what it accepts. */
const bareServer = 'bare-server';

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const residentOf = (pid: number) => residentBytes(readFileSync(`/proc/${pid}/status`, 'utf8'), 'VmRSS');

/** Sends `line`, if any, and resolves with what comes up to the end of a reply. */
function answerTo(socket: Socket, line?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const heard = (chunk: Buffer) => {
      text += chunk.toString('latin1');
      if (!/^\d{3} .*\r\n$/m.test(text)) return;
      socket.off('data', heard).off('close', gone);
      resolve(text);
    };
    const gone = () => reject(new Error(`the connection ended after: ${text}`));
    socket.on('data', heard).once('close', gone);
    if (line !== undefined) socket.write(`${line}\r\n`);
  });
}

async function opened(port: number, isSmtp: boolean): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  const greeting = isSmtp ? answerTo(socket) : undefined;
  await once(socket, 'connect');
  if (isSmtp) {
    await greeting;
    await answerTo(socket, 'EHLO idle.test');
  }
  return socket;
}

/** How much `pid` grows by each of the connections that it holds. */
async function bytesPerConnection(pid: number, port: number, isSmtp: boolean): Promise<number> {
  const sockets: Socket[] = [];
  const before = residentOf(pid);
  while (sockets.length < idleSessions)
    sockets.push(...(await Promise.all(Array.from({ length: openedAtOnce }, () => opened(port, isSmtp)))));
  await pause(3_000);
  const grown = residentOf(pid) - before;
  for (const socket of sockets) socket.destroy();
  return grown / idleSessions;
}

async function bareBytesPerConnection(): Promise<number> {
  const child = fork(fileURLToPath(import.meta.url), [bareServer], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  try {
    const [port] = (await once(child, 'message')) as [number];
    await pause(500);
    return await bytesPerConnection(child.pid!, port, false);
  } finally {
    child.kill('SIGKILL');
  }
}

async function tlsSessionsPerSecond(port: number): Promise<number> {
  let left = tlsSessions;
  const work = async () => {
    while (left-- > 0) {
      const plain = await opened(port, true);
      await answerTo(plain, 'STARTTLS');
      const socket = connectTls({ socket: plain, rejectUnauthorized: false });
      await once(socket, 'secureConnect');
      await answerTo(socket, 'EHLO tls.test');
      socket.destroy();
    }
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: tlsAtOnce }, work));
  return tlsSessions / ((performance.now() - start) / 1000);
}

export async function run(): Promise<Record<string, unknown>> {
  const portOffset = await freePortOffset(Object.values(basePorts));
  const listener = (name: 'smtp' | 'http', more: string) =>
    `[[listeners]]\nname = "${name}"\nprotocol = "${name}"\nport = ${basePorts[name] + portOffset}\n${more}`;
  const node = await NodeProcess.start({
    portOffset,
    settings: `[log]\nlevel = "warn"\n${listener('smtp', 'tls = "starttls"\nmaxConnections = 10000\nmaxConnectionsPerAddress = 10000\n')}${listener('http', 'tls = "none"\n')}`,
  });
  let postfix: Postfix | undefined;
  try {
    // What the first sessions cost once.
    for (let index = 0; index < 200; index++) (await opened(node.port('smtp'), true)).destroy();
    await pause(2_000);
    const perSession = await bytesPerConnection(node.pid, node.port('smtp'), true);
    const bare = await bareBytesPerConnection();
    postfix = machineHas('postfix', 'openssl')
      ? await Postfix.start({ domain: 'outside.test', delivery: 'discard', hasTls: true })
      : undefined;
    const starling: number[] = [];
    const peer: number[] = [];
    for (let index = 0; index < rounds; index++) {
      starling.push(await tlsSessionsPerSecond(node.port('smtp')));
      if (postfix) peer.push(await tlsSessionsPerSecond(postfix.port));
    }
    return {
      idleSessions,
      bytesPerSession: round(perSession),
      bytesPerBareSocket: round(bare),
      bytesBeyondSocket: round(perSession - bare),
      tlsSessionsPerSecond: round(median(starling)),
      ...(postfix
        ? { postfixTlsSessionsPerSecond: round(median(peer)), ratio: round(median(starling) / median(peer)) }
        : { skipped: 'Postfix is not here' }),
    };
  } finally {
    await node.remove();
    await postfix?.stop();
  }
}

if (process.argv[2] === bareServer) {
  const held = new Set<Socket>();
  const server = createServer((socket) => {
    held.add(socket);
    socket.on('error', () => undefined); // the other side ends all at once
  });
  server.listen(0, '127.0.0.1', () => {
    const address = server.address();
    if (address && typeof address === 'object') process.send!(address.port);
  });
}
