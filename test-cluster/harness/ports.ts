/**
 * Free ports on loopback, each given out once: what was found free stays promised to this process until it ends, so that test files that run side by side don't take one
 * another's ports between the look and the use. They lie below the range from which outgoing connections get theirs.
 */
import { createServer, type ListenOptions, type Server } from 'node:net';

/** Of single ports. */
const singlePorts = { first: 28_000, end: 32_000 } as const;
const offsets = { first: 10_000, end: 25_000 } as const;
const maxAttempts = 500;

/** Listens, without holding up the end of the process; undefined where that can't be had. */
function listen(where: ListenOptions): Promise<Server | undefined> {
  return new Promise((resolve) => {
    const server = createServer((socket) => socket.destroy());
    server.once('error', () => resolve(undefined));
    server.listen(where, () => resolve(server.unref()));
  });
}

async function canListen(port: number): Promise<boolean> {
  const server = await listen({ port, host: '127.0.0.1' });
  if (server) await new Promise((resolve) => server.close(resolve));
  return server !== undefined;
}

/** Ports that this process has given out or is looking at, each with what tells other processes so. */
const promised = new Map<number, Server | undefined>();

/** Promises a port to whoever asks, unless it is promised already: by a socket in Linux's abstract namespace, which goes with the process, however that ends. */
async function promise(port: number): Promise<boolean> {
  if (promised.has(port)) return false;
  promised.set(port, undefined);
  if (process.platform !== 'linux') return true;
  const token = await listen({ path: `\0starling-port-${port}` });
  if (token) promised.set(port, token);
  else promised.delete(port);
  return token !== undefined;
}

/** All of these, or none. */
async function promiseAll(ports: readonly number[]): Promise<boolean> {
  const taken: number[] = [];
  for (const port of ports) {
    if (!(await promise(port))) break;
    taken.push(port);
    if (!(await canListen(port))) break;
    if (taken.length === ports.length) return true;
  }
  for (const port of taken) {
    promised.get(port)?.close();
    promised.delete(port);
  }
  return false;
}

const anyOf = ({ first, end }: { first: number; end: number }) => first + Math.floor(Math.random() * (end - first));

/** A port that nobody listens on, and that nobody else gets from here. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < maxAttempts; attempt++) {
    const port = anyOf(singlePorts);
    if (await promiseAll([port])) return port;
  }
  throw new Error(`no free port in ${maxAttempts} attempts`);
}

/** An offset under which all of `ports` are free, and which nobody else gets from here. */
export async function freePortOffset(ports: readonly number[]): Promise<number> {
  const wanted = [...new Set(ports)];
  for (let attempt = 0; attempt < maxAttempts; attempt++) {
    const offset = anyOf(offsets);
    if (await promiseAll(wanted.map((port) => port + offset))) return offset;
  }
  throw new Error(`no free range of ports in ${maxAttempts} attempts`);
}
