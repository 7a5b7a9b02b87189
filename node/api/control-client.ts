/** The command line's side of the control socket. */
import { request } from 'node:http';
import type { OperationArguments } from './operations.js';

/** Nothing listens there. */
export class NoNodeRunning extends Error {
  override readonly name = 'NoNodeRunning';
}

/** The node answered that it won't or can't. */
export class ControlRefused extends Error {
  override readonly name = 'ControlRefused';
}

/** Runs an operation on the node behind `socketPath`. Throws `NoNodeRunning` or `ControlRefused`. */
export function callControl(socketPath: string, operation: string, args: OperationArguments): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const call = request(
      {
        socketPath,
        method: 'POST',
        path: `/${encodeURIComponent(operation)}`,
        headers: { 'content-type': 'application/json' },
        // One call, one connection: a kept one would be found dead after the node's restart.
        agent: false,
      },
      async (response) => {
        try {
          const chunks: Buffer[] = [];
          for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
          const body = JSON.parse(Buffer.concat(chunks).toString('utf8')) as unknown;
          if (response.statusCode === 200) resolve(body);
          else reject(new ControlRefused(String((body as { error?: unknown }).error ?? response.statusCode)));
        } catch (error) {
          reject(new ControlRefused(`the node's answer was cut off: ${(error as Error).message}`));
        }
      },
    );
    call.on('error', (error: NodeJS.ErrnoException) => {
      const absent = error.code === 'ENOENT' || error.code === 'ECONNREFUSED';
      reject(absent ? new NoNodeRunning(`no node listens on ${socketPath}`) : new ControlRefused(error.message));
    });
    call.end(JSON.stringify(args));
  });
}
