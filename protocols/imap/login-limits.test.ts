/** COMPRESS on a running session, places of a user's connections, and logins while the store is away. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { constants, createDeflateRaw, createInflateRaw, deflateRawSync } from 'node:zlib';
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../ops/telemetry/index.js';
import { openMemoryStore } from '../../store/kv/index.js';
import { TestClient } from './testing/client.js';
import { startTestServer, type TestServer, type TestServerOptions } from './testing/server.js';

const open: { close(): unknown }[] = [];
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each.close();
});

async function start(options?: TestServerOptions): Promise<TestServer> {
  const server = await startTestServer(options);
  open.push(server);
  return server;
}

async function client(server: TestServer): Promise<TestClient> {
  const opened = await TestClient.open(server.port);
  open.push(opened);
  await opened.line();
  return opened;
}

/** A client that speaks DEFLATE once it is told to. */
class Packing {
  #heard = '';
  readonly #deflate = createDeflateRaw({ flush: constants.Z_SYNC_FLUSH });

  constructor(readonly socket: Socket) {
    socket.on('data', this.#hear);
    open.push({ close: () => socket.destroy() });
  }

  readonly #hear = (bytes: Buffer): void => {
    this.#heard += bytes.toString('latin1');
  };

  begin(): void {
    const inflate = createInflateRaw();
    this.socket.off('data', this.#hear);
    this.socket.pipe(inflate).on('data', this.#hear);
    this.#deflate.pipe(this.socket);
  }

  plain(text: string): void {
    this.socket.write(text);
  }

  packed(text: string): void {
    this.#deflate.write(text);
  }

  /** All that was heard up to and with this line. */
  async until(pattern: RegExp): Promise<string> {
    for (;;) {
      const match = pattern.exec(this.#heard);
      if (match) {
        const text = this.#heard.slice(0, match.index + match[0].length);
        this.#heard = this.#heard.slice(text.length);
        return text;
      }
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }
}

async function packing(server: TestServer): Promise<Packing> {
  const socket = connect({ port: server.port, host: '127.0.0.1' });
  const made = new Packing(socket);
  await once(socket, 'connect');
  await made.until(/ready\r\n/);
  made.plain('a1 LOGIN alice secret\r\n');
  expect(await made.until(/a1 OK .*\r\n/)).toContain(' COMPRESS=DEFLATE');
  return made;
}

describe('COMPRESS', () => {
  it('packs all that follows, with IDLE and large bodies, and is offered no more', async () => {
    const server = await start();
    const big = `Subject: big\r\n\r\n${'some line of text, again and again\r\n'.repeat(20_000)}`;
    await server.deliver('alice', 'INBOX', big);
    const session = await packing(server);
    session.plain('a2 COMPRESS NONSENSE\r\na3 COMPRESS DEFLATE\r\n');
    expect(await session.until(/a3 OK .*\r\n/)).toMatch(/^a2 NO \[CANNOT\] /);
    session.begin();
    session.packed('a4 CAPABILITY\r\na5 COMPRESS DEFLATE\r\na6 SELECT INBOX\r\n');
    const answers = await session.until(/a6 OK .*\r\n/);
    expect(answers).not.toContain('COMPRESS=DEFLATE');
    expect(answers).toMatch(/^a5 NO \[COMPRESSIONACTIVE\] /m);
    const before = session.socket.bytesRead;
    session.packed('a7 FETCH 1 BODY.PEEK[]\r\n');
    expect(await session.until(/a7 OK .*\r\n/)).toContain(big);
    expect(session.socket.bytesRead - before).toBeLessThan(big.length / 20);
    session.packed('a8 IDLE\r\n');
    await session.until(/\+ .*\r\n/);
    await server.deliver('alice', 'INBOX', 'Subject: news\r\n\r\n');
    await session.until(/\* 2 EXISTS\r\n/);
    session.packed('DONE\r\na9 UNAUTHENTICATE\r\nb1 LOGIN alice secret\r\nb2 LOGOUT\r\n');
    // RFC 8437: compression lies under the protocol, and stays.
    expect(await session.until(/b2 OK .*\r\n/)).not.toContain('COMPRESS=DEFLATE');
    if (!session.socket.closed) await once(session.socket, 'close');
  });

  it('takes compressed commands that come right behind it', async () => {
    const server = await start();
    const session = await packing(server);
    const packed = deflateRawSync('a3 NOOP\r\na4 LOGOUT\r\n', { finishFlush: constants.Z_SYNC_FLUSH });
    session.socket.write(Buffer.concat([Buffer.from('a2 COMPRESS DEFLATE\r\n'), packed]));
    await session.until(/a2 OK .*\r\n/);
    if (!session.socket.closed) await once(session.socket, 'close');
    while (server.sessions.size > 0) await new Promise((resolve) => setTimeout(resolve, 2));
  });

  it('is not to be put under TLS by STARTTLS after UNAUTHENTICATE', async () => {
    const server = await start();
    const session = await packing(server);
    session.plain('a2 COMPRESS DEFLATE\r\n');
    await session.until(/a2 OK .*\r\n/);
    session.begin();
    session.packed('a3 UNAUTHENTICATE\r\n');
    expect(await session.until(/a3 OK .*\r\n/)).not.toContain('STARTTLS');
    session.packed('a4 STARTTLS\r\na5 LOGIN alice secret\r\n');
    expect(await session.until(/a5 OK .*\r\n/)).toMatch(/^a4 BAD /);
  });

  it('bounds what a bomb may do', async () => {
    const server = await start();
    const session = await packing(server);
    session.plain('a2 COMPRESS DEFLATE\r\n');
    await session.until(/a2 OK .*\r\n/);
    session.begin();
    const closed = once(session.socket, 'close');
    session.socket.on('error', () => {});
    session.packed('x'.repeat(64 * 1_048_576));
    await closed;
  });

  it('is not for those who have not logged in', async () => {
    const server = await start();
    const stranger = await client(server);
    expect(await stranger.command('COMPRESS DEFLATE')).toEqual([expect.stringMatching(/^t1 BAD /)]);
  });
});

describe('connections of one user', () => {
  it('are counted, given back, and refused with LIMIT', async () => {
    let taken = 0;
    const admitConnection = async () => {
      if (taken >= 2) return undefined;
      taken++;
      return () => {
        taken--;
      };
    };
    const server = await start({ admitConnection });
    const [first, second, third] = [await client(server), await client(server), await client(server)];
    await first.ok('LOGIN alice secret');
    await second.ok('LOGIN alice secret');
    expect((await third.command('LOGIN alice secret')).at(-1)).toMatch(/ NO \[LIMIT\] /);
    expect((await third.command('STATUS INBOX (MESSAGES)')).at(-1)).toMatch(/ BAD /);
    await first.ok('UNAUTHENTICATE');
    await third.ok('LOGIN alice secret');
    expect(taken).toBe(2);
    await second.ok('LOGOUT');
    await second.closed();
    third.close();
    while (server.sessions.size > 1) await new Promise((resolve) => setTimeout(resolve, 2));
    expect(taken).toBe(0);
  });
});

it('says UNAVAILABLE, and nothing of wrong passwords, while the store is away', async () => {
  const kv = openMemoryStore({ clock: systemClock, faults: {} });
  open.push(kv);
  const server = await start({ kv });
  const opened = await client(server);
  kv.faults.outage = true;
  expect((await opened.command('LOGIN alice secret')).at(-1)).toMatch(/ NO \[UNAVAILABLE\] /);
  kv.faults.outage = false;
  await opened.ok('LOGIN alice secret');
});
