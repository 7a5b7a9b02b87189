/**
 * An HTTP proxy in front of a real S3 service that lets single requests fail in the ways that networks and services do. Requests are passed on as they
 * are, `host` included, so that their signatures hold.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

/** What happens to one request. */
export type Fault =
  /** The connection ends before anything was passed on. */
  | { kind: 'refuse' }
  /** The service does it, but its answer never arrives. */
  | { kind: 'lose-answer' }
  /** Nothing is passed on, nothing comes back. */
  | { kind: 'hang' }
  /** An answer of the proxy's own. */
  | { kind: 'answer'; status: number; code: string }
  /** The service's answer ends after so many bytes of its body. */
  | { kind: 'cut'; afterBytes: number }
  /** One bit of the request's body changes under way. */
  | { kind: 'flip' };

export interface SeenRequest {
  method: string;
  /** Path and query. */
  path: string;
}

export class FaultProxy {
  /** Asked for each request; may be changed at any time. */
  fault: ((request: SeenRequest) => Fault | undefined) | undefined;
  readonly seen: SeenRequest[] = [];
  readonly #server: Server;
  readonly #target: URL;
  readonly #sockets = new Set<Socket>();

  private constructor(target: string) {
    this.#target = new URL(target);
    this.#server = createServer((incoming, outgoing) => {
      this.#serve(incoming, outgoing).catch(() => outgoing.destroy());
    });
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
  }

  static async start(target: string): Promise<FaultProxy> {
    const proxy = new FaultProxy(target);
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The next request of each kind meets `fault`, once; all others go through. */
  failOnce(kinds: readonly ((request: SeenRequest) => boolean)[], fault: Fault): void {
    const left = new Set(kinds);
    this.fault = (request) => {
      for (const matches of left) {
        if (!matches(request)) continue;
        left.delete(matches);
        return fault;
      }
      return undefined;
    };
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const seen = { method: incoming.method!, path: incoming.url! };
    this.seen.push(seen);
    const fault = this.fault?.(seen);
    if (fault?.kind === 'refuse') return void incoming.socket.destroy();
    const parts: Buffer[] = [];
    for await (const part of incoming) parts.push(part as Buffer);
    if (fault?.kind === 'hang') return;
    if (fault?.kind === 'answer') {
      outgoing.writeHead(fault.status, { 'content-type': 'application/xml' });
      return void outgoing.end(`<?xml version="1.0"?><Error><Code>${fault.code}</Code><Message>no</Message></Error>`);
    }
    const body = Buffer.concat(parts);
    if (fault?.kind === 'flip') body[body.length >> 1]! ^= 1;
    const answer = await this.#ask(incoming, body);
    if (fault?.kind === 'lose-answer') {
      answer.resume();
      await once(answer, 'end');
      return void incoming.socket.destroy();
    }
    outgoing.writeHead(answer.statusCode!, answer.rawHeaders);
    let sentBytes = 0;
    for await (const part of answer as AsyncIterable<Buffer>) {
      const limit = fault?.kind === 'cut' ? fault.afterBytes - sentBytes : part.length;
      sentBytes += part.length;
      if (!outgoing.write(part.subarray(0, limit))) await roomIn(outgoing);
      if (limit < part.length || outgoing.destroyed) {
        answer.destroy();
        // What was written reaches the socket first.
        return void setImmediate(() => incoming.socket.destroy());
      }
    }
    outgoing.end();
  }

  #ask(incoming: IncomingMessage, body: Buffer): Promise<IncomingMessage> {
    const { hostname, port } = this.#target;
    const headers = { ...incoming.headers };
    delete headers.connection;
    return new Promise((resolve, reject) => {
      const asked = request({ hostname, port, method: incoming.method, path: incoming.url, headers, agent: false }, resolve);
      asked.once('error', reject);
      asked.end(body);
    });
  }
}

/** Resolves when more can be written, or nothing any more. */
function roomIn(outgoing: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      outgoing.off('drain', done).off('close', done);
      resolve();
    };
    outgoing.on('drain', done).on('close', done);
    if (outgoing.destroyed) done();
  });
}
