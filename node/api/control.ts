/**
 * The control socket: how the command line reaches the running node. HTTP over a Unix-domain socket in the data directory that only the node's user
 * may open (mode 0600); one POST per operation, JSON both ways.
 */
import { chmodSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type Logger, systemClock } from '../../ops/telemetry/index.js';
import { type OperationArguments, type OperationContext, OperationRefused, operations } from './operations.js';

const maxRequestBytes = 1_048_576;
/** What the kernel takes (`sun_path` without its final NUL). Node cuts longer paths off without a word and listens somewhere else. */
export const maxSocketPathBytes = 107;
/** For operations that still run when the node stops. */
const closeTimeoutMs = 1_000;

export interface ControlServer {
  close(): Promise<void>;
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > maxRequestBytes) throw new OperationRefused(`request over ${maxRequestBytes} bytes`);
    chunks.push(chunk);
  }
  return JSON.parse(Buffer.concat(chunks).toString('utf8'));
}

function isArguments(value: unknown): value is OperationArguments {
  return (
    typeof value === 'object' &&
    value !== null &&
    'positionals' in value &&
    Array.isArray(value.positionals) &&
    value.positionals.every((item) => typeof item === 'string') &&
    'flags' in value &&
    typeof value.flags === 'object' &&
    value.flags !== null
  );
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  context: OperationContext,
  logger: Logger,
): Promise<void> {
  const reply = (status: number, body: unknown) => {
    const text = JSON.stringify(body ?? null);
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(text);
  };
  let name = request.url ?? '/';
  try {
    name = decodeURIComponent(name.slice(1));
    const operation = Object.hasOwn(operations, name) ? operations[name] : undefined;
    if (request.method !== 'POST' || !operation) return reply(404, { error: `no such operation: ${name}` });
    const args = await readJson(request);
    if (!isArguments(args)) return reply(400, { error: 'not an operation request' });
    reply(200, await operation.run(context, args));
  } catch (error) {
    if (error instanceof OperationRefused) return reply(409, { error: error.message });
    if (error instanceof SyntaxError || error instanceof URIError) return reply(400, { error: 'not an operation request' });
    logger.error({ err: error, operation: name }, 'an operation failed');
    reply(500, { error: `${name} failed: ${(error as Error).message}` });
  }
}

/** Listens on `path` (at most `maxSocketPathBytes`). The caller holds the store's lock, so a socket file that is already there was left by a node that died. */
export async function startControlServer(path: string, context: OperationContext, logger: Logger): Promise<ControlServer> {
  if (Buffer.byteLength(path) > maxSocketPathBytes)
    throw new Error(`the socket path ${path} is longer than ${maxSocketPathBytes} bytes`);
  const server: Server = createServer((request, response) => void answer(request, response, context, logger));
  try {
    rmSync(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      // The socket is made with the process's umask: narrow it for the moment of its making, so that nobody else can slip in before the chmod.
      const umask = process.umask(0o177);
      server.listen(path, resolve);
      process.umask(umask);
    });
    chmodSync(path, 0o600);
  } catch (error) {
    throw new Error(`the control socket cannot listen on ${path}: ${(error as Error).message}`, { cause: error });
  }
  return {
    async close() {
      await new Promise<void>((resolve) => {
        const timer = systemClock.setTimer(closeTimeoutMs, () => server.closeAllConnections(), { background: true });
        server.close(() => {
          timer.cancel();
          resolve();
        });
        server.closeIdleConnections();
      });
      rmSync(path, { force: true });
    },
  };
}
