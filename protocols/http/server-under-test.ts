/** Servers and clients for the tests of this folder. */
import { once } from 'node:events';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { silentLogger } from '../../ops/telemetry/index.js';
import { HttpServer, type HttpServerOptions } from './index.js';

const servers: HttpServer[] = [];

/** A server on a free port of 127.0.0.1 that `stopAll` stops. */
export function server(options: Partial<HttpServerOptions> = {}): HttpServer {
  const made = new HttpServer({ name: 'test', host: '127.0.0.1', port: 0, logger: silentLogger, ...options });
  servers.push(made);
  return made;
}

export const url = (of: HttpServer, path = '/') => `http://127.0.0.1:${of.address().port}${path}`;

/** Polls until `condition` holds; fails by the test's own time limit. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await delay(5);
}

export async function responseTo(request: ClientRequest): Promise<IncomingMessage> {
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return response;
}

export async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

export async function stopAll(): Promise<void> {
  await Promise.all(servers.splice(0).map((made) => made.stop(100)));
}
