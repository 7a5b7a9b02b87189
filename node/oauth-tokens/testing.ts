/** An issuer of access tokens on 127.0.0.1, for tests: a real HTTP server with discovery, keys and introspection. */
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from 'jose';

type KeyPair = Awaited<ReturnType<typeof generateKeyPair>>;

export class TestIssuer {
  readonly #server: Server;
  readonly #keys = new Map<string, { pair: KeyPair; algorithm: string }>();
  /** Paths that were asked for. */
  readonly requests: string[] = [];
  /** Opaque tokens, and what is answered about them. */
  readonly active = new Map<string, Record<string, unknown>>();
  /** The last introspection's Authorization field and form. */
  asked: { authorization: string; form: URLSearchParams } | undefined;
  /** What goes wrong. */
  trouble: 'none' | 'status-500' | 'redirect' | 'no-json' | 'endless' | 'silent' | 'other-issuer' = 'none';

  private constructor() {
    this.#server = createServer((request, response) => {
      void this.#answer(request, response);
    });
  }

  static async start(): Promise<TestIssuer> {
    const issuer = new TestIssuer();
    await new Promise<void>((resolve) => issuer.#server.listen(0, '127.0.0.1', resolve));
    return issuer;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** A new key that is published; answers its id. */
  async addKey(algorithm: string, id: string = randomUUID()): Promise<string> {
    this.#keys.set(id, { pair: await generateKeyPair(algorithm, { extractable: true }), algorithm });
    return id;
  }

  removeKey(id: string): void {
    this.#keys.delete(id);
  }

  pair(id: string): KeyPair {
    return this.#keys.get(id)!.pair;
  }

  /** A token for `claims`, good for an hour unless they say otherwise. */
  sign(id: string, claims: JWTPayload, header: { kid?: string | undefined } = { kid: id }): Promise<string> {
    const { pair, algorithm } = this.#keys.get(id)!;
    const nowSeconds = Math.floor(Date.now() / 1000);
    return new SignJWT({ iss: this.url, exp: nowSeconds + 3_600, ...claims })
      .setProtectedHeader({ alg: algorithm, ...(header.kid === undefined ? {} : { kid: header.kid }) })
      .sign(pair.privateKey);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? '';
    this.requests.push(path);
    const json = (value: unknown) => response.setHeader('content-type', 'application/json').end(JSON.stringify(value));
    if (this.trouble === 'silent') return;
    if (this.trouble === 'status-500') return void response.writeHead(500).end();
    if (this.trouble === 'redirect') return void response.writeHead(302, { location: '/elsewhere' }).end();
    if (this.trouble === 'no-json') return void response.end('<html>');
    if (this.trouble === 'endless') return void response.end(`{"keys":[],"x":"${'x'.repeat(400_000)}"}`);
    if (path === '/.well-known/openid-configuration') {
      const issuer = this.trouble === 'other-issuer' ? 'https://evil.test' : this.url;
      return void json({ issuer, jwks_uri: `${this.url}/keys` });
    }
    if (path === '/keys') {
      const keys = [...this.#keys].map(async ([kid, { pair, algorithm }]) => ({
        ...(await exportJWK(pair.publicKey)),
        kid,
        alg: algorithm,
        use: 'sig',
      }));
      return void json({ keys: await Promise.all(keys) });
    }
    if (path === '/introspect' && request.method === 'POST') {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const form = new URLSearchParams(Buffer.concat(chunks).toString());
      this.asked = { authorization: request.headers.authorization ?? '', form };
      return void json(this.active.get(form.get('token') ?? '') ?? { active: false });
    }
    response.writeHead(404).end();
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
