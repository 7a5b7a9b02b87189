/** Asks a running node through its control socket, as the `starling` command does, without the cost of starting one: for questions that are asked often. */
import { request } from 'node:http';

/** The node's answer. Throws when none comes, or it says no. */
export function askNode(
  socketPath: string,
  operation: string,
  args: { positionals?: readonly string[]; flags?: Record<string, unknown> } = {},
  timeoutMs = 2_000,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const path = `/${encodeURIComponent(operation)}`;
    const headers = { 'content-type': 'application/json' };
    const call = request({ socketPath, method: 'POST', path, headers, agent: false, timeout: timeoutMs }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        if (response.statusCode !== 200) return reject(new Error(`${operation}: ${response.statusCode} ${text}`));
        try {
          resolve(JSON.parse(text));
        } catch (error) {
          reject(error);
        }
      });
    });
    call.on('timeout', () => call.destroy(new Error(`${operation}: no answer within ${timeoutMs} ms`)));
    call.on('error', reject);
    call.end(JSON.stringify({ positionals: args.positionals ?? [], flags: args.flags ?? {} }));
  });
}
