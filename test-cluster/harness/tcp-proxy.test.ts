import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TcpProxy } from './tcp-proxy.js';

/** Answers every line with `ok <line>`, and notes what it got. */
class LineServer {
  readonly lines: string[] = [];
  readonly ends: Promise<void>[] = [];
  readonly #sockets = new Set<Socket>();
  #server!: Server;

  async start(): Promise<number> {
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      let rest = '';
      socket.on('error', () => {});
      this.ends.push(new Promise((resolve) => socket.once('close', () => resolve())));
      socket.on('data', (bytes) => {
        const parts = (rest + bytes.toString('latin1')).split('\n');
        rest = parts.pop()!;
        for (const line of parts) {
          this.lines.push(line);
          socket.write(`ok ${line}\n`);
        }
      });
    });
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return (this.#server.address() as { port: number }).port;
  }

  stop(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}

class LineClient {
  received = '';
  readonly closed: Promise<void>;
  #wake = () => {};

  private constructor(readonly socket: Socket) {
    socket.on('error', () => {});
    socket.on('data', (bytes) => {
      this.received += bytes.toString('latin1');
      this.#wake();
    });
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()));
  }

  static async open(port: number): Promise<LineClient> {
    const socket = connect(port, '127.0.0.1');
    const client = new LineClient(socket);
    await once(socket, 'connect');
    return client;
  }

  async ask(line: string): Promise<string> {
    this.socket.write(`${line}\n`);
    return this.answer(line);
  }

  async answer(line: string): Promise<string> {
    while (!this.received.includes(`ok ${line}\n`)) await new Promise<void>((resolve) => (this.#wake = resolve));
    return this.received;
  }
}

let server: LineServer;
let proxy: TcpProxy;
beforeEach(async () => {
  server = new LineServer();
  proxy = await TcpProxy.start({ host: '127.0.0.1', port: await server.start() });
});
afterEach(async () => {
  await proxy.stop();
  server.stop();
});

describe('TCP proxy', () => {
  it('forwards both ways, and the end of either side', async () => {
    const client = await LineClient.open(proxy.port);
    await client.ask('one');
    const long = 'x'.repeat(3_000_000);
    await client.ask(long);
    expect(server.lines).toEqual(['one', long]);
    expect(proxy.connections).toBe(1);
    client.socket.end(`${long}\nlast\n`);
    await client.closed;
    expect(client.received.endsWith(`ok ${long}\nok last\n`)).toBe(true);
    await server.ends[0];
  });

  it('cuts before the server has the bytes, also when they come in two packets', async () => {
    const client = await LineClient.open(proxy.port);
    const cut = proxy.cutAt({ pattern: 'COMMIT', verdict: 'cut-before' });
    await client.ask('begin');
    expect(cut.hit).toBe(false);
    client.socket.setNoDelay(true);
    client.socket.write('COM');
    await new Promise((resolve) => setTimeout(resolve, 20));
    client.socket.write('MIT\n');
    await Promise.all([client.closed, cut.done, server.ends[0]]);
    expect(server.lines).toEqual(['begin']);
    expect(cut.hit).toBe(true);
    // The rule is used up.
    await (await LineClient.open(proxy.port)).ask('COMMIT');
    expect(server.lines).toEqual(['begin', 'COMMIT']);
  });

  it('cuts after the server has the bytes', async () => {
    const client = await LineClient.open(proxy.port);
    const cut = proxy.cutAt({ pattern: 'COMMIT', verdict: 'cut-after' });
    client.socket.write('COMMIT\n');
    await Promise.all([client.closed, cut.done, server.ends[0]]);
    expect(server.lines).toEqual(['COMMIT']);
    expect(client.received).toBe('');
  });

  it('drops the answer, and cuts when it comes', async () => {
    const client = await LineClient.open(proxy.port);
    const cut = proxy.cutAt({ pattern: 'COMMIT', verdict: 'cut-on-reply', reply: 'ok COMMIT 2', skip: 1 });
    await client.ask('COMMIT 0');
    const before = client.received;
    client.socket.write('COMMIT 1\nCOMMIT 2\n');
    await Promise.all([client.closed, cut.done]);
    expect(server.lines).toEqual(['COMMIT 0', 'COMMIT 1', 'COMMIT 2']);
    expect(client.received).toBe(before);
  });

  it('swallows every answer from then on, until it is cut', async () => {
    const client = await LineClient.open(proxy.port);
    const cut = proxy.cutAt({ pattern: 'COMMIT', verdict: 'swallow' });
    client.socket.write('COMMIT\n');
    await cut.done;
    client.socket.write('ping\n');
    while (server.lines.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(client.received).toBe('');
    expect(proxy.connections).toBe(1);
    proxy.cutAll();
    await client.closed;
    expect(client.received).toBe('');
  });

  it('asks a judge about everything, and disarmed rules do nothing', async () => {
    const cut = proxy.cutAt({ pattern: 'one', verdict: 'cut-before' });
    cut.disarm();
    const seen: number[] = [];
    proxy.onClientBytes((bytes, fresh) => {
      seen.push(fresh);
      return bytes.includes('three') ? 'cut-before' : undefined;
    });
    const client = await LineClient.open(proxy.port);
    await client.ask('one');
    await client.ask('two');
    client.socket.write('three\n');
    await client.closed;
    expect(seen).toEqual([4, 4, 6]);
    expect(server.lines).toEqual(['one', 'two']);
    proxy.onClientBytes(undefined);
    await (await LineClient.open(proxy.port)).ask('three');
  });

  it('holds bytes and new connections while it is paused, and loses none', async () => {
    const client = await LineClient.open(proxy.port);
    await client.ask('one');
    proxy.pause();
    client.socket.write('two\n');
    const late = await LineClient.open(proxy.port);
    late.socket.write('three\n');
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(server.lines).toEqual(['one']);
    proxy.resume();
    await Promise.all([client.answer('two'), late.answer('three')]);
    expect(server.lines.sort()).toEqual(['one', 'three', 'two']);
  });

  it('refuses new connections and takes them again on the same port; open ones stay', async () => {
    const client = await LineClient.open(proxy.port);
    await client.ask('one');
    await proxy.refuse();
    await expect(LineClient.open(proxy.port)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    await client.ask('two');
    const port = proxy.port;
    await proxy.accept();
    expect(proxy.port).toBe(port);
    await (await LineClient.open(port)).ask('three');
    expect(proxy.accepted).toBe(2);
  });

  it('moves new connections to another server, and shows a dead one as a cut', async () => {
    const other = new LineServer();
    proxy.retarget({ host: '127.0.0.1', port: await other.start() });
    const client = await LineClient.open(proxy.port);
    await client.ask('one');
    expect([server.lines, other.lines]).toEqual([[], ['one']]);
    other.stop();
    await client.closed;
    const late = await LineClient.open(proxy.port);
    late.socket.write('two\n');
    await late.closed;
    expect(late.received).toBe('');
  });
});
